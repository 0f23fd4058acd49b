"""Score a checkpoint: `python evaluate.py checkpoint=FILE [evals=[zero_shot,retrieval]] [key=value ...]`."""

from cxrcl.cli import evaluate

if __name__ == "__main__":
    evaluate()
