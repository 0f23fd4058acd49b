"""Sentences are tokenised once: the tokens of a text are those of its sentences, one after another.

That holds for tokenizers that split a text at its spaces, whether or not a token includes the space before it.
`token_table` tests each tokenizer for it; texts of others are tokenised anew in each batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cxrcl.data.streams import TEXT, stream
from cxrcl.data.text.texts import Texts
from cxrcl.types import Tokenizer

Sentences = Sequence[str]  # of one text, which they make when joined by single spaces
_ANCHOR = "chest"  # the sentence after this word has a space before it
_LONG = 2048  # words: more than any text encoder takes
_BLOCK = 1024  # sentences
_TESTED = 256  # texts
# ASCII, and single accented letters inside or at the end of a word. Some tokenizers repair wrong encodings, and the
# rest of the text may decide whether a run of odd signs is one: sentences with such a run are not in the table.
_LOCAL = re.compile(r"(?! )(?:[ -~]|[À-ÖØ-Þ](?=[A-Za-z])|[à-öø-ÿ](?![^ -~]))+(?<! )")


class Arrays(NamedTuple):
    """The tokens of N texts, padded to the longest, as `cxrcl.types.Tokens`; int64 [N, L] each."""

    ids: np.ndarray
    mask: np.ndarray
    words: np.ndarray


class _Frame(NamedTuple):
    """What a tokenizer adds to every text, and where it cuts."""

    prefix: list[int]
    suffix: list[int]
    pad: int
    limit: int | None  # tokens, prefix and suffix included; None: it does not cut
    anchor: int  # number of tokens of the anchor


class _SentenceTokens(NamedTuple):
    """The tokens of n sentences, one sentence after another."""

    ids: np.ndarray  # uint16 or int32 [tokens]
    words: np.ndarray  # int16 or int32 [tokens]: number of the word in its sentence, -1 for none
    counts: np.ndarray  # int64 [n]: tokens of a sentence
    num_words: np.ndarray  # int32 [n]


def tokenize(texts: Sequence[Sentences], tokenizer: Tokenizer) -> Arrays:
    """The tokens of N texts, int64 [N, L] each, padded to the longest."""
    tokens = tokenizer([" ".join(text) for text in texts])
    return Arrays(*(np.array(part, dtype=np.int64).reshape(len(texts), -1) for part in tokens))


class TokenTable:
    """The tokens of sentences, and of texts that are put together from these sentences.

    It leaves out sentences that the tokenizer cuts, that have no token, or whose tokens may depend on other sentences;
    texts with one of these are tokenised.

    Args:
        sentences: what to tokenise.
        tokenizer: gives special tokens the word -1.
        show_progress: draw a bar, from the fifth second on.

    Raises:
        ValueError: the tokenizer gives an ordinary word no token.
    """

    def __init__(self, sentences: Iterable[str], tokenizer: Tokenizer, show_progress: bool = False) -> None:
        self.tokenizer = tokenizer
        self._frame = _frame_of(tokenizer)
        kept = sorted({s for s in sentences if _LOCAL.fullmatch(s)}, key=lambda s: (len(s), s))
        probe = kept[:: len(kept) // _BLOCK + 1]
        alone, after = (self._tokens(probe, follows) for follows in (False, True))
        # Whether the first sentence of a text has other tokens than the same sentence after another one.
        by_place = not all(np.array_equal(a, b) for a, b in zip(alone, after, strict=True))
        blocks = []
        count, shown = len(kept) * (1 + by_place), None if show_progress else True  # None: on a terminal only
        with tqdm(desc="tokenises sentences", total=count, delay=5, disable=shown, leave=False) as bar:
            for follows in (False, True)[: 1 + by_place]:
                for start in range(0, max(len(kept), 1), _BLOCK):
                    blocks.append(self._tokens(kept[start : start + _BLOCK], follows))
                    bar.update(len(blocks[-1].counts))
        all_tokens = _SentenceTokens(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
        self._ids, self._words, counts, self._num_words = all_tokens
        self._offsets = np.concatenate([[0], np.cumsum(counts)])
        whole = np.flatnonzero((counts.reshape(1 + by_place, -1) > 0).all(axis=0)).tolist()
        self._place = {kept[place]: place for place in whole}
        self._to_following = len(kept) if by_place else 0  # from a sentence's tokens as the first one to the others

    def __len__(self) -> int:
        return len(self._place)

    def __call__(self, texts: Sequence[Sentences]) -> Arrays:
        """The tokens of N texts as the tokenizer gives them, int64 [N, L] each, padded to the longest."""
        places = [[self._place.get(sentence, -1) for sentence in text] for text in texts]
        incomplete = [k for k, text in enumerate(places) if -1 in text]
        if not incomplete:
            return self._assembled(places)
        in_table = sorted(set(range(len(texts))) - set(incomplete))
        parts = [(incomplete, tokenize([texts[k] for k in incomplete], self.tokenizer))]
        parts += [(in_table, self._assembled([places[k] for k in in_table]))] if in_table else []
        longest = max(tokens.ids.shape[1] for _, tokens in parts)
        whole = Arrays(*(np.full((len(texts), longest), fill) for fill in (self._frame.pad, 0, -1)))
        for rows, tokens in parts:
            for target, values in zip(whole, tokens, strict=True):
                target[rows, : values.shape[1]] = values
        return whole

    def _tokens(self, sentences: Sentences, follows: bool) -> _SentenceTokens:
        """The tokens of each sentence; none of one that is cut.

        Args:
            follows: as they are after another sentence, and not at the beginning of a text.
        """
        if not sentences:
            return _SentenceTokens(*(np.zeros(0, dtype) for dtype in (np.uint16, np.int16, np.int64, np.int32)))
        frame = self._frame
        ids, mask, words = tokenize([(_ANCHOR, s) if follows else (s,) for s in sentences], self.tokenizer)
        sizes = mask.sum(axis=1)
        ends = sizes - len(frame.suffix)
        if frame.limit is not None:
            ends[sizes >= frame.limit - (not follows) * frame.anchor] = 0  # the same sentences, followers or not
        column = np.arange(ids.shape[1])
        is_kept = (column >= len(frame.prefix) + follows * frame.anchor) & (column < ends[:, None])
        in_word = is_kept & (words >= 0)
        last = np.where(in_word, words, -1).max(axis=1)
        first = np.where(in_word, words, last[:, None] + 1).min(axis=1)
        words = np.where(in_word, words - first[:, None], -1)[is_kept]
        ids = ids[is_kept]
        return _SentenceTokens(
            ids.astype(np.uint16 if ids.max(initial=0) < 2**16 else np.int32),
            words.astype(np.int16 if words.max(initial=0) < 2**15 else np.int32),
            is_kept.sum(axis=1),
            (last + 1 - first).astype(np.int32),
        )

    def _assembled(self, places: Sequence[Sequence[int]]) -> Arrays:
        """The tokens of texts whose sentences stand at these places of the table."""
        frame, rows = self._frame, len(places)
        per_text = np.array([len(text) for text in places], dtype=np.int64)
        place = np.array([place for text in places for place in text], dtype=np.int64)
        row = np.repeat(np.arange(rows), per_text)  # of each sentence
        is_first = np.diff(row, prepend=-1) != 0
        place[~is_first] += self._to_following
        starts = self._offsets[place]
        counts = self._offsets[place + 1] - starts

        def before(sizes: np.ndarray) -> np.ndarray:
            """The sum over the sentences before each one in its text; int64 [sentences], as `sizes`."""
            sums = np.cumsum(sizes) - sizes
            return sums - np.repeat(sums[is_first], per_text[per_text > 0])

        column = len(frame.prefix) + before(counts)  # where each sentence begins
        words_before = before(self._num_words[place].astype(np.int64))
        if frame.limit is not None:
            counts = np.clip(frame.limit - len(frame.suffix) - column, 0, counts)
        ends = len(frame.prefix) + np.bincount(row, weights=counts, minlength=rows).astype(np.int64)
        sizes = ends + len(frame.suffix)
        longest = int(sizes.max(initial=0))

        tokens = Arrays(*(np.full((rows, longest), fill) for fill in (frame.pad, 0, -1)))
        order = np.arange(int(counts.sum()))
        first_token = np.cumsum(counts) - counts
        source = order + np.repeat(starts - first_token, counts)
        target = order + np.repeat(row * longest + column - first_token, counts)
        words = self._words[source]
        tokens.ids.reshape(-1)[target] = self._ids[source]
        tokens.words.reshape(-1)[target] = np.where(words < 0, -1, words + np.repeat(words_before, counts))
        tokens.mask[:] = np.arange(longest) < sizes[:, None]
        tokens.ids[:, : len(frame.prefix)] = frame.prefix
        for k, token in enumerate(frame.suffix):
            tokens.ids[np.arange(rows), ends + k] = token
        return tokens


def _frame_of(tokenizer: Tokenizer) -> _Frame:
    ids, mask, words = tokenize([(), (_ANCHOR,), (_ANCHOR,) * _LONG], tokenizer)
    in_word = np.flatnonzero(words[1] >= 0)
    if not len(in_word):
        raise ValueError(f"the tokenizer gives {_ANCHOR!r} no token that belongs to a word")
    _, size, longest = mask.sum(axis=1).tolist()
    first, end = int(in_word[0]), int(in_word[-1]) + 1
    return _Frame(
        prefix=ids[1, :first].tolist(),
        suffix=ids[1, end:size].tolist(),
        pad=int(ids[0, -1]),
        limit=longest if words[2].max() + 1 < _LONG else None,
        anchor=end - first,
    )


def token_table(texts: Texts, tokenizer: Tokenizer, show_progress: bool = False) -> TokenTable | None:
    """The table of all sentences that draws of `texts` can give; None where the tokens of a text are others.

    To test that, it compares draws of rows spread over the data, and joins of 16 draws, which most tokenizers cut.
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
