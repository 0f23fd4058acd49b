"""Read films with a checkpoint: `python inference.py --checkpoint FILE --image FILE|FOLDER ...`."""

from cxrcl.cli import inference

if __name__ == "__main__":
    inference()
