"""Train a classifier on a pre-trained image encoder: `python finetune.py init_from=CHECKPOINT [key=value ...]`."""

from cxrcl.commands.finetune import main

if __name__ == "__main__":
    main()
