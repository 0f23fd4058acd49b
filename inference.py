"""Read images with a checkpoint: `python inference.py --checkpoint FILE --image FILE|FOLDER ...`."""

from cxrcl.commands.inference import main

if __name__ == "__main__":
    main()
