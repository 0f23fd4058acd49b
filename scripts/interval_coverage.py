"""How often 95 % intervals hold the true value: simulated test sets, for docs/statistics.md.

    python scripts/interval_coverage.py --out coverage
    python scripts/interval_coverage.py --out coverage --tables areas tests --simulations 4000

Scores are normal, shifted where the image is positive by what gives the AUROC. Images of a patient, one to four of
them, and labels of an image are alike, and one in ten images of a positive patient is negative.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from cxrcl.evaluation.metrics import METRICS, delong
from cxrcl.evaluation.metrics.clusters import Deviations, weighted_mean
from cxrcl.evaluation.metrics.ranking import Ranking
from cxrcl.evaluation.report.table import aligned
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.intervals import LEVEL, log_odds, of_difference, percentile
from cxrcl.evaluation.scores.scoring import ADDED, Measured, Predicted, score_images

PATIENTS = 250
MEANS = {
    "5 labels of 10": [10] * 5,
    "5 labels of 5 to 50": [5, 10, 20, 50, 50],
    "5 labels of 3 to 50": [3, 10, 20, 50, 50],
    "14 labels of 2 to 80": [2, 2, 3, 4, 5, 10, 10, 20, 20, 30, 40, 50, 60, 80],
    "14 labels of 10 to 80": [10, 10, 10, 10, 15, 15, 20, 20, 20, 30, 40, 50, 60, 80],
}
OTHERS = tuple(metric for metric in METRICS if metric not in ("auroc", "ece"))
Sample = tuple[Predicted, np.ndarray, np.ndarray]
Found = tuple[str, float, float]  # a method and its interval
Row = dict[str, Any]


def sample(positives: Sequence[int], auroc: float, most: int, seed: Sequence[int], larger: int = 1) -> Sample:
    """A model's scores, labels and patients of one test set.

    Args:
        positives: of each label, the number of patients that have it.
        most: images of a patient; they have 1 to this many.
        larger: how many times as many patients there are, with and without labels.
    """
    rng, count = np.random.default_rng(seed), PATIENTS * larger
    member = np.repeat(np.arange(count), rng.integers(1, most + 1, count))
    is_first = np.append(True, np.diff(member) > 0)
    shift, of_patient = np.sqrt(2) * norm.ppf(auroc), rng.normal(0, 0.5**0.5, count)
    scores, labels, probabilities = [], [], []
    for number in positives:
        has_it = np.isin(member, rng.choice(count, number * larger, replace=False))
        positive = has_it & (is_first | (rng.random(len(member)) < 0.9))
        of_both = (of_patient + rng.normal(0, 0.3**0.5, count))[member]
        score = of_both + rng.normal(0, 0.2**0.5, len(member)) + shift * positive
        prior = number / PATIENTS
        scores.append(score)
        labels.append(positive.astype(float))
        probabilities.append(expit(np.log(prior / (1 - prior)) + shift * score - shift**2 / 2))
    none = np.full(len(positives), np.nan)
    predicted = Predicted(
        name="m",
        labels=tuple(f"L{k}" for k in range(len(positives))),
        scores=np.stack(scores, axis=1),
        probabilities=np.stack(probabilities, axis=1),
        thresholds=expit(np.log(np.array(positives) / (PATIENTS - np.array(positives)))),  # scores of shift / 2
        temperatures=none,
        threshold="",
        calibration="",
    )
    return predicted, np.stack(labels, axis=1), member


def bca(value: float, drawn: np.ndarray, deviations: np.ndarray) -> tuple[float, float]:
    """Percentiles corrected for bias and skewness (Efron and Tibshirani 1993, section 14.3); not used in reports.

    Args:
        deviations: float [P], what each patient adds to the value; their skewness is the acceleration.
    """
    exist = drawn[~np.isnan(drawn)]
    below = ((exist < value).sum() + 0.5 * (exist == value).sum()) / len(exist)
    bias = norm.ppf(np.clip(below, 1 / (len(exist) + 1), len(exist) / (len(exist) + 1)))
    spread = (deviations**2).sum()
    acceleration = (deviations**3).sum() / (6 * spread**1.5) if spread else 0.0
    shifted = bias + norm.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.quantile(exist, norm.cdf(bias + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)


def areas_of(part: Sample) -> list[Deviations]:
    """The AUROC of each label."""
    predicted, labels, member = part
    count = int(member.max()) + 1
    return [delong.area(s, y == 1, member, count) for s, y in zip(predicted.scores.T, labels.T, strict=True)]


def intervals_of_area(part: Sample, resamples: int, seed: int) -> Iterator[Found]:
    """Method -> interval of AUROC, averaged over the labels; `default` is what reports have. Percentiles at will."""
    predicted, labels, member = part
    areas = areas_of(part)
    fewest, plain = min(min(each.counts) for each in areas), weighted_mean(areas)
    yield "default", *log_odds(weighted_mean(areas, added=ADDED), fewest)[:2]
    if 0 < plain.value < 1 and not np.isnan(plain.variance):
        yield "logit, none added", *log_odds(plain, fewest)[:2]
    if resamples:
        patients = Patients(member, resamples, seed)
        rankings = [
            Ranking(s, y == 1, member, patients.count) for s, y in zip(predicted.scores.T, labels.T, strict=True)
        ]
        drawn = np.concatenate([np.mean([r.at(n)[0] for r in rankings], axis=0) for n in patients.draws(resamples)])
        yield "percentile", *percentile(drawn)[:2]
        yield "BCa", *bca(plain.value, drawn, np.sum([each.parts for each in areas], axis=(0, 1)))


def measured(part: Sample, resamples: int, seed: int) -> Measured:
    """The first label of a test set, or the mean over several, with intervals whatever their number of patients."""
    predicted, labels, member = part
    mean_over = predicted.labels if len(predicted.labels) > 1 else ()
    found = score_images(predicted, labels, Patients(member, resamples, seed), mean_over, resamples=0)
    one = found.by_average["macro"] if mean_over else found.by_label["L0"]
    return replace(one, fewest=dict.fromkeys(METRICS, 1))


def intervals_of_metrics(part: Sample, resamples: int, seed: int) -> Iterator[tuple[str, Found]]:
    """Metric, method -> interval, of the metrics other than AUROC."""
    one = measured(part, resamples, seed)
    scores = one.scores(resamples)
    for metric in OTHERS:
        if (low := scores[metric].low) is not None and (high := scores[metric].high) is not None:
            yield metric, ("default", low, high)
        if np.isnan(one.drawn[metric]).all():
            continue
        yield metric, ("percentile", *percentile(one.drawn[metric])[:2])
        if terms := one.terms.get(metric):
            added_up = np.sum([weight * each.parts[0] for each, weight in terms.values()], axis=0)
            yield metric, ("BCa", *bca(one.plain[metric], one.drawn[metric], added_up))


def row_of(setting: Mapping[str, object], true: float, found: Sequence[Found]) -> Row:
    """Coverage and mean width of each method."""
    row: Row = {**setting, "true": true}
    by_method = {method: [(low, high) for name, low, high in found if name == method] for method, *_ in found}
    row["simulations"] = {method: len(each) for method, each in by_method.items()}
    row["coverage"] = {method: float(np.mean([a <= true <= b for a, b in each])) for method, each in by_method.items()}
    row["width"] = {method: float(np.mean([b - a for a, b in each])) for method, each in by_method.items()}
    return row


def covered_area(name: str, positives: Sequence[int], auroc: float, most: int, runs: argparse.Namespace) -> Row:
    """Intervals of AUROC, of one label or the mean over several."""
    found: list[Found] = []
    for k in range(runs.simulations):
        part = sample(positives, auroc, most, (len(positives), sum(positives), int(100 * auroc), most, k))
        found += intervals_of_area(part, runs.resamples if k < runs.resampled else 0, k)
    return row_of({"positive patients": name, "AUROC": auroc, "images": images(most)}, auroc, found)


def covered_metrics(name: str, positives: Sequence[int], auroc: float, runs: argparse.Namespace) -> Iterator[Row]:
    """Intervals of the other metrics, a row each."""
    large = [measured(sample(positives, auroc, 4, (9, k), larger=50), 0, 0).plain for k in range(5)]
    found: dict[str, list[Found]] = {metric: [] for metric in OTHERS}
    for k in range(runs.resampled):
        part = sample(positives, auroc, 4, (len(positives), sum(positives), int(100 * auroc), 4, k))
        for metric, one in intervals_of_metrics(part, runs.resamples, k):
            found[metric].append(one)
    for metric in OTHERS:
        setting = {"positive patients": name, "AUROC": auroc, "metric": metric}
        yield row_of(setting, float(np.mean([one[metric] for one in large])), found[metric])


def images(most: int) -> str:
    """How many images a patient has, in words."""
    return f"1 to {most}" if most > 1 else "1"


def areas(runs: argparse.Namespace) -> Iterator[Row]:
    """AUROC of one label."""
    for number in (3, 5, 10, 20, 50):
        for most in (1, 4):
            for auroc in (0.6, 0.8, 0.95):
                yield covered_area(str(number), [number], auroc, most, runs)


def means(runs: argparse.Namespace) -> Iterator[Row]:
    """AUROC, averaged over labels."""
    for name, positives in MEANS.items():
        for most in (1, 4):
            for auroc in (0.6, 0.8, 0.95):
                yield covered_area(name, positives, auroc, most, runs)


def others(runs: argparse.Namespace) -> Iterator[Row]:
    """The other metrics, of one label and averaged; one to four images a patient."""
    for auroc in (0.8, 0.95):
        for number in (5, 10, 50):
            yield from covered_metrics(str(number), [number], auroc, runs)
        yield from covered_metrics("5 labels of 5 to 50", [5, 10, 20, 50, 50], auroc, runs)


def tests(runs: argparse.Namespace) -> Iterator[Row]:
    """DeLong's test of two models that do not differ: the share of p < 0.05."""
    for number in (5, 10, 50):
        for most in (1, 4):
            p_values = []
            for k in range(runs.simulations):
                predicted, labels, member = sample([number], 0.8, most, (number, most, k))
                rng = np.random.default_rng((number, most, k, 1))
                noisy = (replace(predicted, scores=predicted.scores + rng.normal(0, 0.5, labels.shape)) for _ in "ab")
                (one,), (other,) = (areas_of((model, labels, member)) for model in noisy)
                p_values.append(of_difference(weighted_mean([one.minus(other)]))[1])
            share = float(np.mean(np.array(p_values) < 0.05))
            yield {"positive patients": str(number), "images": images(most), "p < 0.05": share}


