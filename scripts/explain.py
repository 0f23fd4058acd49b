"""Why is my number not yours: `python scripts/explain.py checkpoint=FILE target=0.81 [key=value ...]`."""

from cxrcl.commands.explain import main

if __name__ == "__main__":
    main()
