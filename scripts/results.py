"""Measure every result of the README anew and write docs/results.md: `python scripts/results.py --help`."""

from cxrcl.commands.results import main

if __name__ == "__main__":
    main()
