"""Tokenisers."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import builders
import open_clip
import pytest
from builders import TEXTS, WORDS
from helpers import ROOT

from cxrcl.models.tokenizer import Clean, PackedTokenizer, clip_bpe, from_folder, learn_wordpiece, vocabulary_size


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


@pytest.mark.parametrize("length", [-1, 0, 2])
def test_a_length_without_room_for_a_piece_is_an_error(definition: str, length: int) -> None:
    with pytest.raises(ValueError, match=f"max_length={length}: .* expected 3 or more"):
        PackedTokenizer(definition, length)
    assert len(PackedTokenizer(definition, 3)(["the heart is enlarged"]).ids[0]) == 3


def test_half_characters_are_replaced(definition: str) -> None:
    tokenizer = PackedTokenizer(definition, 10)
    assert tokenizer(["heart \ud800"]).ids == tokenizer(["heart ?"]).ids


def test_the_size_of_a_vocabulary_counts_numbers_that_are_left_out() -> None:
    content = {"model": {"vocab": {"[UNK]": 0, "heart": 7}}, "added_tokens": []}
    assert vocabulary_size(json.dumps(content)) == 8
    content["model"]["vocab"] = [["[UNK]", 0.0], ["heart", -1.0]]  # type: ignore[assignment]
    assert vocabulary_size(json.dumps(content)) == 2


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
            timeout=300,
            check=True,
        )
        assert done.stdout == definition


# ------------------------------------------------------------------------------------------- CLIP's own pieces

ODD = [
    "",
    "The heart's size is 12.5cm; no PNEUMOTHORAX!!",
    "don't you'll we've I'm he'd they're",
    "naïve Ångström — “quoted” … µm ×3 ½ ² ① ﬁ",
    "中文 テスト 🫁🫀 lungs",
    "a &amp;amp; b &lt;p&gt; Ã© mojibake â€™",
    "x<end_of_text>y <START_OF_TEXT>",
    "\u00a0 nbsp\ttab\nline \x00 \x7f \u200b",
    "___ --- ... !?!? (a)(b) [1] {2}",
    "e\u0301 İstanbul ẞ",
    "lung " * 200,
    "supercalifragilistic" * 30,
]
# Letters and signs that all versions of Unicode class alike; what is letter and what is not depends on the version.
LETTERS = [*range(33, 127), *range(0xA1, 0x180), *range(0x391, 0x3A2), *range(0x3B1, 0x3CA), *range(0x410, 0x450)]
LETTERS += [*range(0x2010, 0x2028), *range(0x4E00, 0x4E20), *range(0x1F600, 0x1F620), *[32] * 60]


def test_clips_pieces_are_those_of_open_clip() -> None:
    draw = random.Random(0)
    texts = ODD + ["".join(chr(draw.choice(LETTERS)) for _ in range(draw.randint(1, 90))) for _ in range(1000)]
    for length in (77, 12):
        theirs = open_clip.tokenize(texts, context_length=length).tolist()
        found = PackedTokenizer(clip_bpe(), length, clean="lower")(texts)
        for text, ids, mask, expected in zip(texts, found.ids, found.mask, theirs, strict=True):
            assert ids + [0] * (length - len(ids)) == expected, text
            assert ids[sum(mask) - 1] == max(ids) == 49407  # the end is kept


def test_clips_words_are_numbered() -> None:
    words = PackedTokenizer(clip_bpe(), 77, clean="lower")(["Pneumothoraces aren't seen."]).words[0]
    assert words[0] == words[-1] == -1 and words[1] == words[2] == 0
    assert sorted(set(words)) == [-1, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("how", ["lower", "whitespace", "canonicalize"])
def test_texts_are_cleaned_as_open_clip_does(how: Clean) -> None:
    from open_clip.tokenizer import get_clean_fn

    from cxrcl.models.tokenizer import clean_text

    draw = random.Random(1)
    texts = ODD + ["".join(chr(draw.choice(LETTERS)) for _ in range(40)) for _ in range(200)]
    assert [clean_text(text, how) for text in texts] == [get_clean_fn(how)(text) for text in texts]
    assert [clean_text(text, "none") for text in texts] == texts


def test_cleaning_belongs_to_the_tokenizer(definition: str) -> None:
    plain, cleaned = (PackedTokenizer(definition, 20, clean=how) for how in ("none", "canonicalize"))
    assert cleaned(["heart, lung!"]) == plain(["heart lung"]) != plain(["heart, lung!"])
    assert pickle.loads(pickle.dumps(cleaned))(["heart, lung!"]) == cleaned(["heart, lung!"])


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tokenizer in ") as caught:
        from_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_file_is_enough(tmp_path: Path) -> None:
    """As in the folder of Bio_ClinicalBERT: config.json, weights and vocab.txt."""
    vocabulary = json.loads(builders.DEFINITION)["model"]["vocab"]
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    found, pad_id = from_folder(tmp_path)
    assert pad_id == 0
    assert PackedTokenizer(found, 20)(TEXTS) == PackedTokenizer(builders.DEFINITION, 20)(TEXTS)
