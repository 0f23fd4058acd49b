"""Pre-train: `python train.py [group=option] [key=value ...]`, or `torchrun --nproc_per_node=N train.py ...`."""

from cxrcl.commands.train import main

if __name__ == "__main__":
    main()
