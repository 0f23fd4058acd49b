"""The card of an exported model: README.md, the name under which the Hugging Face hub and code hosts show it.

Its words are those of `model_card.md.jinja`, its figures those of a `results.json` that evaluate.py wrote about this
checkpoint; none is computed here. The hub reads the means a second time, in the front matter's model-index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from cxrcl.checkpoint import exported
from cxrcl.checkpoint.content import Checkpoint, Recipe
from cxrcl.data import views
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.errors import RESEARCH_ONLY, DataError
from cxrcl.models.saving import Saved
from cxrcl.objectives.base import Objective
from cxrcl.types import Classifies, EmbedsText

if TYPE_CHECKING:
    from cxrcl.export.onnx_export import Written

NAME = "README.md"
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
PUBLIC_COLUMNS = ("source", "part", "view", "split")  # columns whose values name no patient, whatever the data
BASELINES = ("view_only", "pixel_ridge")  # evaluators in which the model plays no part
METRICS = {"auroc": "roc_auc", "auprc": "average_precision"}  # by the hub's names
Figures = Mapping[str, Any]  # of a results.json: what the template shows, and `results` for the hub


# ------------------------------------------------------------------------------------------------------ figures


def figures_of(
    source: Path, checkpoint: Checkpoint, requested: Sequence[Path] | None
) -> tuple[list[Figures], list[str]]:
    """What the evaluations of a checkpoint found, and a line for each file that was found and not taken.

    Args:
        requested: these files; None: results.json in the run's folder and in its folders evaluate_*.

    Raises:
        DataError: a requested file is not of evaluate.py, or of another checkpoint.
    """
    run, fingerprint = source.absolute().parent.parent, checkpoint.fingerprint()
    beside = [run / "results.json", *sorted(run.glob("evaluate_*/results.json"))]
    found, lines = [], []
    for file in [path for path in beside if path.is_file()] if requested is None else requested:
        try:
            found.append(_read(file, source, fingerprint))
        except DataError as error:
            if requested is not None:
                raise
            lines.append(f"not in the card: {error}")
    if not found and not lines:
        lines = ["no results.json of evaluate.py: the card has no figures (--results FILE)"]
    return found, lines


def _read(file: Path, source: Path, fingerprint: str) -> Figures:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        scored, weights = content["facts"]["checkpoint"], content["facts"]["fingerprint of the weights"]
        for evaluator, report in content.get("scores", {}).items():
            if isinstance(report, str):  # a file of its own (`cxrcl.evaluation.report.results_files`)
                content["scores"][evaluator] = json.loads(file.with_name(report).read_text(encoding="utf-8"))
        found = _figures(content)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise DataError(f"{file}: not what this evaluate.py writes about a single checkpoint") from None
    if weights != fingerprint:
        raise DataError(f"{file}: is about {scored} with other weights than {source} has now: evaluate it again")
    return found


def _is_contaminated(content: Mapping[str, Any]) -> bool:
    """Whether scored images, or others of their patients, were trained on; old files say it in words only."""
    if "trained_on" in content:
        return bool(content["trained_on"]["contaminated"])
    return "CONTAMINATED" in content["facts"].get("trained on", "")


def _figures(content: Mapping[str, Any]) -> Figures:
    """Raises KeyError, TypeError, ... where the content is none of evaluate.py's."""
    facts, controls = content["facts"], content.get("controls", [])
    scores = {name: report for name, report in content.get("scores", {}).items() if name not in controls}
    contaminated = _is_contaminated(content)
    perhaps = content.get("trained_on", {}).get("perhaps_patient_seen")
    return {
        "title": f"Split {facts['splits']}, {facts['images']} images (manifest {facts['manifest']})",
        "contaminated": contaminated,
        "trained_on": facts["trained on"],
        "means": [
            [name if k == 0 else f"{name}: {model['name']}", *(_shown(_mean(model, metric)) for metric in METRICS)]
            for name, report in scores.items()
            for k, model in enumerate(report["models"])
        ],
        "scorers": [_scorer(name, report, facts) for name, report in scores.items()],
        "retrieval": [*_retrieval(content.get("retrieval", {}))],
        # The hub lists them beside those of other models, so only a test counts, and one that is sure to be.
        "results": [] if contaminated or perhaps else [*_for_the_hub(scores, facts)],
    }


def _scorer(name: str, report: Mapping[str, Any], facts: Mapping[str, str]) -> dict[str, Any]:
    """How an evaluator scores and, unless it is a baseline, the scores of each label."""
    rule = {"rule": f"{name}: {facts.get(f'{name} rule', 'no rule recorded').removesuffix('.')}"}
    if name in BASELINES:
        return rule
    intervals, averages = report["rules"]["intervals"], report["rules"]["averages"].replace("over ", "means over ", 1)
    labels = [
        [each["label"], f"{each['positives']} / {each['negatives']}", *(_shown(each["scores"].get(m)) for m in METRICS)]
        for each in report["models"][0]["labels"]
    ]
    return rule | {"labels": labels, "rules": f"{'no intervals' if intervals == 'none' else intervals}; {averages}"}


