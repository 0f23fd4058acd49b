"""From the scores of images to everything that is said of them: decisions, intervals, subgroups, comparisons.

- `score_report`: the results, as plain data.
- `prediction_files`: CSV files of predictions and labels.
- `calibration`, `thresholds`: from scores to probabilities and decisions, fitted on validation images only.
- `bootstrap`: resamples of patients; `intervals`: of one number, from its variance or its resamples.
- `scoring`: one model on one set of images; `subgroups`: on each group of them; `models`: several models, compared.

The metrics themselves are in `cxrcl.evaluation.metrics`.
"""
