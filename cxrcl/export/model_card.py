"""The card of an exported model: README.md, the name under which the Hugging Face hub and code hosts show it.

Its figures are those of a `results.json` that evaluate.py wrote about this checkpoint; none is computed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrcl.checkpoint import exported
from cxrcl.checkpoint.content import Checkpoint
from cxrcl.data.images.transforms import RadiographTransform
from cxrcl.errors import RESEARCH_ONLY, DataError
from cxrcl.models.saving import Saved
from cxrcl.objectives.base import Objective
from cxrcl.types import Classifies, EmbedsText

if TYPE_CHECKING:
    from cxrcl.export.onnx_export import Written

NAME = "README.md"
PUBLIC_COLUMNS = ("source", "part", "view", "split")  # columns whose values name no patient, whatever the data
BASELINES = ("view_only", "pixel_ridge")  # evaluators in which the model plays no part
_LOAD = """```python
import cxrcl

model = cxrcl.load("FOLDER")
{use}
```

From the command line `python inference.py --checkpoint FOLDER --image IMAGE`; on images with a manifest
`python evaluate.py checkpoint=FOLDER data.root=DIR`; training on from these weights
`python train.py init_from=FOLDER ...` or `python finetune.py init_from=FOLDER ...`. Going on with the training itself
needs the checkpoint: optimizer and schedule are not in this folder."""


# ------------------------------------------------------------------------------------------------------ figures


def figures_of(source: Path, checkpoint: Checkpoint, requested: Sequence[Path] | None) -> tuple[list[str], list[str]]:
    """Paragraphs on the evaluations of a checkpoint, and a line for each file that was found and not taken.

    Args:
        requested: these files; None: results.json in the run's folder and in its folders evaluate_*.

    Raises:
        DataError: a requested file is not of evaluate.py, or of another checkpoint.
    """
    run, fingerprint = source.absolute().parent.parent, checkpoint.fingerprint()
    beside = [run / "results.json", *sorted(run.glob("evaluate_*/results.json"))]
    paragraphs, lines = [], []
    for file in [path for path in beside if path.is_file()] if requested is None else requested:
        try:
            paragraphs += _read(file, source, fingerprint)
        except DataError as error:
            if requested is not None:
                raise
            lines.append(f"not in the card: {error}")
    return paragraphs, lines or (
        [] if paragraphs else ["no results.json of evaluate.py: the card has no figures (--results FILE)"]
    )


def _read(file: Path, source: Path, fingerprint: str) -> list[str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        scored, weights = content["facts"]["checkpoint"], content["facts"]["fingerprint of the weights"]
        paragraphs = _figures(content["facts"], content)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise DataError(f"{file}: not what this evaluate.py writes about a single checkpoint") from None
    if weights != fingerprint:
        raise DataError(f"{file}: is about {scored} with other weights than {source} has now: evaluate it again")
    return paragraphs


def _is_contaminated(content: Mapping[str, Any]) -> bool:
    """Whether scored images were trained on; files without the key `trained_on` say it in words only."""
    if "trained_on" in content:
        return bool(content["trained_on"]["contaminated"])
    return "CONTAMINATED" in content["facts"].get("trained on", "")


def _figures(facts: Mapping[str, str], content: Mapping[str, Any]) -> list[str]:
    scores, controls = content.get("scores", {}), content.get("controls", [])
    parts = [_plain(f"### Split {facts['splits']}, {facts['images']} images (manifest {facts['manifest']})")]
    if _is_contaminated(content):
        parts.append(f"**Not a test: {_plain(facts['trained on'])}.**")
    means = [
        [
            _plain(f"{name}{'' if k == 0 else ': ' + model['name']}"),
            *(_mean(model, metric) for metric in ("auroc", "auprc")),
        ]
        for name, report in scores.items()
        if name not in controls
        for k, model in enumerate(report["models"])
    ]
    parts += [_table(["", "mean AUROC", "mean AUPRC"], means)] if means else []
    for name, report in scores.items():
        if name in controls:
            continue
        parts.append(_plain(f"{name}: {facts.get(f'{name} rule', 'no rule recorded').removesuffix('.')}."))
        if name in BASELINES:
            continue
        rows = [
            [_plain(each["label"]), f"{each['positives']} / {each['negatives']}"]
            + [_score(each["scores"].get(metric)) for metric in ("auroc", "auprc")]
            for each in report["models"][0]["labels"]
        ]
        parts.append(_table(["label", "positive / negative", "AUROC", "AUPRC"], rows))
        rules = {**report["rules"]}
        if rules["intervals"] == "none":
            rules["intervals"] = "no intervals"
        parts.append(_plain(f"{rules['intervals']}; {rules['averages'].replace('over ', 'means over ', 1)}."))
    for direction, figures in content.get("retrieval", {}).items():
        recall = ", ".join(
            f"R@{k} {figures[f'r{k}']:.3f} (chance {figures[f'chance_r{k}']:.3f})"
            for k in (1, 5, 10)
            if f"r{k}" in figures
        )
        if recall:
            parts.append(
                f"Retrieval, {_plain(direction.replace('_', ' '))}, among {figures.get('gallery', 0):.0f}: {recall}."
            )
    return parts


def _mean(model: Mapping[str, Any], metric: str) -> str:
    macro = next((each for each in model["averages"] if each["name"] == "macro"), None)
    return _score(macro["scores"].get(metric) if macro else None)


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None or score["value"] is None:
        return "-"
    interval = "" if score["low"] is None else f" ({score['low']:.3f} to {score['high']:.3f})"
    return f"{score['value']:.3f}{interval}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def _plain(text: object) -> str:
    """One line that Markdown shows letter for letter: names of labels and sources come from anywhere."""
    return re.sub(r"([\\`*\[\]|<>&])", r"\\\1", " ".join(str(text).split()))


# --------------------------------------------------------------------------------------------------------- card


def text(
    checkpoint: Checkpoint,
    objective: Objective,
    transform: RadiographTransform,
    licence: str | None,
    figures: Sequence[str],
    saved: Sequence[Saved],
    onnx: Sequence[Written],
) -> str:
    """The card as Markdown, with the hub's front matter."""
    front = ["---", *([f'license: "{licence.lower()}"'] if licence else []), "library_name: cxrcl"]
    front += ["tags: [chest-x-ray, radiology, contrastive-learning]", "---"]
    sections = {
        "Intended use": _use(objective),
        "Model": [_model(checkpoint, objective)],
        "Training data": _data(checkpoint),
        "Evaluation": figures or ["No figures were given."],
        "Preprocessing": _preprocessing(transform),
        "How to load it": [_LOAD.format(use=_python(objective)), *_others(saved, onnx)],
        "Files": [_files(checkpoint)],
        "Licence": [
            licence or "Not stated. Data and starting weights may restrict the use of a model trained on them."
        ],
    }
    parts = ["\n".join(front), f"# Chest X-ray model ({type(objective).__name__})", f"**{RESEARCH_ONLY}**"]
    for title, body in sections.items():
        parts += [f"## {title}", *body]
    return "\n\n".join(parts) + "\n"


