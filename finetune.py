"""Train a classifier on a pre-trained image encoder: `python finetune.py init_from=CHECKPOINT [key=value ...]`."""

from cxrcl.cli import finetune

if __name__ == "__main__":
    finetune()
