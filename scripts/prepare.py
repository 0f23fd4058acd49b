"""A download becomes a folder with manifest.csv: `python scripts/prepare.py chexpert --source DIR --out DIR`."""

from cxrcl.commands.prepare import main

if __name__ == "__main__":
    main()