def _use(objective: Objective) -> list[str]:
    model = objective.evaluated()
    if isinstance(model, Classifies):
        does = "It gives a probability for each of its labels."
    elif isinstance(model, EmbedsText):
        does = "It places images and sentences in one space: zero-shot labels, retrieval, features for a classifier."
    else:
        does = "It gives features of images, for a classifier or a probe trained on them."
    return [
        f"Research on chest X-rays. {does}",
        "Not for diagnosis, triage or any other decision about a patient: it is no medical device, and its "
        "probabilities are not calibrated for any population. Figures below hold for the images that they were "
        "measured on; of other hospitals, devices, views or patients expect others, and measure them before you rely "
        "on it.",
    ]


def _model(checkpoint: Checkpoint, objective: Objective) -> str:
    recipe = checkpoint.recipe
    rows = [["objective", type(objective).__name__]]
    for name in ("image_encoder", "text_encoder"):
        if name in recipe.model:
            node = recipe.model[name]
            named = f", {_plain(Path(str(node['name'])).name)}" if "name" in node else ""
            rows.append([name.replace("_", " "), f"{str(node['_target_']).rpartition('.')[2]}{named}"])
    count = sum(parameter.numel() for parameter in objective.parameters())
    weights = exported.TRAINED if checkpoint.state.average is None else exported.AVERAGE
    rows += [
        ["parameters", f"{count / 1e6:.1f} M"],
        ["weights", f"{weights}, step {checkpoint.step}"],
        ["precision of training", recipe.precision],
        *_training(recipe.settings or {}),
        ["labels", _plain(", ".join(recipe.labels) or "none")],
        ["versions", ", ".join(f"{name} {version}" for name, version in checkpoint.origin.versions.items())],
    ]
    return _table(["", ""], rows)


def _training(settings: Mapping[str, Any]) -> list[list[str]]:
    optimizer, trainer = settings["optimizer"], settings["trainer"]
    rate = f", learning rate {optimizer['lr']:g}" if optimizer.get("lr") else ""
    name = str(optimizer["_target_"]).rpartition(".")[2]
    return [["optimizer", f"{name}{rate}, batches of {trainer['batch_size'] * trainer['accumulate']}"]]


