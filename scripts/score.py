"""Score predictions of any model: `python scripts/score.py --predictions p.csv --labels l.csv --out DIR`."""

from cxrcl.commands.score import main

if __name__ == "__main__":
    main()
