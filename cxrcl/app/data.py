"""The manifest of a run, how its images are read, and which rows and texts are used."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from cxrcl.app.overrides import LOADING, TEXTS, explained
from cxrcl.app.sources import Sources, as_listed, fractions_of
from cxrcl.config import sections
from cxrcl.data import bad_images
from cxrcl.data import manifest as manifests
from cxrcl.data.fractions import keep_fractions
from cxrcl.data.images import store as packed
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.labels import apply_policy
from cxrcl.data.loader import BatchReader
from cxrcl.data.manifest import Manifest
from cxrcl.data.text import tokens
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.data.text.reports import ReportSampler
from cxrcl.data.text.texts import Texts
from cxrcl.data.text.tokens import TokenTable
from cxrcl.distributed import Runtime
from cxrcl.errors import ConfigError, DataError, UserError
from cxrcl.objectives.base import Objective
from cxrcl.types import Tokenizer

logger = logging.getLogger(__name__)


@explained(LOADING)
def load_data(cfg: sections.Data, sources: Sources, runtime: Runtime) -> Manifest:
    """The rows of all sources, as the section `data` selects them, with labels under its policy.

    Raises:
        UserError: a source that cannot be read, or settings that do not suit it.
    """
    parts, roots = {}, []
    for name, source in sources.items():
        try:
            root = runtime.main_decides(source.prepare)
        except (ValueError, OSError) as error:
            hint = "" if isinstance(error, UserError) else "; name the folder of the data with data.root=DIR"
            raise DataError(f"data.sources.{name}: {error}{hint}") from None
        roots.append(root)
        outside = cfg.allow_outside_root or source.store is not None  # a store holds its images, whatever their names
        parts[name] = manifests.load(root, cfg.labels, outside, cfg.check_patients and cfg.split_lists is None)
        if source.store is not None:
            parts[name] = packed.attach(parts[name], root, source.store)
    data, fractions = manifests.merge(parts), fractions_of(sources, cfg.fraction)
    if cfg.split_lists is not None:
        data, summary = as_listed(data, cfg, cfg.split_lists, list(sources), fractions)
        fractions = {}
        logger.info(summary)
    data = keep_fractions(manifests.select(data, cfg.views, cfg.filter), fractions, cfg.fraction_seed)
    if cfg.labels is not None:
        absent = [name for name in cfg.labels if name not in data.labels]
        twice = [name for k, name in enumerate(cfg.labels) if name in cfg.labels[:k]]
        if twice:
            raise ConfigError(f"data.labels: {twice[0]} stands twice: name each label once")
        if absent:
            columns = dict.fromkeys(name for root in roots for name in manifests.label_columns(root))
            raise DataError(f"data.labels: no such column: {', '.join(absent)}; label columns: {', '.join(columns)}")
        data = data.with_labels(cfg.labels)
    try:
        values = apply_policy(data.values, data.labels, cfg.label_policy)
        return Manifest(data.rows, data.labels, values, data.values)
    except ValueError as error:
        raise ConfigError(f"data.{error}") from None


def image_reader(cfg: sections.Data, sources: Sources) -> ImageReader:
    """At `data.read_px`, which packed stores decide where they are.

    Raises:
        UserError: a store of images of another size, or none.
    """
    read_px = cfg.read_px
    for source in sources.values():
        if source.store is not None:
            side = packed.read_head(source.store)["read_px"]
            if read_px not in (None, side):
                raise ConfigError(
                    f"{source.store}: holds images of {side} px, but images are read at {read_px} px (data.read_px, or "
                    f"another store): pack it again with --read-px {read_px}, or set data.read_px=null"
                )
            read_px = side
    return ImageReader(read_px)


class TrainingTexts:
    """The texts that a text encoder learns its vocabulary from (implements `cxrcl.types.Corpus`).

    Args:
        training: rows of the training split.
        make: rows -> their texts.
        vocabulary: of the weights that the encoder will begin with: nothing is learnt where there is one.
    """

    def __init__(
        self,
        training: Manifest,
        make: Callable[[Manifest], Texts],
        prompts: PromptSampler | Mapping[str, PromptSampler],
        runtime: Runtime,
        vocabulary: str | None = None,
    ) -> None:
        self.training, self.make, self.runtime, self.vocabulary = training, make, runtime, vocabulary
        self.prompts = [prompts] if isinstance(prompts, PromptSampler) else list(prompts.values())

    def learn(self, fit: Callable[[Iterable[str]], str]) -> str:
        if self.vocabulary is not None:
            return self.vocabulary
        return self.runtime.main_decides(lambda: fit(self._texts()))

    def _texts(self) -> Iterator[str]:
        yield from self.make(self.training).corpus()
        for sampler, label in itertools.product(self.prompts, self.training.labels):
            for sentences in sampler.prompts.get(label, {}).values():
                yield from sentences


@explained(LOADING)
def without_unreadable(
    data: Manifest, splits: Sequence[str], batch_reader: BatchReader, runtime: Runtime, reader: ImageReader
) -> tuple[Manifest, dict[int, str]]:
    """The data without those images of these splits that cannot be read, and why not, by position in `data`."""
    positions = np.flatnonzero(data.rows["split"].isin(list(splits)))
    mine = [int(positions[k]) for k in runtime.shard(len(positions))]
    parts = runtime.gather_objects(bad_images.find_unreadable(data, mine, batch_reader, reader))
    unreadable = {position: reason for part in parts for position, reason in part.items()}
    if unreadable:
        named = bad_images.named(data, unreadable)
        logger.warning(f"{len(unreadable)} images cannot be read and are left out: {named}")
    return bad_images.leave_out(data, unreadable), unreadable


def text_maker(cfg: sections.Data, prompts: PromptSampler | Mapping[str, PromptSampler]) -> Callable[[Manifest], Texts]:
    """Rows -> their texts, as the section `data` asks for them; `prompts` by source where there are several."""
    given = cfg.reports
    reports = ReportSampler(
        given.sections, given.sentences, given.shuffle, given.min_words, given.section, given.augmented
    )

    @explained(TEXTS)
    def make_texts(part: Manifest) -> Texts:
        return Texts(part, cfg.text, reports, prompts)

    return make_texts


def token_table(texts: Texts, tokenizer: Tokenizer, runtime: Runtime) -> TokenTable | None:
    """The pieces of the training sentences, looked up in each process; None where these do not make up the texts'."""
    table = tokens.token_table(texts, tokenizer, runtime.is_main)
    if table is None:
        logger.info("data.cache_tokens: a text's pieces are not those of its sentences: they are made in each batch")
    return table


def usable_samples(training: Manifest, objective: Objective) -> Manifest:
    """The training rows that the objective can learn from."""
    keep = objective.learns_from(torch.from_numpy(training.values)).numpy()
    if not keep.any():
        raise DataError(f"none of {len(training)} training images has a label that the objective can use")
    if keep.all():
        return training
    logger.info(f"{(~keep).sum()} of {len(keep)} training images have no label that the objective can use: left out")
    return training.take(keep)


def check_texts(training: Manifest, texts: Texts, looked_at: int = 256) -> None:
    """A contrast of texts needs different ones.

    Raises:
        DataError: those looked at, spread over the data, are all the same.
    """
    with_text = [row for row in range(len(training)) if texts.exists(row)]
    rows = sorted({with_text[k * len(with_text) // looked_at] for k in range(looked_at)}) if with_text else []
    different = {texts.make(row, None) for row in rows}
    if len(rows) > 1 and len(different) == 1:
        # A report has no place in a log.
        shown = "" if any(texts.has_report(row) for row in rows) else f" ({different.pop()[:80]!r})"
        raise DataError(
            f"the texts of {len(rows)} training images are all the same{shown}: there is nothing to contrast; "
            "use reports, more labels, or prompts=chexpert"
        )