def _data(checkpoint: Checkpoint) -> list[str]:
    data, exposure = checkpoint.recipe.data, checkpoint.origin.exposure
    if exposure is None:
        return ["Which images it was trained on is not recorded in its checkpoint."]
    rows = [[_plain(name), str(count)] for name, count in sorted(exposure.sources.items())]
    public = (*PUBLIC_COLUMNS, *checkpoint.recipe.labels)
    chosen = {
        name: ", ".join(values) if name in public else f"{len(values)} values, which are not told here"
        for name, values in data.get("filter", {}).items()
    }
    fractions = {name: (node or {}).get("fraction") for name, node in data["sources"].items()}
    own = [f"of {name} {value}" for name, value in fractions.items() if value is not None]
    facts = {
        "views": ", ".join(data.get("views") or ["all"]),
        **{f"only {name}": values for name, values in chosen.items()},
        "fraction of the patients": ", ".join([str(data.get("fraction", 1.0)), *own]),
        "text": f"{data.get('text', 'auto')}, uncertain labels: {data.get('label_policy', 'ignore')}",
        "prompts": Path(str(checkpoint.recipe.prompts.get("file", "of its own"))).name,
    }
    return [
        _table(["source", "images"], rows),
        "\n".join(_plain(f"- {name}: {value}") for name, value in facts.items()),
        f"`{exported.RECORD}` holds hashes of the names of {len(exposure.training_images)} images: "
        "these, and those of the training that it began from, if any. evaluate.py compares the images that it scores "
        "with them: an image that a model was trained on is no test of it. No name and no pixel can be read out of a "
        "hash, but whoever has an image's source and name, or can guess them, can find out whether it is among them.",
    ]


def _preprocessing(transform: RadiographTransform) -> list[str]:
    spec = transform.spec
    fits = {
        "pad": "padded with black to a square",
        "crop": "cut to its middle square",
        "squash": "squashed to a square",
    }
    share = "" if transform.eval_crop == 1 else f", of which the middle {transform.eval_crop:g} of the side is taken"
    return [
        f"An image is one grey channel of 8 bits, bright where the image is bright (MONOCHROME1 inverted, deep files "
        f"scaled by their own range), {fits[transform.fit]}{share}, brought to {spec.size} x {spec.size} px (bilinear; "
        "by area first where it shrinks by more than 2), scaled to [0, 1], repeated to three channels and normalised "
        f"with mean {list(spec.mean)} and standard deviation {list(spec.std)}. As values: `{exported.PREPROCESS}`."
    ]


def _python(objective: Objective) -> str:
    model = objective.evaluated()
    if isinstance(model, Classifies):
        return 'probabilities = model.classify(["image.png"])  # [N, C], columns as in model.labels'
    if isinstance(model, EmbedsText):
        return (
            'scores = model.zero_shot(["image.png"])  # [N, C], columns as in model.labels\n'
            'cosines = model.embed_images(["image.png"]) @ model.embed_texts(["no pleural effusion."]).T'
        )
    return 'features = model.encode_images(["image.png"])  # [N, dim]'


def _others(saved: Sequence[Saved], onnx: Sequence[Written]) -> list[str]:
    parts = []
    if saved:
        rows = [[f"`{each.folder}/`", f"`{each.code}`", each.note] for each in saved]
        parts += ["Towers by themselves, without the heads of the objective, in their own libraries:"]
        parts.append(_table(["folder", "loads with", ""], rows))
        parts.append(
            "Preprocessing that they state is the nearest that their library has; it gives other pixels than "
            f"`{exported.PREPROCESS}` where an image is not a square of the model's size already."
        )
    if onnx:
        parts.append(
            "ONNX: `images` are images preprocessed and normalised as above, `ids` and `mask` those of the tokenizer."
        )
        rows = [
            [f"`onnx/{each.file}`", _shapes(each.inputs), _shapes(each.outputs), f"{each.difference:.1e}"]
            for each in onnx
        ]
        parts.append(_table(["file", "inputs", "outputs", "largest difference from the model"], rows))
    return parts


def _shapes(named: Mapping[str, str]) -> str:
    return ", ".join(f"`{name}` {shape}" for name, shape in named.items())


def _files(checkpoint: Checkpoint) -> str:
    averaged = checkpoint.state.average is not None
    average = " (their moving average, which evaluation uses; the others are left out)" if averaged else ""
    queue = [name for name in checkpoint.weights if name.rpartition(".")[2] == "queue"]
    keys = "; with the key tower and the queue of MoCo: features of its last training images" if queue else ""
    rows = [
        [f"`{exported.WEIGHTS}`", f"all weights of the objective{average}{keys}"],
        [f"`{exported.CONFIG}`", "what rebuilds the model, and the sha256 of each file that is read"],
        [f"`{exported.PREPROCESS}`", "preprocessing"],
    ]
    if checkpoint.recipe.vocabulary is not None:
        rows.append(["`tokenizer/`", 'the tokenizer: `transformers.AutoTokenizer.from_pretrained("tokenizer")`'])
    origin = checkpoint.origin
    record = [
        *(["hashes of the training images"] if origin.exposure else []),
        *(["directions of the prompts before training"] if origin.initial_directions else []),
    ]
    if record:
        rows.append([f"`{exported.RECORD}`", ", and ".join(record)])
    return f"{_table(['file', 'holds'], rows)}\n\nNothing in this folder is pickled: reading it runs no code of it."
