"""`python -m cxrcl NAME ...`."""

from cxrcl.commands.dispatch import main

if __name__ == "__main__":
    main()