def _retrieval(directions: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    for direction, figures in directions.items():
        recalls = [
            f"R@{k} {figures[f'r{k}']:.3f} (chance {figures[f'chance_r{k}']:.3f})"
            for k in (1, 5, 10)
            if f"r{k}" in figures
        ]
        if recalls:
            yield f"{direction.replace('_', ' ')}, among {figures.get('gallery', 0):.0f}: {', '.join(recalls)}"


def _for_the_hub(scores: Mapping[str, Any], facts: Mapping[str, str]) -> Iterator[EvalResult]:
    """The means of the model itself."""
    for name in (name for name in scores if name not in BASELINES):
        for metric, of_the_hub in METRICS.items():
            score = _mean(scores[name]["models"][0], metric)
            if score is not None and score["value"] is not None:
                yield EvalResult(
                    task_type="zero-shot-image-classification" if name == "zero_shot" else "image-classification",
                    dataset_type="chest-x-rays",
                    dataset_name=f"chest X-rays of the manifest {facts['manifest']}",
                    dataset_split=facts["splits"],
                    dataset_revision=facts["manifest"],
                    metric_type=of_the_hub,
                    metric_value=round(score["value"], 3),
                    metric_name=f"mean {metric.upper()}, {name}{_interval(score)}",
                )


def _mean(model: Mapping[str, Any], metric: str) -> Mapping[str, Any] | None:
    macro = next((each for each in model["averages"] if each["name"] == "macro"), None)
    return macro["scores"].get(metric) if macro else None


def _shown(score: Mapping[str, Any] | None) -> str:
    return "-" if score is None or score["value"] is None else f"{score['value']:.3f}{_interval(score)}"


def _interval(score: Mapping[str, Any]) -> str:
    return "" if score["low"] is None else f" ({score['low']:.3f} to {score['high']:.3f})"


def _plain(text: object) -> str:
    """One line that Markdown shows letter for letter: names of labels and sources come from anywhere."""
    return re.sub(r"([\\`*\[\]|<>&])", r"\\\1", " ".join(str(text).split()))


# --------------------------------------------------------------------------------------------------------- card


def text(
    checkpoint: Checkpoint,
    objective: Objective,
    transform: RadiographTransform,
    licence: str | None,
    figures: Sequence[Figures],
    saved: Sequence[Saved],
    onnx: Sequence[Written],
) -> str:
    """The card as Markdown, with the hub's front matter."""
    recipe, exposure, model = checkpoint.recipe, checkpoint.exposure, objective.evaluated()
    title = f"Chest X-ray model ({type(objective).__name__})"
    results = [result for each in figures for result in each["results"]]
    front = ModelCardData(
        license=licence.lower() if licence else None,
        library_name="cxrcl",
        tags=["chest-x-ray", "radiology", "contrastive-learning"],
        model_name=title if results else None,
        eval_results=results or None,
    )
    protocols = {"classifies": Classifies, "embeds texts": EmbedsText}
    towers = [name for name in ("image_encoder", "text_encoder") if name in recipe.model]
    card = ModelCard.from_template(
        front,
        str(TEMPLATE),
        plain=_plain,
        names=exported,
        research_only=RESEARCH_ONLY,
        title=title,
        does=next((does for does, protocol in protocols.items() if isinstance(model, protocol)), "encodes images"),
        objective=type(objective).__name__,
        towers=[(name.replace("_", " "), _tower(recipe.model[name])) for name in towers],
        parameters=sum(parameter.numel() for parameter in objective.parameters()),
        optimizer=_optimizer(recipe.settings or {}),
        queue=any(name.rpartition(".")[2] == "queue" for name in checkpoint.weights),
        sources=sorted(exposure.sources.items()) if exposure else [],
        data=_data(recipe),
        figures=figures,
        checkpoint=checkpoint,
        transform=transform,
        saved=saved,
        onnx=onnx,
        licence=licence,
    )
    return f"{card}\n"


def _tower(node: Mapping[str, Any]) -> str:
    """The class of an encoder, with the name of its architecture and without the folder that it came from."""
    named = f", {Path(str(node['name'])).name}" if "name" in node else ""
    return f"{str(node['_target_']).rpartition('.')[2]}{named}"


def _optimizer(settings: Mapping[str, Any]) -> str:
    optimizer, trainer = settings["optimizer"], settings["trainer"]
    rate = f", learning rate {optimizer['lr']:g}" if optimizer.get("lr") else ""
    name = str(optimizer["_target_"]).rpartition(".")[2]
    return f"{name}{rate}, batches of {trainer['batch_size'] * trainer['accumulate']}"


def _data(recipe: Recipe) -> dict[str, str]:
    """What was chosen of the data, without values that may name patients."""
    data, public = recipe.data, (*PUBLIC_COLUMNS, *recipe.labels)
    chosen = {
        f"only {name}": ", ".join(values) if name in public else f"{len(values)} values, which are not told here"
        for name, values in data.get("filter", {}).items()
    }
    fractions = {name: (node or {}).get("fraction") for name, node in data["sources"].items()}
    own = [f"of {name} {value}" for name, value in fractions.items() if value is not None]
    return {
        "views": ", ".join(data.get("views") or ["all"])
        if recipe.training_views is None
        else views.described(recipe.training_views),
        **chosen,
        "fraction of the patients": ", ".join([str(data.get("fraction", 1.0)), *own]),
        "text": f"{data.get('text', 'auto')}, uncertain labels: {data.get('label_policy', 'ignore')}",
        "prompts": Path(str(recipe.prompts.get("file", "of its own"))).name,
    }
