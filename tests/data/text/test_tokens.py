"""Texts put together from a table of sentences: equal to live tokenising for every tokenizer, or not used."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import CharTokenizer

from cxrcl.data import manifest
from cxrcl.data.text import tokens
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.data.text.reports import ReportSampler
from cxrcl.data.text.texts import Texts
from cxrcl.data.text.tokens import TokenTable, token_table, tokenize
from cxrcl.models.tokenizer import PackedTokenizer, clip_bpe, learn_wordpiece
from cxrcl.types import Tokenizer, Tokens

WORDS = ["the", "heart", "is", "enlarged", "no", "pneumothorax", "small", "left-sided", "pleural", "effusion"]
WORDS += ["stable", "2.5", "cm", "nodule", "(new)", "isn't"]
ODD = ["Él tiene derrame pleural.", "Opacidad pequeña, é", "X-ray: 50% [sic] & more", "a  b", "___", "A"]
ODD += [
    "Naïve Ã© mojibake â€™ here",
    "中文 lungs",
    "<s> or </s> or [SEP] told",
    " padded ",
    "tab\there",
    "ﬁne",
    "n\u0303o",
]


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 8))).capitalize() + draw.choice([".", ".", "", "!"])


DRAW = random.Random(0)
SENTENCES = [*(sentence(DRAW) for _ in range(200)), " ".join(WORDS * 3), *ODD]
TEXTS = [tuple(DRAW.choices(SENTENCES, k=k % 7)) for k in range(150)] + [tuple(DRAW.choices(SENTENCES, k=40))]


def byte_level() -> str:
    """A byte-level BPE as RoBERTa's: a space belongs to the word after it, so a first word has other pieces."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, show_progress=False, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return tokenizer.to_str()


