"""The choices that a zero-shot figure depends on and that papers leave open, as values that can be tried one by one.

- `choice`: what a choice and its variants are, and in which stage of an evaluation they act.
- `scoring`, `labels`, `texts`: choices after the encoders, and of what the text encoder reads.
- `figures`: metrics by name, from scores and labels.
- `bench`: embeddings and a set of changes -> figures.
- `search`: which changes bring a figure to a target, and the spread of a figure over all choices.

Choices of images and weights need the data and a checkpoint: `cxrcl.app.explain` makes them.
"""
