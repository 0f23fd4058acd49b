"""Facts of a report: which weights were scored, what they were trained on, and on which images.

They are values, which the application compares; `shown` renders them as texts for people and results.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainedOn:
    """What a checkpoint was trained on, and what the scored images have in common with it.

    Attributes:
        sources: source of the data -> number of training images.
        scored: number of scored images. Each is one of the next five.
        seen_by_pixels, seen_by_name: images that were trained on, as their pixels say; as only their names say.
        patient_seen: other images of patients that were trained on.
        same_source: images of other patients, of a source that was trained on.
        unknown: images of which nothing is found in the record.
        perhaps_patient_seen: of `unknown`, images whose patient has the number of one that was trained on, both of
            sources without a name.
        same_patient_id: of the last two, images whose patient has the number of one of another source.
        not_known: what could not be compared.
    """

    sources: Mapping[str, int]
    scored: int
    seen_by_pixels: int = 0
    seen_by_name: int = 0
    patient_seen: int = 0
    same_source: int = 0
    unknown: int = 0
    perhaps_patient_seen: int = 0
    same_patient_id: int = 0
    not_known: tuple[str, ...] = ()

    @property
    def contaminated(self) -> int:
        """Number of scored images that are no test: they, or others of their patients, were trained on."""
        return self.seen_by_pixels + self.seen_by_name + self.patient_seen

    def __str__(self) -> str:
        sources = ", ".join(f"{name} ({count} images)" for name, count in sorted(self.sources.items()))
        return f"{sources or 'nothing that is recorded'}. {self.counts}"

    @property
    def counts(self) -> str:
        """The scored images by what they have in common with the training, and what that leaves open."""
        seen, mark = self.seen_by_pixels + self.seen_by_name, "O"
        if self.contaminated or self.perhaps_patient_seen:
            mark = "CONTAMINATED: o" if self.contaminated else "PERHAPS CONTAMINATED: o"
        how = f" ({self.seen_by_pixels} by pixels, {self.seen_by_name} by name only)" if seen else ""
        text = (
            f"{mark}f {self.scored} scored images {seen} seen in training{how}, {self.patient_seen} of a training "
            f"patient, {self.same_source} of the same source, {self.unknown} unknown"
        )
        if self.perhaps_patient_seen:
            text += (
                f"; {self.perhaps_patient_seen} of the unknown have the patient number of a training image, both of "
                "sources without a name (name them in the column source of manifests)"
            )
        if self.same_patient_id:
            text += f"; {self.same_patient_id} have the patient number of a training image of another source"
        return text + (f". Not known: {'; '.join(self.not_known)}" if self.not_known else "")


@dataclass(frozen=True)
class ModelFacts:
    """The facts of one checkpoint.

    Attributes:
        checkpoint: its file or folder.
        step: of training.
        weights: `as trained` or `moving average`.
        fingerprint: of the weights.
        trained_on: None where the checkpoint does not record it.
        views: view -> number of training images (None: not recorded); None where views are not recorded.
        views_not_seen: view -> number of scored images, of kinds of view that training had none of.
    """

    checkpoint: str
    step: int
    weights: str
    fingerprint: str
    trained_on: TrainedOn | None = None
    views: Mapping[str, int | None] | None = None
    views_not_seen: Mapping[str, int] = field(default_factory=dict)

    def shown(self) -> dict[str, str]:
        """The facts as texts, by label."""
        not_seen = f". NOT AMONG THEM: scored {_counts(self.views_not_seen)}" if self.views_not_seen else ""
        return {
            "checkpoint": self.checkpoint,
            "step": str(self.step),
            "weights": self.weights,
            "fingerprint of the weights": self.fingerprint,
            "trained on": "not recorded in this checkpoint" if self.trained_on is None else str(self.trained_on),
            "views trained on": "not recorded" if self.views is None else f"{_counts(self.views)}{not_seen}",
        }


def _counts(views: Mapping[str, int | None]) -> str:
    return ", ".join(view if count is None else f"{view or 'blank'} {count}" for view, count in views.items())


@dataclass(frozen=True)
class PromptsFile:
    """Sentences as an evaluator read them. `sentences`: label -> pos or neg -> sentences."""

    name: str
    sentences: Mapping[str, Mapping[str, Sequence[str]]]

    @property
    def text(self) -> str:
        """The sentences as JSON, the same for equal ones."""
        return json.dumps(self.sentences, sort_keys=True, ensure_ascii=False)

    @property
    def sha256(self) -> str:
        """Of `text`."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:12]})"


@dataclass(frozen=True)
class DataFacts:
    """What was scored and how. Equal facts: the models were scored on the same images by the same rules.

    Attributes:
        splits: pooled.
        images: number of scored images.
        manifest: its fingerprint.
        uncertain_labels: how they were read.
        views: view -> number of scored images.
        filter: column -> values that were chosen, or how many they are where they may name patients.
        left_out: number of images left out because they cannot be read; None where such images are an error.
        rules: evaluator -> how its metrics are computed.
        prompts: evaluator -> the prompts that it read.
    """

    splits: tuple[str, ...]
    images: int
    manifest: str
    uncertain_labels: str
    views: Mapping[str, int] = field(default_factory=dict)
    filter: Mapping[str, str] = field(default_factory=dict)
    left_out: int | None = None
    rules: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, Sequence[PromptsFile]] = field(default_factory=dict)

    def shown(self, with_rules: bool = True) -> dict[str, str]:
        """The facts as texts, by label."""
        rules = {f"{evaluator} rule": rule for evaluator, rule in self.rules.items()} if with_rules else {}
        return {
            "splits": " + ".join(self.splits),
            "images": str(self.images),
            **({} if self.left_out is None else {"left out, cannot be read": str(self.left_out)}),
            **({"views": _counts(self.views)} if self.views else {}),
            **(
                {"only": "; ".join(f"{column} {values}" for column, values in self.filter.items())}
                if self.filter
                else {}
            ),
            "manifest": self.manifest,
            "uncertain labels": self.uncertain_labels,
            **rules,
            **{
                f"{evaluator} prompts": ", ".join(map(str, files)) for evaluator, files in self.prompts.items() if files
            },
        }
