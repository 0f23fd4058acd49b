"""What the text encoder reads: sentences and tokens."""

from __future__ import annotations

import pytest

from cxrcl.evaluation.choices import texts
from cxrcl.evaluation.choices.choice import Stage, changes, state
from cxrcl.types import Tokens

# [CLS] a b [SEP], [CLS] c [SEP] and padding of 9
TWO = Tokens([[1, 5, 6, 2], [1, 7, 2, 9]], [[1, 1, 1, 1], [1, 1, 1, 0]], [[-1, 0, 1, -1], [-1, 0, -1, -1]])


@pytest.mark.parametrize(
    ("change", "ids"),
    [
        (texts.without_last_special, [[1, 5, 6], [1, 7, 9]]),
        (texts.without_first_special, [[5, 6, 2], [7, 2, 9]]),
        (texts.without_special, [[5, 6], [7, 9]]),
        (texts.cut(3), [[1, 5, 2], [1, 7, 2]]),  # [SEP] stays the end
        (texts.cut(8), TWO.ids),
    ],
)
def test_tokens_that_are_left_out(change: texts.Callable[[Tokens], Tokens], ids: list[list[int]]) -> None:
    changed = change(TWO)
    assert changed.ids == ids
    assert [sum(mask) for mask in changed.mask] == [len([i for i in row if i != 9]) for row in ids]
    assert all(len(row) == len(ids[0]) for part in changed for row in part)


def test_a_text_without_words_keeps_a_token() -> None:
    empty = Tokens([[1, 2]], [[1, 1]], [[-1, -1]])
    assert texts.without_special(empty).ids == [[1]]


def test_prompts_template_letters_and_punctuation_are_written_one_after_another() -> None:
    family = {"Edema": {"pos": ["edema."], "neg": ["no edema."]}}
    choices = [texts.family_choice({"a.json": {"Edema": {"pos": ["x"]}}, "b.json": family}, "a.json")]
    choices += texts.writing_choices()
    names = ("b.json", "a photo of {}", "first letter large", "without a full stop")
    reading = tuple(change for change in changes(choices) if change.variant.name in names)
    made = state(choices, Stage.TEXTS, reading, texts.Texts({}))
    assert made.written("Edema", "pos") == ["A photo of edema"]
    assert made.written("Edema", "neg") == ["A photo of no edema"] and made.written("Fracture", "pos") == []
