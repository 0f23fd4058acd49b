"""Settings of a training that meet other data, or other choices: what is kept, what is dropped, and a line for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cxrcl.app.overrides import as_override
from cxrcl.app.sources import with_known_sentences
from cxrcl.checkpoint.content import Recipe
from cxrcl.config import sections
from cxrcl.data import manifest as manifests
from cxrcl.data import views
from cxrcl.data.manifest import Manifest

# Choices among the training images: they mean nothing on others, and the model does not depend on them.
_DROPPED: dict[str, Any] = {"filter": {}, "fraction": 1.0, "split_lists": None}
# Kept, and said where training had another value than configs have by default: what it does here, and what ends it.
_KEPT = {
    "labels": ("no other label of these data is scored", "data.labels names others"),
    "label_policy": ("uncertain labels count so", "data.label_policy=ignore leaves them out"),
    "check_patients": ("a patient may stand in two splits", "data.check_patients=true refuses that"),
    "allow_outside_root": ("image paths may lead out of the folder", "data.allow_outside_root=false refuses that"),
    "skip_bad_images": ("images that cannot be read are left out", "data.skip_bad_images=false refuses them"),
}


@dataclass(frozen=True)
class Laid:
    """Data settings of a training with those of an evaluation laid over.

    Attributes:
        views_of_training: to be kept as far as the other data have them (`keep_views`); None where that is settled.
        lines: what was kept and dropped, for a person.
    """

    settings: sections.Data
    views_of_training: list[str] | None = None
    lines: list[str] = field(default_factory=list)


def overlaid(stored: Mapping[str, Any], changes: sections.EvaluateData) -> Laid:
    """Stored settings of the data, with the changes that are not null laid over.

    Of other data (another root, store or sources) all rows are scored, but for views: a model is made for those that it
    was trained on.
    """
    given = {key: value for key, value in changes.model_dump().items() if value is not None and key != "sources"}
    filters = dict(stored.get("filter") or {})
    if changes.root is None and changes.store is None and not changes.sources:
        lost = {column: values for column, values in filters.items() if column not in given.get("filter", filters)}
        lines = [f"{_filter(lost)} of training is dropped: another data.filter was given"] if lost else []
        return Laid(sections.parse({**stored, **given}, sections.Data), lines=lines)

    of_training = stored.get("views") or filters.pop("view", None)
    if "views" in given or "view" in given.get("filter", {}):
        of_training = None
    lines = []
    for key, value in {**stored, "filter": filters}.items():
        if key in given or value == sections.Data.model_fields[key].get_default():
            continue
        shown = _filter(value) if key == "filter" else as_override(f"data.{key}", value)
        if key in _DROPPED:
            lines.append(f"{shown} of training is dropped: it chose among other images; give it again to keep it")
        elif key in _KEPT:
            lines.append("{} of training is kept: {} ({})".format(shown, *_KEPT[key]))
    sources = with_known_sentences(changes.sources, stored["sources"])
    values = {**stored, **_DROPPED, "views": None, **given}
    values |= {"sources": sources, "root": changes.root, "store": changes.store}
    return Laid(sections.parse(values, sections.Data), of_training, lines)


def shown_values(column: str, values: Sequence[str]) -> str:
    """Values that were chosen of a column. Of names of images and patients, which no log should hold, the number."""
    return ", ".join(values) if column in manifests.FEW_VALUES else f"{len(values)} values"


def _filter(columns: Mapping[str, Sequence[str]]) -> str:
    """A filter as it is typed, where it can be shown."""
    if all(column in manifests.FEW_VALUES for column in columns):
        return as_override("data.filter", columns)
    return f"data.filter ({', '.join(f'{column}: {shown_values(column, columns[column])}' for column in columns)})"


def keep_views(data: Manifest, of_training: Sequence[str], splits: Sequence[str]) -> tuple[Manifest, list[str]]:
    """The rows of other data that have a view of training, and a line where there are others.

    All rows where a scored split, or a source, has no such view: it calls views by other names, or the model was not
    made for them.
    """
    rows, override = data.rows, as_override("data.views", list(of_training))
    keep, scored = rows["view"].isin(list(of_training)), rows["split"].isin(list(splits))
    if keep.all():
        return data, []
    if set(rows["split"][scored & keep]) < set(rows["split"][scored]) or set(rows["part"][keep]) < set(rows["part"]):
        found = _described(data, scored)
        return data, [f"{override} of training is dropped: these data lack such images; scored are {found}"]
    line = (
        f"{override} of training is kept: scored are {_described(data, scored & keep)}; left out are "
        f"{_described(data, scored & ~keep)} ({as_override('data.views', [])} scores them too)"
    )
    return data.take(keep.to_numpy()), [line]


def _described(data: Manifest, chosen: Any) -> str:
    return views.described(views.counted(data.rows["view"][chosen]))


def lines_on_labels(model: Sequence[str], data: Sequence[str]) -> list[str]:
    """Labels that a classifier has, or the data have, and the other has not."""
    absent, foreign = ([n for n in one if n not in other] for one, other in ((model, data), (data, model)))
    lines = [f"the data lack {', '.join(absent)} of the model's labels: not scored"] if absent else []
    return lines + ([f"the model has no output for {', '.join(foreign)} of the data: not scored"] if foreign else [])


def views_of_training(recipe: Recipe) -> Mapping[str, int | None] | None:
    """View -> number of training images (None: not recorded); None where no view is told.

    A checkpoint from before views were recorded tells them where its settings chose some.
    """
    if recipe.training_views is not None:
        return recipe.training_views
    chosen = recipe.data.get("views") or (recipe.data.get("filter") or {}).get("view")
    return dict.fromkeys(chosen) if chosen else None


def views_not_seen(recipe: Recipe, scored: Mapping[str, int]) -> dict[str, int]:
    """Of images counted by view, those frontal or lateral ones of whose kind the model is known to have had none."""
    return views.not_seen(views_of_training(recipe) or ("",), scored)


def line_on_views(recipe: Recipe, images: Mapping[str, int], are: str = "scored are") -> list[str]:
    """What a reader must know before anything else, if images counted by view are such as the model never saw.

    Args:
        are: what these images are, in words.
    """
    trained, not_seen = views_of_training(recipe), views_not_seen(recipe, images)
    if not not_seen or trained is None:
        return []
    remedy = as_override("data.views", [view for view in images if view in trained])
    rest = f" ({remedy} takes the views of training alone)" if set(trained) & set(images) else ""
    seen = views.described(trained)
    return [f"NOT TRAINED FOR THESE VIEWS: it was trained on {seen} images; {are} {views.described(images)}{rest}"]


def line_on_unknown_views(recipe: Recipe) -> str | None:
    """What there is to say of images whose view nobody tells, by a model that was trained on frontal ones alone."""
    trained = views_of_training(recipe)
    kinds = {views.kind(view) for view in trained or ()}
    if trained is None or len(kinds) > 1 or views.UNKNOWN in kinds:
        return None
    (kind,) = kinds
    return f"trained on {kind} images alone ({', '.join(trained)}), and whether an image is one is not looked at"
