"""Pairs of texts that differ in the polarity of one finding, made beside a manifest for `evals=negation`.

- `pairs`: what a pair is, the balance of both directions, the file.
- `phantom_pairs`: exact pairs of a phantom set, by its grammar.
- `rules`: the sentences of reports that can be turned by rule, and how; `report_pairs`: pairs of any reports by them.
- `recipe`: hashes by which others see that they made the same pairs; no text of a data set is part of this package.
"""