TABLES = {"areas": areas, "means": means, "others": others, "tests": tests}


def markdown(rows: Sequence[Row]) -> str:
    """A table of the rows; coverage in a column for each method, and in brackets the mean width."""
    keys = [key for key, value in rows[0].items() if not isinstance(value, dict)]
    shown = [({}, {}) if "coverage" not in row else (row["coverage"], row["width"]) for row in rows]
    methods = list(dict.fromkeys(method for coverage, _ in shown for method in coverage))
    lines = [[*keys, *methods]]
    for row, (coverage, width) in zip(rows, shown, strict=True):
        cells = [f"{coverage[m]:.3f} ({width[m]:.2f})" if m in coverage else "" for m in methods]
        lines.append([*(f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key]) for key in keys), *cells])
    return aligned(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder for a .json and a .md file of each table")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--simulations", type=int, default=1000, help="test sets (default: %(default)s)")
    parser.add_argument("--resampled", type=int, default=300, help="of which so many are resampled (%(default)s)")
    parser.add_argument("--resamples", type=int, default=400, help="of each of these (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.tables:
        rows = list(TABLES[name](options))
        runs = {name: getattr(options, name) for name in ("simulations", "resampled", "resamples")}
        text = json.dumps({**runs, "rows": rows}, indent=1) + "\n"
        (options.out / f"{name}.json").write_text(text, encoding="utf-8")
        (options.out / f"{name}.md").write_text(markdown(rows) + "\n", encoding="utf-8")
        print(f"{name}\n\n{markdown(rows)}\n", flush=True)


if __name__ == "__main__":
    main()