def unigram() -> str:
    """A sentencepiece model as T5's, with an end and no beginning."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer.to_str()


def letters(texts: Sequence[str]) -> Tokens:
    """No special piece; every letter and space is a word."""
    longest = max(map(len, texts))
    ids = [[ord(c) for c in t] + [0] * (longest - len(t)) for t in texts]
    mask = [[int(i > 0) for i in row] for row in ids]
    return Tokens(ids, mask, [[k if m else -1 for k, m in enumerate(row)] for row in mask])


MAKE: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece": lambda: PackedTokenizer(learn_wordpiece(SENTENCES, 300), 40),
    "wordpiece, uncut": lambda: PackedTokenizer(learn_wordpiece(SENTENCES, 300), 10**6, pad_id=4),
    "byte-level": lambda: PackedTokenizer(byte_level(), 60, pad_id=2),
    "unigram": lambda: PackedTokenizer(unigram(), 60),
    "clip": lambda: PackedTokenizer(clip_bpe(), 40, clean="lower"),
    "siglip": lambda: PackedTokenizer(unigram(), 60, clean="canonicalize"),
    "byte-level, cleaned": lambda: PackedTokenizer(byte_level(), 60, pad_id=2, clean="whitespace"),
    "characters": CharTokenizer,
    "letters": lambda: letters,
}
BY_PLACE = {"byte-level", "byte-level, cleaned", "characters", "letters"}


def equal(table: TokenTable, tokenizer: Tokenizer, texts: Sequence[Sequence[str]]) -> bool:
    pairs = list(zip(table(texts), tokenize(texts, tokenizer), strict=True))
    return all(a.dtype == b.dtype == np.int64 and np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(params=MAKE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_texts_of_any_tokenizer_are_equal_to_live_ones(name: str) -> None:
    """Ids, mask and words; many sentences or none, cut or not, one at a time or as a batch."""
    tokenizer = MAKE[name]()
    table = TokenTable(SENTENCES, tokenizer)
    assert equal(table, tokenizer, TEXTS)
    assert all(equal(table, tokenizer, [text]) for text in TEXTS[:30])
    draw = random.Random(1)
    shuffled = [tuple(draw.sample(text, len(text))) for text in TEXTS]
    assert equal(table, tokenizer, shuffled)


def test_texts_of_known_sentences_are_not_tokenised(name: str) -> None:
    """All but the last sentences are ordinary ones."""
    tokenizer = MAKE[name]()
    table = TokenTable(SENTENCES[:200], tokenizer)
    texts = [text for text in TEXTS if all(s in SENTENCES[:200] for s in text)]
    expected = tokenize(texts, tokenizer)
    table.tokenizer = None  # type: ignore[assignment]
    assert len(table) > 170 and len(texts) > 60
    assert all(np.array_equal(a, b) for a, b in zip(table(texts), expected, strict=True))


def test_pieces_are_kept_twice_only_where_they_depend_on_the_place(name: str) -> None:
    short = [s for s in SENTENCES[:200] if len(s) < 25]
    table = TokenTable(short, MAKE[name]())
    assert (table._to_following > 0) == (name in BY_PLACE)


def test_sentences_that_are_cut_or_odd_are_tokenised_and_stay_in_their_places() -> None:
    tokenizer = MAKE["clip"]()
    table = TokenTable(SENTENCES, tokenizer)
    known = [s for s in SENTENCES if s in table._place]
    assert {"Él tiene derrame pleural.", "Opacidad pequeña, é", "A"} <= set(known)
    assert not {" ".join(WORDS * 3), "Naïve Ã© mojibake â€™ here", "中文 lungs", " padded ", "ﬁne"} & set(known)
    texts = [(known[0],), (ODD[6], known[1]), (known[2], known[3]), (ODD[7],), ("Not in the table.",), ()]
    assert equal(table, tokenizer, texts)


def test_numbers_of_pieces_beyond_16_bits() -> None:
    def large(texts: Sequence[str]) -> Tokens:
        ids, mask, words = CharTokenizer()(texts)
        return Tokens([[i + 70_000 * (i > 2) for i in row] for row in ids], mask, words)

    assert equal(TokenTable(SENTENCES, large), large, TEXTS[:40])


def test_the_table_stays_small() -> None:
    """Four bytes a piece and twelve a sentence."""
    table = TokenTable(SENTENCES, MAKE["wordpiece, uncut"]())
    pieces = int(tokenize([(s,) for s in table._place], table.tokenizer).mask.sum()) - 2 * len(table)
    arrays = (table._ids, table._words, table._num_words, table._offsets)
    assert sum(array.nbytes for array in arrays) <= 4 * pieces + 12 * len(table) + 8


# ----------------------------------------------------------------------------------- whether it can be relied on


@pytest.fixture
def texts(put: Callable[..., Path]) -> Texts:
    draw = random.Random(2)
    rows = [
        {
            **{"image": f"{k}.png", "patient": k, "study": k, "view": "PA", "split": "train"},
            "findings": " ".join(sentence(draw) for _ in range(k % 5 + 1)),
            "text_augment": sentence(draw),
        }
        for k in range(40)
    ]
    return Texts(manifest.load(put(rows)), "auto", ReportSampler(("findings",)), PromptSampler("chexpert.json"))


def test_a_table_is_made_of_all_texts(texts: Texts, name: str) -> None:
    table = token_table(texts, MAKE[name]())
    assert table is not None and len(table) > 0.8 * len(texts.sentences())


def reversed_pieces(texts: Sequence[str]) -> Tokens:
    """The pieces of a text are not those of its sentences in order."""
    return CharTokenizer()([text[::-1] for text in texts])


def one_more_word(texts: Sequence[str]) -> Tokens:
    """Only the words of a long text differ."""
    ids, mask, words = CharTokenizer()(texts)
    for text, row in zip(texts, words, strict=True):
        if len(text) > 300:
            row[len(text)] += 1
    return Tokens(ids, mask, words)


def padded_to_40(texts: Sequence[str]) -> Tokens:
    filler = [*texts, "x" * 2000]
    return Tokens(*(part[:-1] for part in CharTokenizer()(filler)))


def without_words(texts: Sequence[str]) -> Tokens:
    ids, mask, words = CharTokenizer()(texts)
    return Tokens(ids, mask, [[-1] * len(row) for row in words])


@pytest.mark.parametrize("tokenizer", [reversed_pieces, one_more_word, padded_to_40, without_words])
def test_a_tokenizer_that_is_otherwise_is_not_relied_on(texts: Texts, tokenizer: Tokenizer) -> None:
    assert token_table(texts, tokenizer) is None


def test_the_second_text_is_looked_at_too(texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(tokens, "tokenize", lambda part, tokenizer: seen.extend(part) or tokenize(part, tokenizer))
    assert token_table(texts, CharTokenizer()) is not None
    rewritten = {s for report in texts._report for s in report.rewritten}
    # Probes and the table's sentences are texts of one sentence or of the anchor and one.
    assert any(len(text) == 1 and text[0] in rewritten for text in seen[-200:])
    assert max(map(len, seen[-16:])) > 16
