"""Images of a manifest, decoded and shrunk once: `python scripts/pack.py MANIFEST_DIR --out STORE`."""

from cxrcl.commands.pack import main

if __name__ == "__main__":
    main()
