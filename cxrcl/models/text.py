"""Text towers: any BERT-like Hugging Face model, or a small one built from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cxrcl.models import tokenizer as tok
from cxrcl.types import Corpus, Features, TextEncoder

Pooling = Literal["cls", "eos", "mean"]
Attention = Literal["sdpa", "eager"]


def pool(hidden: Tensor, mask: Tensor, how: Pooling) -> Tensor:
    """Hidden states [B, L, D] and mask [B, L] -> [B, D].

    `cls` takes the first piece, `eos` the last one that the mask admits, `mean` averages the admitted ones.
    """
    if how == "cls":
        return hidden[:, 0]
    if how == "eos":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
    weights = mask.to(hidden.dtype)[..., None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


class BertText(TextEncoder):
    """A Hugging Face encoder described entirely by values, without weights: what a checkpoint rebuilds.

    Args:
        config: the model's `config.json` as a mapping.
        definition: the content of its `tokenizer.json`.
        pad_id: id of the padding piece.
        pooling: see `pool`.
        max_length: texts are cut to this many pieces.
        attention: PyTorch's fused kernel, or plain matrix products (twice as fast for small models on a CPU in bf16).
    """

    def __init__(
        self,
        config: dict[str, Any],
        definition: str,
        pad_id: int = 0,
        pooling: Pooling = "cls",
        max_length: int = 128,
        attention: Attention = "sdpa",
    ) -> None:
        super().__init__()
        from transformers import AutoConfig

        kind = AutoConfig.for_model(config["model_type"], **{k: v for k, v in config.items() if k != "model_type"})
        self.pooling: Pooling = pooling
        self.attention: Attention = attention
        kind._attn_implementation = attention
        self.tokenizer: tok.PackedTokenizer = tok.PackedTokenizer(definition, max_length, pad_id)
        size = tok.vocabulary_size(definition)
        if size > kind.vocab_size:
            raise ValueError(
                f"the tokenizer has {size} pieces, the model {kind.vocab_size}: they do not belong together"
            )
        self.model = _without_pooler(kind)
        positions = getattr(kind, "max_position_embeddings", None)
        table = getattr(getattr(self.model, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        if positions is not None and padding is not None:
            positions -= padding + 1  # RoBERTa counts positions from its padding id on
        if positions is not None and max_length > positions:
            raise ValueError(f"max_length={max_length}: the model has {positions} positions")
        self.dim = self.local_dim = int(kind.hidden_size)

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        """int64 [B, L] each -> Features([B, dim], [B, L, dim])."""
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return Features(pool(hidden, mask, self.pooling), hidden)

    def node(self) -> dict[str, Any]:
        return {
            "_target_": f"{__name__}.BertText",
            "config": _plain(self.model.config),
            "definition": self.tokenizer.definition,
            "pad_id": self.tokenizer.pad_id,
            "pooling": self.pooling,
            "max_length": self.tokenizer.max_length,
            "attention": self.attention,
        }


def _without_pooler(config: Any) -> Any:
    """A model of this architecture; BERT's pooler is left out (it would never get a gradient)."""
    from transformers import AutoModel

    try:
        return AutoModel.from_config(config, add_pooling_layer=False, trust_remote_code=False)
    except TypeError:
        return AutoModel.from_config(config, trust_remote_code=False)


def _plain(config: Any) -> dict[str, Any]:
    """config.json as plain containers, without what only describes the file it came from."""
    left_out = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype")
    return {"model_type": config.model_type} | {k: v for k, v in config.to_diff_dict().items() if k not in left_out}


class HuggingFaceText(BertText):
    """A pre-trained BERT-like model by folder or hub id. Remote code is never run.

    Args:
        name: a folder with config.json, weights and tokenizer (then nothing touches the network), or a hub id.
        pooling: see `pool`.
        max_length: texts are cut to this many pieces.
    """

    def __init__(self, name: str, pooling: Pooling = "cls", max_length: int = 128) -> None:
        from transformers import AutoConfig, AutoModel

        folder = Path(name).expanduser()
        local = folder.is_dir()
        if not local and (folder.is_absolute() or name.startswith((".", "~"))):
            raise ValueError(f"name={name}: no such folder")
        if local and (lacking := tok.describe_folder(folder)):
            raise ValueError(f"name={name}: the folder lacks {'; '.join(lacking)}")
        source = str(folder) if local else name
        try:
            kind = AutoConfig.from_pretrained(source, local_files_only=local, trust_remote_code=False)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"name={name}: {reason} (with no network, give a local folder instead)") from error
        definition, pad_id = tok.from_folder(source, local)
        super().__init__(_plain(kind), definition, pad_id, pooling, max_length)
        settings = {"local_files_only": local, "trust_remote_code": False, "output_loading_info": True}
        try:
            self.model, report = AutoModel.from_pretrained(source, config=kind, add_pooling_layer=False, **settings)
        except TypeError:
            self.model, report = AutoModel.from_pretrained(source, config=kind, **settings)
        if report["missing_keys"]:
            missing = sorted(report["missing_keys"])
            raise ValueError(
                f"name={name}: the weights lack {len(missing)} of the model's tensors, such as {missing[0]}"
            )


class TinyText(BertText):
    """A small BERT from scratch with a WordPiece vocabulary learnt from the training text.

    Args:
        corpus: the training texts (given by the application).
        width, depth, heads: of the transformer; the feed-forward layer is four times as wide.
        vocabulary_size: at most this many word pieces.
        max_length: texts are cut to this many pieces.
        pooling: see `pool`.
        dropout: on hidden states and attention.
    """

    def __init__(
        self,
        corpus: Corpus,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        vocabulary_size: int = 2000,
        max_length: int = 96,
        pooling: Pooling = "mean",
        dropout: float = 0.0,
    ) -> None:
        if width % heads:
            raise ValueError(f"width={width} is not divisible by heads={heads}")
        definition = corpus.learn(lambda texts: tok.learn_wordpiece(texts, vocabulary_size))
        config = {
            "model_type": "bert",
            "vocab_size": tok.vocabulary_size(definition),
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "max_position_embeddings": max_length,
            "hidden_dropout_prob": dropout,
            "attention_probs_dropout_prob": dropout,
        }
        super().__init__(config, definition, 0, pooling, max_length, "eager")
