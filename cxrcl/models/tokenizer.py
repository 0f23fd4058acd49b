"""Tokenisers that travel inside a checkpoint, and a WordPiece vocabulary learnt from the training text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cxrcl.types import Tokens


class PackedTokenizer:
    """A fast (Rust) tokeniser as one JSON string: picklable, embeddable, the same in every process.

    Args:
        definition: the content of a `tokenizer.json`.
        max_length: texts are cut to this many pieces, special tokens included.
        pad_id: id of the padding piece.
    """

    def __init__(self, definition: str, max_length: int, pad_id: int = 0) -> None:
        self.definition = definition
        self.max_length = max_length
        self.pad_id = pad_id
        self._fast: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fast": None}

    @property
    def fast(self) -> Any:
        if self._fast is None:
            from tokenizers import Tokenizer

            self._fast = Tokenizer.from_str(self.definition)
            self._fast.enable_truncation(self.max_length)
            self._fast.no_padding()
        return self._fast

    def __len__(self) -> int:
        return int(self.fast.get_vocab_size(with_added_tokens=True))

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Texts -> ids, mask and word index of each piece, padded to the longest."""
        found = self.fast.encode_batch(list(texts))
        longest = max((len(e.ids) for e in found), default=0)
        tokens = Tokens([], [], [])
        for encoding in found:
            missing = longest - len(encoding.ids)
            words = [-1 if word is None else word for word in encoding.word_ids]
            tokens.ids.append(encoding.ids + [self.pad_id] * missing)
            tokens.mask.append([1] * len(encoding.ids) + [0] * missing)
            tokens.words.append(words + [-1] * missing)
        return tokens


def learn_wordpiece(texts: Iterable[str], vocabulary_size: int) -> str:
    """Learn an uncased WordPiece vocabulary; returns the content of a `tokenizer.json`.

    Deterministic: texts are fed as a sorted set, and letters are numbered in their order. Every text is framed by
    [CLS] and [SEP].
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    corpus = sorted(set(texts))
    # The trainer numbers the letters inside of words in the order of a hash map, another one at each call, and breaks
    # ties by these numbers: they are fixed here by naming the letters first.
    words = {
        word
        for text in corpus
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    }
    inner = sorted({"##" + letter for word in words for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size, min_frequency=2, special_tokens=[*special, *inner], show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer.to_str()


def from_folder(name: str, local_files_only: bool) -> tuple[str, int]:
    """(tokenizer.json content, pad id) of a Hugging Face tokeniser by folder or hub id.

    Raises:
        ValueError: no tokeniser there, or none that has a fast form.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, use_fast=True, trust_remote_code=False, local_files_only=local_files_only
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"no tokenizer in {name}: {str(error).splitlines()[0]}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"the tokenizer of {name} has no fast form: add a tokenizer.json to the folder")
    return backend.to_str(), int(tokenizer.pad_token_id or 0)


def describe_folder(folder: Path) -> list[str]:
    """What a Hugging Face folder lacks: config, weights, tokenizer, all at once."""
    lacking = []
    if not (folder / "config.json").is_file():
        lacking.append("config.json")
    weights = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
    present = [folder / name for name in weights if (folder / name).is_file()]
    if not present:
        lacking.append("weights (model.safetensors or pytorch_model.bin)")
    lacking += [
        f"{file.name} is a git-lfs pointer: run `git lfs pull` in the folder"
        for file in present
        if file.open("rb").read(24).startswith(b"version https://git-lfs")
    ]
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        lacking.append("tokenizer (tokenizer.json or vocab.txt)")
    return lacking


def vocabulary_size(definition: str) -> int:
    """Number of pieces that a tokenizer.json defines."""
    content = json.loads(definition)
    return max(len(content["model"]["vocab"]), 1 + max((t["id"] for t in content["added_tokens"]), default=0))
