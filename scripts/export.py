"""A checkpoint becomes a folder to give away: `python scripts/export.py CHECKPOINT --out DIR`."""

from cxrcl.commands.export import main

if __name__ == "__main__":
    main()
