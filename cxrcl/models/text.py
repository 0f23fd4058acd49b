"""Text encoders: any BERT-like Hugging Face model, or a small one built from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from cxrcl.models import folders, hf, layers
from cxrcl.models import tokenizer as tok
from cxrcl.models.base import TextEncoder
from cxrcl.types import Corpus, Count, Features, Natural, Share

Pooling = Literal["cls", "eos", "mean"]
Attention = Literal["sdpa", "eager"]
LayerMix = Literal["sum", "mean"]


def pool(hidden: Tensor, mask: Tensor, how: Pooling) -> Tensor:
    """One vector for each text.

    Args:
        hidden: float [B, L, D], states of the tokens.
        mask: int64 [B, L], 1 on tokens, 0 on padding.
        how: `cls` takes the first token, `eos` the last one that the mask admits, `mean` averages the admitted ones.

    Returns:
        float [B, D].
    """
    if how == "cls":
        return hidden[:, 0]
    if how == "eos":
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), mask.sum(dim=1) - 1]
    weights = mask.to(hidden.dtype)[..., None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


class BertText(TextEncoder):
    """A Hugging Face encoder described entirely by values, without weights: what a checkpoint rebuilds.

    Args:
        config: the model's `config.json` as a mapping.
        definition: the content of its `tokenizer.json`.
        pad_id: id of the padding token.
        pooling: see `pool`.
        max_length: texts are cut to this many tokens.
        attention: PyTorch's fused kernel, or plain matrix products (twice as fast for small models on a CPU in bf16).
        last_layers: local features are mixed from the output of this many last layers, and pooled from the mix.
            GLoRIA (Huang et al. 2021) takes the sum of four.
        layer_mix: how: their sum or their mean.
        checkpointing: recompute activations in the backward pass: less memory, more time.
    """

    def __init__(
        self,
        config: dict[str, Any],
        definition: str,
        pad_id: Natural = 0,
        pooling: Pooling = "cls",
        max_length: Count = 128,
        attention: Attention = "sdpa",
        last_layers: Count = 1,
        layer_mix: LayerMix = "sum",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        kind = hf.config_of(config)
        self.pooling: Pooling = pooling
        self.attention: Attention = attention
        self.last_layers, self.layer_mix, self.checkpointing = last_layers, layer_mix, checkpointing
        kind._attn_implementation = attention
        self.tokenizer: tok.PackedTokenizer = tok.PackedTokenizer(definition, max_length, pad_id)
        tok.check_vocabulary(definition, kind.vocab_size)
        if not 0 <= pad_id < kind.vocab_size:
            raise ValueError(f"pad_id={pad_id}: the model has {kind.vocab_size} tokens")
        if not 1 <= last_layers <= kind.num_hidden_layers:
            raise ValueError(f"last_layers={last_layers}: the model has {kind.num_hidden_layers} layers")
        self.model = hf.make(kind, add_pooling_layer=False)
        positions = num_positions(self.model)
        if positions is not None and max_length > positions:
            raise ValueError(f"max_length={max_length}: the model has {positions} positions, set at most that many")
        if checkpointing:
            hf.recompute(self.model)
        self.dim = self.local_dim = int(kind.hidden_size)

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        """Ids and mask, int64 [B, L] each -> Features([B, dim], [B, L, dim])."""
        several = self.last_layers > 1
        output = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=several)
        hidden = output.last_hidden_state
        if several:  # the last one as the model gives it: some models normalise it at the end
            layers = torch.stack([*output.hidden_states[-self.last_layers : -1], hidden])
            hidden = layers.sum(dim=0) if self.layer_mix == "sum" else layers.mean(dim=0)
        return Features(pool(hidden, mask, self.pooling), hidden)

    def layer_names(self) -> list[list[str]]:
        return layers.below("model", layers.of_stack(self.model))

    def node(self) -> dict[str, Any]:
        return {
            "_target_": f"{__name__}.BertText",
            "config": hf.plain(self.model.config),
            "definition": self.tokenizer.definition,
            "pad_id": self.tokenizer.pad_id,
            "pooling": self.pooling,
            "max_length": self.tokenizer.max_length,
            "attention": self.attention,
            "last_layers": self.last_layers,
            "layer_mix": self.layer_mix,
            "checkpointing": self.checkpointing,
        }


def num_positions(model: Any) -> int | None:
    """How many tokens a Hugging Face text model has positions for; None when there is no limit."""
    positions = getattr(model.config, "max_position_embeddings", None)
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if positions is not None and padding is not None:
        positions -= padding + 1  # RoBERTa counts positions from its padding id on
    return positions


class HuggingFaceText(BertText):
    """A pre-trained BERT-like model by folder or hub id; remote code is never run.

    Such as Bio_ClinicalBERT, PubMedBERT, RoBERTa, the text encoder of CLIP (pooling=eos, max_length=77), or
    BiomedVLP-CXR-BERT without its heads.

    Args:
        name: a folder with config.json, weights and tokenizer (then nothing touches the network), or a hub id.
        pooling: see `pool`.
        max_length: texts are cut to this many tokens.
        last_layers, layer_mix, checkpointing: see `BertText`.
    """

    @classmethod
    def lacking(cls, settings: Mapping[str, Any]) -> list[str]:
        return folders.lacking(settings.get("name"), "hf text", settings)

    def __init__(
        self,
        name: str,
        pooling: Pooling = "cls",
        max_length: Count = 128,
        last_layers: Count = 1,
        layer_mix: LayerMix = "sum",
        checkpointing: bool = False,
    ) -> None:
        folder = folders.locate(name, "hf text")
        values, adapted = hf.read_config(folder, "text")
        try:
            kind = hf.config_of(values)
            definition, pad_id = tok.from_folder(folder, adapted)
            with torch.device("meta"):  # the model is made a second time, from the file: here only its shape counts
                attention: Attention = "sdpa" if hf.has_fused_attention(kind) else "eager"
                model = (hf.plain(kind), definition, pad_id, pooling, max_length, attention)
                super().__init__(*model, last_layers, layer_mix, checkpointing)
        except ValueError as error:
            raise ValueError(f"name={name}: {error}") from error
        self.model, self.load_report = hf.load(folder, name, self.model.config, add_pooling_layer=False)
        if checkpointing:
            hf.recompute(self.model)


class TinyText(BertText):
    """A small BERT from scratch with a WordPiece vocabulary learnt from the training text.

    Args:
        corpus: the training texts (from the application).
        width, depth, heads: of the transformer; the feed-forward layer is four times as wide.
        vocabulary_size: at most this many tokens.
        max_length: texts are cut to this many tokens.
        pooling: see `pool`.
        dropout: on hidden states and attention.
    """

    def __init__(
        self,
        corpus: Corpus,
        width: Count = 128,
        depth: Count = 2,
        heads: Count = 4,
        vocabulary_size: Count = 2000,
        max_length: Count = 96,
        pooling: Pooling = "mean",
        dropout: Share = 0.0,
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
