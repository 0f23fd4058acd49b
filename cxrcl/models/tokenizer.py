"""Tokenisers that travel inside a checkpoint, and a WordPiece vocabulary learnt from the training text."""

from __future__ import annotations

import functools
import html
import json
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from cxrcl.errors import first_line
from cxrcl.types import Tokens

Clean = Literal["none", "whitespace", "lower", "canonicalize"]
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def clean_text(text: str, how: Clean) -> str:
    """What open_clip does to a text before it is split into tokens (a tokenizer.json cannot say it).

    `whitespace` mends wrong encodings and HTML escapes and joins words by one space, `lower` also lowers the case,
    `canonicalize` also drops punctuation; `none` leaves the text as it is.
    """
    if how == "none":
        return text
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))  # twice: some captions were escaped twice
    if how == "canonicalize":
        text = text.replace("_", " ").translate(_WITHOUT_PUNCTUATION)
    text = " ".join(text.split())
    return text if how == "whitespace" else text.lower()


def _encodable(text: str) -> str:
    """The text, half characters (of a file read with a wrong encoding) replaced by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


class PackedTokenizer:
    """A fast (Rust) tokeniser as one JSON string: picklable, embeddable, the same in every process.

    Args:
        definition: the content of a `tokenizer.json`.
        max_length: texts are cut to this many tokens, special ones included.
        pad_id: id of the padding token.
        clean: see `clean_text`.

    Raises:
        ValueError: a max_length that leaves no room between the special tokens.
    """

    def __init__(self, definition: str, max_length: int, pad_id: int = 0, clean: Clean = "none") -> None:
        self.definition = definition
        self.max_length = max_length
        self.pad_id = pad_id
        self.clean: Clean = clean
        from tokenizers import Tokenizer

        least = 1 + Tokenizer.from_str(definition).num_special_tokens_to_add(False)
        if max_length < least:  # not cut at all otherwise
            raise ValueError(f"max_length={max_length}: with the tokens that frame a text, expected {least} or more")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "fast"}

    @functools.cached_property
    def fast(self) -> Any:
        from tokenizers import Tokenizer

        fast = Tokenizer.from_str(self.definition)
        fast.enable_truncation(self.max_length)
        fast.no_padding()
        return fast

    def __len__(self) -> int:
        return int(self.fast.get_vocab_size(with_added_tokens=True))

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Texts -> ids, mask and word number of each token, one row [L] a text, padded to the longest."""
        encodings = self.fast.encode_batch([_encodable(clean_text(text, self.clean)) for text in texts])
        longest = max((len(e.ids) for e in encodings), default=0)
        tokens = Tokens([], [], [])
        for encoding in encodings:
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


@functools.cache
def clip_bpe() -> str:
    """CLIP's byte-pair encoding as the content of a `tokenizer.json`; texts are to be cleaned by `lower`.

    The merges ship inside open_clip. Every text is framed by <start_of_text> and <end_of_text>.
    """
    from open_clip import SimpleTokenizer
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    original = SimpleTokenizer()
    merges = sorted(original.bpe_ranks, key=original.bpe_ranks.__getitem__)
    tokenizer = Tokenizer(
        models.BPE(original.encoder, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False)
    )
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    frame = ["<start_of_text>", "<end_of_text>"]
    tokenizer.add_special_tokens(frame)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{frame[0]} $A {frame[1]}", special_tokens=[(token, original.encoder[token]) for token in frame]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str()


def from_folder(folder: Path, kind: str | None = None) -> tuple[str, int]:
    """(tokenizer.json content, pad id) of the Hugging Face tokeniser in a folder.

    Args:
        kind: take the tokeniser of this model type, whatever the folder says (it may name code of its own).

    Raises:
        ValueError: no tokeniser there, or none that has a fast form.
    """
    from transformers import AutoTokenizer

    settings = {"use_fast": True, "trust_remote_code": False, "local_files_only": True}
    if kind is not None:
        settings["tokenizer_type"] = kind  # type: ignore[assignment]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **settings)
    except Exception as error:  # the parsers raise errors of many kinds where a file is damaged
        raise ValueError(f"no tokenizer in {folder}: {first_line(error)}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"the tokenizer of {folder} has no fast form: add a tokenizer.json to the folder")
    return backend.to_str(), int(tokenizer.pad_token_id or 0)


def vocabulary_size(definition: str) -> int:
    """One more than the highest id of a token that a tokenizer.json defines."""
    content = json.loads(definition)
    vocabulary = content["model"]["vocab"]  # a list of tokens, or a mapping that may leave ids out
    last = len(vocabulary) - 1 if isinstance(vocabulary, list) else max(vocabulary.values(), default=-1)
    return 1 + max(last, max((token["id"] for token in content["added_tokens"]), default=0))


def check_vocabulary(definition: str, rows: int) -> None:
    """Compare a tokenizer with the rows of a model's word embeddings.

    Published tables are filled up to round numbers, by 900 of 250,000 rows at most: 2 % (or 128) are admitted.

    Raises:
        ValueError: tokens without a row, or so many rows without a token that the two cannot belong together.
    """
    tokens = vocabulary_size(definition)
    if tokens > rows or rows - tokens > max(128, rows // 50):
        raise ValueError(f"the tokenizer has {tokens} tokens, the model {rows}: they do not belong together")
