"""Loading the weights of a file into a model, strictly, with a report in one line of how they fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

# Parts that published models carry beside the encoder, for the task that they were trained on. Nothing else is left out
# of a file in silence.
KNOWN_HEADS = (
    "cls",  # BERT: masked words and next sentence
    "cls_projection_head",  # BiomedVLP-CXR-BERT
    "lm_head",  # RoBERTa: masked words
    "generator_lm_head",
    "generator_predictions",  # ELECTRA
    "discriminator_predictions",
    "classifier",
    "cls_classifier",  # DeiT
    "distillation_classifier",
    "pre_classifier",
    "qa_outputs",
    "vocab_transform",  # DistilBERT: masked words
    "vocab_layer_norm",
    "vocab_projector",
    "predictions",  # ALBERT
    "sop_classifier",
    "lm_predictions",  # DeBERTa
    "mask_predictions",
    "head",
    "fc",
    "pooler",
)
# Constants that older versions of the libraries stored; they are computed now.
KNOWN_CONSTANTS = ("position_ids", "token_type_ids", "relative_position_index", "attn_mask")
_HEAD = re.compile(rf"(\w+\.)?({'|'.join(KNOWN_HEADS)})\.")
_CONSTANT = re.compile(rf"(.*\.)?({'|'.join(KNOWN_CONSTANTS)})")


@dataclass(frozen=True)
class LoadReport:
    """How the tensors of a file and those of a model agree.

    Attributes:
        matched: number of tensors with the same name and shape.
        missing: names that only the model has.
        unexpected: names that only the file has.
        mismatched: names that both have, with both shapes.
        ignored: number of tensors that only the file has, and that may be left out.
    """

    matched: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    ignored: int = 0

    @property
    def fits(self) -> bool:
        """Every tensor of the model is in the file, and nothing unknown is left over."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = [f"{self.matched} tensors matched"]
        for name in ("missing", "unexpected", "mismatched"):
            keys = getattr(self, name)
            if keys:
                parts.append(f"{len(keys)} {name} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})")
        if self.ignored:
            parts.append(f"{self.ignored} of known heads ignored")
        return ", ".join(parts)


def compare(
    model: Mapping[str, Tensor], weights: Mapping[str, Tensor], may_ignore: Callable[[str], bool] = lambda key: False
) -> tuple[dict[str, Tensor], LoadReport]:
    """The weights that have a name and shape of the model's, and the report.

    Args:
        model: the model's state dict, tensors of any shape.
        weights: those of the file.
        may_ignore: whether a tensor of this name may be left over.
    """
    good = {key: value for key, value in weights.items() if key in model and model[key].shape == value.shape}
    excess = sorted(set(weights) - set(model))
    report = LoadReport(
        matched=len(good),
        missing=tuple(sorted(set(model) - set(weights))),
        unexpected=tuple(key for key in excess if not may_ignore(key)),
        mismatched=tuple(
            f"{key} {list(weights[key].shape)} for {list(model[key].shape)}"
            for key in sorted(set(model) & set(weights) - set(good))
        ),
        ignored=sum(map(may_ignore, excess)),
    )
    return good, report


def is_known_head(key: str, more_prefixes: Iterable[str] = ()) -> bool:
    """Whether a tensor of this name belongs to a head, or is a constant, that an encoder may leave out."""
    return bool(_HEAD.match(key) or _CONSTANT.fullmatch(key)) or key.startswith(tuple(more_prefixes))


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> LoadReport:
    """Copy weights into a module of the same tensors; heads that are known by name may be left over.

    Args:
        module: what they are copied into.
        weights: tensors by the module's own names.
        source: named in messages.

    Raises:
        ValueError: a tensor of the module is missing or of another shape, or an unknown one is left over.
    """
    good, report = compare(module.state_dict(), weights, is_known_head)
    demand_all(report, source)
    module.load_state_dict(good)
    return report


def demand_all(report: LoadReport, source: str) -> LoadReport:
    """Return a report that fits.

    Raises:
        ValueError: it does not fit, with the counts and examples.
    """
    if not report.fits:
        raise ValueError(f"{source}: the weights do not fit the model: {report}")
    return report


def from_transformers(info: Mapping[str, Any], module: nn.Module, more_prefixes: Iterable[str] = ()) -> LoadReport:
    """The report of a load by transformers.

    Args:
        info: what `from_pretrained(..., output_loading_info=True)` returns beside the model.
        module: the model.
        more_prefixes: of tensors that may be left over beside known heads.
    """
    missing, excess = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    mismatched = tuple(f"{key} {list(there)} for {list(here)}" for key, there, here in sorted(info["mismatched_keys"]))
    heads = [key for key in excess if is_known_head(key, more_prefixes)]
    return LoadReport(
        matched=len(module.state_dict()) - len(missing) - len(mismatched),
        missing=tuple(missing),
        unexpected=tuple(key for key in excess if key not in heads),
        mismatched=mismatched,
        ignored=len(heads),
    )


def read(file: Path, use_ema: bool = False) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a PyTorch file; objects of other kinds are refused.

    Args:
        file: its path.
        use_ema: take the averaged weights of a training checkpoint of timm, where it has some.

    Raises:
        ValueError: the file cannot be read as plain tensors.
    """
    from timm.models import load_state_dict

    try:
        return dict(load_state_dict(str(file), use_ema=use_ema, device="cpu", weights_only=True))
    except Exception as error:  # the readers raise errors of many kinds, and advise weights_only=False
        raise ValueError(f"{file.name}: cannot be read as plain tensors ({type(error).__name__})") from error
