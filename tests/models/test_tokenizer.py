"""Tokenisers."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import pytest
from helpers import ROOT

from cxrcl.models.tokenizer import PackedTokenizer, learn_wordpiece, vocabulary_size

WORDS = ["heart", "lung", "enlarged", "normal", "effusion", "edema", "small", "left", "right"]
WORDS += ["pleural", "opacity", "no", "there", "is", "of", "the", "in", "base"]
TEXTS = [" ".join(WORDS[(k * step) % len(WORDS)] for k in range(1, 7)) + "." for step in range(1, 60)]


@pytest.fixture(scope="module")
def definition() -> str:
    return learn_wordpiece(TEXTS, 120)


def test_pieces_are_framed_truncated_and_padded_to_the_longest(definition: str) -> None:
    tokenizer = PackedTokenizer(definition, max_length=5)
    vocabulary = json.loads(definition)["model"]["vocab"]
    ids, mask, words = tokenizer(["Heart", "the heart is enlarged in the left lung base"])
    heart = vocabulary["heart"]
    assert ids[0] == [vocabulary["[CLS]"], heart, vocabulary["[SEP]"], 0, 0]
    assert mask == [[1, 1, 1, 0, 0], [1] * 5]
    assert words[0] == [-1, 0, -1, -1, -1]
    assert len(ids[1]) == 5 and ids[1][0] == vocabulary["[CLS]"] and ids[1][-1] == vocabulary["[SEP]"]
    assert ids[1][2] == heart


def test_the_word_index_joins_the_pieces_of_a_word(definition: str) -> None:
    tokenizer = PackedTokenizer(definition, max_length=30)
    pieces = tokenizer.fast.encode("heart heartlung left").tokens
    words = tokenizer(["heart heartlung left"]).words[0]
    assert len(pieces) > 5 and words[0] == words[-1] == -1
    for piece, word, before in zip(pieces[1:-1], words[1:-1], words[:-2], strict=True):
        assert word == (max(before, 0) if piece.startswith("##") or before == -1 else before + 1)
    assert words[-2] == 2


def test_another_padding_id_is_used(definition: str) -> None:
    assert PackedTokenizer(definition, 10, pad_id=4)(["heart", "the heart"]).ids[0][-1] == 4


def test_no_text_and_empty_texts_are_fine(definition: str) -> None:
    tokenizer = PackedTokenizer(definition, 10)
    assert tokenizer([]) == ([], [], [])
    assert tokenizer([""]).mask == [[1, 1]]


def test_it_pickles_with_and_without_use(definition: str) -> None:
    tokenizer = PackedTokenizer(definition, 12)
    before = pickle.loads(pickle.dumps(tokenizer))(TEXTS)
    assert tokenizer(TEXTS) == before == pickle.loads(pickle.dumps(tokenizer))(TEXTS)
    assert len(tokenizer) == vocabulary_size(definition)


def test_the_vocabulary_respects_its_size_and_covers_frequent_words(definition: str) -> None:
    assert vocabulary_size(learn_wordpiece(TEXTS, 60)) == 60
    vocabulary = json.loads(definition)["model"]["vocab"]
    assert set(WORDS) <= set(vocabulary) and [vocabulary[p] for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [
        0,
        1,
        2,
        3,
    ]
    assert [token["content"] for token in json.loads(definition)["added_tokens"]] == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
    ]


@pytest.mark.parametrize("size", [60, 120, 2000])
def test_learning_twice_gives_the_same(size: int) -> None:
    assert learn_wordpiece(TEXTS, size) == learn_wordpiece(list(reversed(TEXTS)) + TEXTS[:5], size)


def test_learning_in_another_process_gives_the_same(definition: str) -> None:
    """A resumed run learns its vocabulary again: another numbering of the pieces would ruin it."""
    code = (
        "import sys, json; from cxrcl.models.tokenizer import learn_wordpiece; "
        "sys.stdout.write(learn_wordpiece(json.load(sys.stdin), 120))"
    )
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(TEXTS),
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == definition
