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

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from cxrcl.evaluation.metrics import METRICS
from cxrcl.evaluation.metrics.clusters import weighted_mean
from cxrcl.evaluation.report.table import aligned
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.comparisons import compare
from cxrcl.evaluation.scores.intervals import LEVEL, log_odds, percentile
from cxrcl.evaluation.scores.scoring import Measured, Predicted, ranked_only, score_images

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


def measured(part: Sample, resamples: int, seed: int, is_mean: bool) -> Measured:
    """The first label of a test set, or the mean over all, with intervals whatever their number of patients."""
    predicted, labels, member = part
    mean_over = predicted.labels if is_mean else ()
    found = score_images(predicted, labels, Patients(member, resamples, seed), mean_over, resamples=0)
    one = found.by_average["macro"] if is_mean else found.by_label["L0"]
    return replace(one, fewest=dict.fromkeys(METRICS, 1))


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


def intervals(one: Measured, metric: str, resamples: int) -> Iterator[tuple[str, float, float]]:
    """Method -> interval, of every candidate; `default` is what reports have."""
    score = replace(one, plain={metric: one.plain[metric]}).scores(resamples)[metric]
    if score.low is not None and score.high is not None:
        yield "default", score.low, score.high
    if not np.isnan(one.drawn[metric]).all():
        yield "percentile", *percentile(one.drawn[metric])[:2]
    if terms := one.terms.get(metric):
        each, weights = zip(*terms.values(), strict=True)
        if not np.isnan(one.drawn[metric]).all():
            shares = np.array(weights) / sum(weights)
            added_up = sum(share * sum(part.parts) for share, part in zip(shares, each, strict=True))
            yield "BCa", *bca(one.plain[metric], one.drawn[metric], added_up)
        if metric == "auroc" and 0 < one.plain[metric] < 1:
            yield "DeLong, logit, none added", *log_odds(weighted_mean(each, weights), 1)[:2]


def covered(
    name: str, positives: Sequence[int], auroc: float, most: int, metrics: Sequence[str], runs: argparse.Namespace
) -> list[dict[str, object]]:
    """A row for each metric: coverage and mean width of each method."""
    is_mean = len(positives) > 1
    if metrics == ["auroc"]:
        truth = dict.fromkeys(metrics, auroc)
    else:
        large = [measured(sample(positives, auroc, most, (9, k), larger=100), 0, 0, is_mean).plain for k in range(5)]
        truth = {metric: float(np.mean([one[metric] for one in large])) for metric in metrics}
    held: dict[str, dict[str, list[tuple[bool, float]]]] = {metric: {} for metric in metrics}
    for k in range(runs.simulations):
        seed = (len(positives), sum(positives), int(100 * auroc), most, k)
        predicted, labels, member = sample(positives, auroc, most, seed)
        if metrics == ["auroc"]:
            predicted = ranked_only(predicted.name, predicted.labels, predicted.scores)
        one = measured((predicted, labels, member), runs.resamples, k, is_mean)
        for metric in metrics:
            for method, low, high in intervals(one, metric, runs.resamples):
                held[metric].setdefault(method, []).append((low <= truth[metric] <= high, high - low))
    return [
        {
            "positive patients": name,
            "AUROC": auroc,
            "images": f"1 to {most}" if most > 1 else "1",
            "metric": metric,
            "true": truth[metric],
            "simulations": {method: len(found) for method, found in held[metric].items()},
            "coverage": {method: float(np.mean([c for c, _ in found])) for method, found in held[metric].items()},
            "width": {method: float(np.mean([w for _, w in found])) for method, found in held[metric].items()},
        }
        for metric in metrics
    ]


def rejected(number: int, most: int, runs: argparse.Namespace) -> dict[str, object]:
    """How often two equally good models differ with p < 0.05."""
    p_values: dict[str, list[float]] = {"auroc": [], "auprc": []}
    for k in range(runs.simulations):
        predicted, labels, member = sample([number], 0.8, most, (number, most, k))
        rng, patients = np.random.default_rng((number, most, k, 1)), Patients(member, runs.resamples, k)
        models: dict[str, Mapping[str, Measured]] = {}
        for name in ("one", "other"):
            noisy = ranked_only(name, predicted.labels, predicted.scores + rng.normal(0, 0.5, labels.shape))
            models[name] = score_images(noisy, labels, patients, (), resamples=0).by_label
        for comparison in compare("label", models):
            if comparison.metric in p_values and comparison.p is not None:
                p_values[comparison.metric].append(comparison.p)
    shares = {metric: float(np.mean(np.array(found) < 0.05)) for metric, found in p_values.items()}
    return {"positive patients": number, "images": f"1 to {most}" if most > 1 else "1", "p < 0.05": shares}


def areas(runs: argparse.Namespace) -> Iterator[dict[str, object]]:
    """AUROC of one label."""
    for number in (3, 5, 10, 20, 50):
        for most in (1, 4):
            for auroc in (0.6, 0.8, 0.95):
                yield from covered(str(number), [number], auroc, most, ["auroc"], runs)


def means(runs: argparse.Namespace) -> Iterator[dict[str, object]]:
    """AUROC, averaged over labels."""
    for name, positives in MEANS.items():
        for most in (1, 4):
            for auroc in (0.6, 0.8, 0.95):
                yield from covered(name, positives, auroc, most, ["auroc"], runs)


def others(runs: argparse.Namespace) -> Iterator[dict[str, object]]:
    """The other metrics, of one label and averaged."""
    for auroc in (0.8, 0.95):
        for number in (5, 10, 50):
            yield from covered(str(number), [number], auroc, 4, OTHERS, runs)
        for name in ("5 labels of 10", "5 labels of 5 to 50"):
            yield from covered(name, MEANS[name], auroc, 4, OTHERS, runs)


def tests(runs: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Comparisons of models that do not differ."""
    for number in (5, 10, 50):
        for most in (1, 4):
            yield rejected(number, most, runs)


TABLES = {"areas": areas, "means": means, "others": others, "tests": tests}


def markdown(rows: Sequence[dict[str, object]]) -> str:
    """A table of the rows: a column a method, coverage and in brackets the mean width."""
    keys = [key for key, value in rows[0].items() if not isinstance(value, dict)]
    of = "coverage" if "coverage" in rows[0] else "p < 0.05"
    methods = list(dict.fromkeys(method for row in rows for method in row[of]))  # type: ignore[attr-defined]
    lines = [[*keys, *methods]]
    for row in rows:
        shares, widths = (row.get(key, {}) for key in (of, "width"))
        assert isinstance(shares, dict) and isinstance(widths, dict)
        cells = [
            f"{shares[m]:.3f}" + (f" ({widths[m]:.2f})" if m in widths else "") if m in shares else "" for m in methods
        ]
        lines.append([*(f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key]) for key in keys), *cells])
    return aligned(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder for a .json and a .md file of each table")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=400, help="of each simulated test set")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.tables:
        rows = list(TABLES[name](options))
        runs = {"simulations": options.simulations, "resamples": options.resamples}
        text = json.dumps({**runs, "rows": rows}, indent=1) + "\n"
        (options.out / f"{name}.json").write_text(text, encoding="utf-8")
        (options.out / f"{name}.md").write_text(markdown(rows) + "\n", encoding="utf-8")
        print(f"{name}\n\n{markdown(rows)}\n", flush=True)


if __name__ == "__main__":
    main()
