"""What `scripts/benchmark.py` can measure: one file a subcommand, with `add_arguments(parser)` and `run(given)`."""
