"""Time this package against plain forms of the same work: `python scripts/benchmark.py losses`."""

from cxrcl.commands.benchmark import main

if __name__ == "__main__":
    main()
