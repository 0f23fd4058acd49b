"""Word pieces of sentences, looked up once: the pieces of a text are those of its sentences, one after another.

That holds for tokenizers that part a text at its spaces, whether or not a piece knows of the space before it. It is
tested for each tokenizer before it is relied on (`token_table`); else texts are tokenised anew in each batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cxrcl.data.streams import TEXT, stream
from cxrcl.data.texts import Texts
from cxrcl.types import Tokenizer

Sentences = Sequence[str]  # of one text, which they make when joined by single spaces
_ANCHOR = "chest"  # what follows this word follows a space
_LONG = 2048  # words: more than any text tower takes
_AT_A_TIME = 1024  # sentences
_TESTED = 256  # texts
# ASCII, and single accented letters inside or at the end of a word. Some tokenizers mend wrong encodings, and whether a
# run of odd signs is one may depend on the rest of the text: sentences with such a run are not in the table.
_LOCAL = re.compile(r"(?! )(?:[ -~]|[À-ÖØ-Þ](?=[A-Za-z])|[à-öø-ÿ](?![^ -~]))+(?<! )")


class Arrays(NamedTuple):
    """As `cxrcl.types.Tokens`; int64 [N, L] each."""

    ids: np.ndarray
    mask: np.ndarray
    words: np.ndarray


class _Frame(NamedTuple):
    """What a tokenizer does to any text."""

    prefix: list[int]
    suffix: list[int]
    pad: int
    limit: int | None  # pieces, prefix and suffix included; None: it does not cut
    anchor: int  # pieces of the anchor


class _Pieces(NamedTuple):
    """Of n sentences, one after another."""

    ids: np.ndarray  # uint16 or int32 [pieces]
    words: np.ndarray  # int16 or int32 [pieces]: number of the word in its sentence, -1 for none
    counts: np.ndarray  # int64 [n]: pieces of a sentence
    num_words: np.ndarray  # int32 [n]


def tokenize(texts: Sequence[Sentences], tokenizer: Tokenizer) -> Arrays:
    """N texts, padded to the longest."""
    tokens = tokenizer([" ".join(text) for text in texts])
    return Arrays(*(np.array(part, dtype=np.int64).reshape(len(texts), -1) for part in tokens))


class TokenTable:
    """The pieces of sentences, and texts put together from them.

    Left out are sentences that the tokenizer cuts, that have no piece, or whose pieces may depend on other sentences;
    texts with one of them are tokenised.

    Args:
        sentences: those to look up.
        tokenizer: in whose words -1 marks special pieces.
        show_progress: a bar, from the fifth second on.

    Raises:
        ValueError: the tokenizer gives an ordinary word no piece.
    """

    def __init__(self, sentences: Iterable[str], tokenizer: Tokenizer, show_progress: bool = False) -> None:
        self.tokenizer = tokenizer
        self._frame = _frame_of(tokenizer)
        known = sorted({s for s in sentences if _LOCAL.fullmatch(s)}, key=lambda s: (len(s), s))
        probe = known[:: len(known) // _AT_A_TIME + 1]
        alone, after = (self._pieces(probe, follows) for follows in (False, True))
        # Whether the pieces of a sentence depend on its being the first one; `token_table` tests what is made of it.
        by_place = not all(np.array_equal(a, b) for a, b in zip(alone, after, strict=True))
        blocks = []
        count, shown = len(known) * (1 + by_place), None if show_progress else True  # None: on a terminal only
        with tqdm(desc="tokenises sentences", total=count, delay=5, disable=shown, leave=False) as bar:
            for follows in (False, True)[: 1 + by_place]:
                for start in range(0, max(len(known), 1), _AT_A_TIME):
                    blocks.append(self._pieces(known[start : start + _AT_A_TIME], follows))
                    bar.update(len(blocks[-1].counts))
        all_pieces = _Pieces(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
        self._ids, self._words, counts, self._num_words = all_pieces
        self._offsets = np.concatenate([[0], np.cumsum(counts)])
        whole = np.flatnonzero((counts.reshape(1 + by_place, -1) > 0).all(axis=0)).tolist()
        self._place = {known[place]: place for place in whole}
        self._to_following = len(known) if by_place else 0  # from a sentence's pieces as the first one to the others

    def __len__(self) -> int:
        return len(self._place)

    @property
    def num_bytes(self) -> int:
        """Of the arrays; the dict of places comes on top, about 80 for each sentence."""
        return sum(array.nbytes for array in (self._ids, self._words, self._num_words, self._offsets))

    def __call__(self, texts: Sequence[Sentences]) -> Arrays:
        """The pieces of N texts as the tokenizer gives them, padded to the longest."""
        places = [[self._place.get(sentence, -1) for sentence in text] for text in texts]
        others = [k for k, text in enumerate(places) if -1 in text]
        if not others:
            return self._assembled(places)
        chosen = set(others)
        known = [k for k in range(len(texts)) if k not in chosen]
        parts = [(others, tokenize([texts[k] for k in others], self.tokenizer))]
        parts += [(known, self._assembled([places[k] for k in known]))] if known else []
        longest = max(found.ids.shape[1] for _, found in parts)
        whole = Arrays(*(np.full((len(texts), longest), fill) for fill in (self._frame.pad, 0, -1)))
        for rows, found in parts:
            for target, values in zip(whole, found, strict=True):
                target[rows, : values.shape[1]] = values
        return whole

    def _pieces(self, sentences: Sentences, follows: bool) -> _Pieces:
        """The pieces of each sentence; none of one that is cut.

        Args:
            follows: as they are after another sentence.
        """
        if not sentences:
            return _Pieces(*(np.zeros(0, dtype) for dtype in (np.uint16, np.int16, np.int64, np.int32)))
        frame = self._frame
        ids, mask, words = tokenize([(_ANCHOR, s) if follows else (s,) for s in sentences], self.tokenizer)
        sizes = mask.sum(axis=1)
        ends = sizes - len(frame.suffix)
        if frame.limit is not None:
            ends[sizes >= frame.limit - (not follows) * frame.anchor] = 0  # the same sentences, followers or not
        column = np.arange(ids.shape[1])
        own = (column >= len(frame.prefix) + follows * frame.anchor) & (column < ends[:, None])
        in_word = own & (words >= 0)
        last = np.where(in_word, words, -1).max(axis=1)
        first = np.where(in_word, words, last[:, None] + 1).min(axis=1)
        words = np.where(in_word, words - first[:, None], -1)[own]
        ids = ids[own]
        return _Pieces(
            ids.astype(np.uint16 if ids.max(initial=0) < 2**16 else np.int32),
            words.astype(np.int16 if words.max(initial=0) < 2**15 else np.int32),
            own.sum(axis=1),
            (last + 1 - first).astype(np.int32),
        )

    def _assembled(self, places: Sequence[Sequence[int]]) -> Arrays:
        frame, rows = self._frame, len(places)
        per_text = np.array([len(text) for text in places], dtype=np.int64)
        place = np.array([place for text in places for place in text], dtype=np.int64)
        row = np.repeat(np.arange(rows), per_text)  # of each sentence
        is_first = np.diff(row, prepend=-1) != 0
        place[~is_first] += self._to_following
        starts = self._offsets[place]
        counts = self._offsets[place + 1] - starts

        def before(sizes: np.ndarray) -> np.ndarray:
            """Of each sentence: the sum over those before it in its text."""
            sums = np.cumsum(sizes) - sizes
            return sums - np.repeat(sums[is_first], per_text[per_text > 0])

        column = len(frame.prefix) + before(counts)  # where each sentence begins
        words_before = before(self._num_words[place].astype(np.int64))
        if frame.limit is not None:
            counts = np.clip(frame.limit - len(frame.suffix) - column, 0, counts)
        ends = len(frame.prefix) + np.bincount(row, weights=counts, minlength=rows).astype(np.int64)
        sizes = ends + len(frame.suffix)
        longest = int(sizes.max(initial=0))

        found = Arrays(*(np.full((rows, longest), fill) for fill in (frame.pad, 0, -1)))
        pieces = np.arange(int(counts.sum()))
        first_piece = np.cumsum(counts) - counts
        source = pieces + np.repeat(starts - first_piece, counts)
        target = pieces + np.repeat(row * longest + column - first_piece, counts)
        words = self._words[source]
        found.ids.reshape(-1)[target] = self._ids[source]
        found.words.reshape(-1)[target] = np.where(words < 0, -1, words + np.repeat(words_before, counts))
        found.mask[:] = np.arange(longest) < sizes[:, None]
        found.ids[:, : len(frame.prefix)] = frame.prefix
        for k, piece in enumerate(frame.suffix):
            found.ids[np.arange(rows), ends + k] = piece
        return found


def _frame_of(tokenizer: Tokenizer) -> _Frame:
    ids, mask, words = tokenize([(), (_ANCHOR,), (_ANCHOR,) * _LONG], tokenizer)
    own = np.flatnonzero(words[1] >= 0)
    if not len(own):
        raise ValueError(f"the tokenizer gives {_ANCHOR!r} no piece that belongs to a word")
    _, size, longest = mask.sum(axis=1).tolist()
    first, end = int(own[0]), int(own[-1]) + 1
    return _Frame(
        prefix=ids[1, :first].tolist(),
        suffix=ids[1, end:size].tolist(),
        pad=int(ids[0, -1]),
        limit=longest if words[2].max() + 1 < _LONG else None,
        anchor=end - first,
    )


def token_table(texts: Texts, tokenizer: Tokenizer, show_progress: bool = False) -> TokenTable | None:
    """The table of all sentences that draws of `texts` can give; None where the tokenizer's pieces of a text differ.

    Compared are draws of texts of rows spread over the data, and joins of 16 of them, which most tokenizers cut.
    """
    try:
        table = TokenTable(texts.sentences(), tokenizer, show_progress)
    except ValueError:
        return None
    rng = stream(0, TEXT)
    drawn = [texts.draw(k * len(texts) // _TESTED, rng, k % 2) for k in range(_TESTED)]
    drawn += [tuple(s for text in drawn[k : k + 16] for s in text) for k in range(0, _TESTED, 16)]
    for start in range(0, len(drawn), 32):
        part = drawn[start : start + 32]
        if not all(np.array_equal(a, b) for a, b in zip(table(part), tokenize(part, tokenizer), strict=True)):
            return None
    return table
