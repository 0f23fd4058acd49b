"""Score a checkpoint: `python evaluate.py checkpoint=FILE [evals=[zero_shot,retrieval]] [key=value ...]`."""

from cxrcl.commands.evaluate import main

if __name__ == "__main__":
    main()
