"""Whether a model reads negations: pairs of texts of which one is true of the image, and prompts of either side.

- `evaluator`: the evaluator `Negation`.
- `pair_file`: the pairs of the scored images, from a CSV file.
- `choices`: shares of pairs in which the own text is chosen, with intervals; what chooses without looking at the image.
- `tables`: what is shown of them.
"""
