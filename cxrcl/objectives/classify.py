"""Classification: linear probing and fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from cxrcl.models.base import ImageEncoder
from cxrcl.objectives.losses import has_label, has_one_class, multi_class_loss, multi_label_loss
from cxrcl.objectives.towers import ImageObjective, encode_views
from cxrcl.types import Batch, Features, NotNegative, Positive, StepOutput


class Classify(ImageObjective):
    """Cross-entropy of labels; unknown ones (nan, and -1 under the policy `keep`) have no part.

    The loss is a mean over samples of the mean over their known labels (`cxrcl.objectives.losses.multi_label_loss`), or
    of the cross-entropy of their one positive label (`multi_class_loss`). Samples without a known label, or without
    exactly one positive, are left out.

    Args:
        labels: label names, one logit each.
        training_labels: float32 [N, C] of the training data, for balanced weights; None when a checkpoint is read.
        task: `multi_label`: each label is a question of its own; `multi_class`: exactly one of the labels is right.
        class_weights: factors by label name (of positives in multi_label, of the class in multi_class; 1 where none is
            given), or `balanced`: negatives / positives, or samples / (classes x samples of the class).
        focal_gamma: 0 is cross-entropy; above, what is already right counts less (Lin et al. 2017, equation 4).
        freeze_encoder: train the last layer only, the encoder in evaluation mode (a linear probe).
        layer_norm: of the features before the last layer, trained with it.
        init_std: standard deviation of the last layer's weights at the start (a normal distribution, bias as ever);
            None: torch's uniform one.

    Raises:
        ValueError: no label, a single one with multi_class, class weights of labels that do not exist or not above 0,
            or a label that balanced weights find no positive or no negative of.
    """

    per_sample: ClassVar[bool] = True
    needs_pooled_only: ClassVar[bool] = True

    def __init__(
        self,
        image_encoder: ImageEncoder,
        labels: Sequence[str],
        training_labels: Tensor | None = None,
        task: Literal["multi_label", "multi_class"] = "multi_label",
        class_weights: Mapping[str, float] | Literal["balanced"] | None = None,
        focal_gamma: NotNegative = 0.0,
        freeze_encoder: bool = False,
        layer_norm: bool = False,
        init_std: Positive | None = None,
    ) -> None:
        super().__init__(image_encoder)
        if not labels:
            raise ValueError("labels: no label column: a classifier needs one at least")
        if task == "multi_class" and len(labels) < 2:
            raise ValueError(f"task=multi_class: {labels[0]} is the only label, expected two or more")
        self.labels = tuple(labels)
        self.multi_class = task == "multi_class"
        self.focal_gamma = focal_gamma
        self.freeze_encoder = freeze_encoder
        self.norm = nn.LayerNorm(image_encoder.dim, eps=1e-6) if layer_norm else nn.Identity()
        self.classifier = nn.Linear(image_encoder.dim, len(self.labels))
        if init_std is not None:
            nn.init.normal_(self.classifier.weight, std=init_std)
        self.plain = class_weights is None and not focal_gamma
        # Balanced weights are those of the data that a checkpoint was trained on; any others are the config's.
        self._weights_are_set = class_weights != "balanced" or training_labels is not None
        self.class_weights: Tensor
        weights = self._make_weights(class_weights, training_labels)
        self.register_buffer("class_weights", weights, persistent=class_weights == "balanced")
        if freeze_encoder:
            image_encoder.requires_grad_(False).eval()

    def _make_weights(self, setting: Mapping[str, float] | str | None, training_labels: Tensor | None) -> Tensor:
        """The factor of each label, float32 [C], from the setting `class_weights` and training labels [N, C]."""
        if isinstance(setting, Mapping):
            if unknown := [name for name in setting if name not in self.labels]:
                raise ValueError(f"class_weights: no label {', '.join(unknown)} (labels: {', '.join(self.labels)})")
            if wrong := [f"{name}: {value}" for name, value in setting.items() if not value > 0]:
                raise ValueError(f"class_weights={{{', '.join(wrong)}}}: expected numbers above 0")
            return torch.tensor([float(setting.get(name, 1.0)) for name in self.labels])
        if setting is None or training_labels is None:
            return torch.ones(len(self.labels))
        used = training_labels[self.learns_from(training_labels)]
        positives, negatives = (used == 1).sum(dim=0).float(), (used == 0).sum(dim=0).float()
        needed = {"positive": positives} if self.multi_class else {"positive": positives, "negative": negatives}
        for what, counts in needed.items():
            if absent := [name for name, count in zip(self.labels, counts) if not count]:
                raise ValueError(f"class_weights=balanced: the training data have no {what} of {', '.join(absent)}")
        return positives.sum() / (len(self.labels) * positives) if self.multi_class else negatives / positives

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Weights of another run's data must not come along when a training starts from its checkpoint.
        if self._weights_are_set and "class_weights" not in self._non_persistent_buffers_set:
            state_dict[f"{prefix}class_weights"] = self.class_weights
        super()._load_from_state_dict(state_dict, prefix, *args)

    def learns_from(self, labels: Tensor) -> Tensor:
        """bool [B] for labels [B, C]: exactly one positive (multi_class), or any known label."""
        return has_one_class(labels) if self.multi_class else has_label(labels)

    def train(self, mode: bool = True) -> Any:
        """As `nn.Module.train`, except that a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.image_encoder.eval()
        return self

    def classify(self, features: Features) -> Tensor:
        """Features as `encode_images` returns them -> log-odds float32 [B, C]: in both tasks, their sigmoid is the
        probability of a label.
        """
        logits = self.classifier(self.norm(features.pooled)).float()
        if not self.multi_class:
            return logits
        # log p / (1 - p) of a softmax: a logit against the log-sum-exp of the others.
        others = logits[:, None].masked_fill(
            torch.eye(len(self.labels), dtype=torch.bool, device=logits.device), -torch.inf
        )
        return logits - others.logsumexp(dim=2)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`logits` float [B, C]."""
        # Without gradient through a frozen encoder its activations are not kept.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            pooled = encode_views(self.image_encoder, batch, self.num_views).pooled
        return {"logits": self.classifier(self.norm(pooled))}

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """`labels` float32 [B, C]."""
        return {"labels": batch.labels}

    def loss(self, embeddings: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> StepOutput:
        """Of `logits` float [b, C] and `labels` float32 [b, C]."""
        logits, labels = embeddings["logits"], targets["labels"]
        loss_of = multi_class_loss if self.multi_class else multi_label_loss
        loss = loss_of(logits, labels, self.class_weights, self.focal_gamma)
        return StepOutput(loss, {"loss": loss.detach()}, {})

    def chance(self, global_batch: int) -> float | None:
        """log C for C classes without weights; with several labels it depends on how frequent they are."""
        return math.log(len(self.labels)) if self.multi_class and self.plain else None
