"""Pairs of texts that differ in one negation, beside a manifest: `python scripts/negation_pairs.py MANIFEST_DIR`."""

from cxrcl.commands.negation_pairs import main

if __name__ == "__main__":
    main()
