"""The sources of a run: their folders, prompts and shares (nodes of the section data.sources)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxrcl.app.overrides import LISTS, explained
from cxrcl.config import sections
from cxrcl.config.nodes import Packages, build
from cxrcl.data.manifest import ROOT, Manifest, refuse_shared_patients
from cxrcl.data.order import Mixture
from cxrcl.data.sources.base import Source
from cxrcl.data.split_lists import apply_lists
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.errors import ConfigError

Nodes = Mapping[str, Mapping[str, Any] | None]  # data.sources
Sources = Mapping[str, Source]  # by name


def build_sources(cfg: sections.Data, packages: Packages) -> dict[str, Source]:
    """The sources by name; `data.root` stands in place of the folder of the only one.

    Raises:
        ConfigError: none, several with `data.root`, or weights of some only.
    """
    nodes: dict[str, Mapping[str, Any]] = {name: node for name, node in cfg.sources.items() if node is not None}
    if cfg.root is not None or cfg.store is not None:
        if len(nodes) > 1:
            setting, folder = ("root", cfg.root) if cfg.root is not None else ("store", cfg.store)
            raise ConfigError(
                f"data.{setting}={folder} stands for one source, but data has {', '.join(nodes)}: "
                f"set data.sources.<name>.{setting} of each instead"
            )
        own = next(iter(nodes.values()), {})
        kept = {key: own[key] for key in ("weight", "fraction", "prompts") if key in own}
        nodes = {ROOT: {"_target_": "cxrcl.data.sources.base.Source", "root": cfg.root, "store": cfg.store, **kept}}
    if not nodes:
        raise ConfigError("data: no source; choose one with data=<name>, or give a folder with data.root=DIR")
    sources = {name: build(node, Source, f"data.sources.{name}", packages=packages) for name, node in nodes.items()}
    without = [name for name, source in sources.items() if source.weight is None]
    if 0 < len(without) < len(sources):
        raise ConfigError(
            f"data.sources.{without[0]}.weight: null, but other sources have a weight: give each of them one, or none"
        )
    return sources


def fractions_of(sources: Mapping[str, Source], fraction: float) -> dict[str, float]:
    """By source, how much of its training patients is used: its own number, or `data.fraction`; none where all are."""
    fractions = {name: fraction if source.fraction is None else source.fraction for name, source in sources.items()}
    return {name: part for name, part in fractions.items() if part < 1}


@explained(LISTS)
def as_listed(
    data: Manifest, cfg: sections.Data, folder: str, sources: Sequence[str], fractions: Mapping[str, float]
) -> tuple[Manifest, str]:
    """The images of published lists with the split of their list, and a line that counts them.

    Args:
        fractions: as `fractions_of` gives them.

    Raises:
        UserError: several sources or several draws, or lists that do not suit the manifest.
    """
    where = f"data.split_lists={folder}"
    if len(sources) > 1:
        raise ConfigError(f"{where}: lists the images of one source, but data has {', '.join(sources)}: choose one")
    if cfg.fraction_seed:
        raise ConfigError(f"data.fraction_seed={cfg.fraction_seed}: {where} holds a single draw; set it to 0")
    data, summary = apply_lists(data, Path(folder).expanduser(), fractions.get(sources[0], 1.0))
    if cfg.check_patients:
        refuse_shared_patients(data.rows, where)
    return data, summary


def prompts_of(
    node: Mapping[str, Any], sources: Mapping[str, Source], packages: Packages
) -> PromptSampler | dict[str, PromptSampler]:
    """The run's prompts, with a source's own file where it names one; by source where there are several."""
    samplers = {}
    for name, source in sources.items():
        own = {} if source.prompts is None else {"file": source.prompts}
        where = f"data.sources.{name}.prompts" if own else "prompts"
        samplers[name] = build({**node, **own}, PromptSampler, where, packages=packages)
    return samplers if len(samplers) > 1 else next(iter(samplers.values()))


def with_sentences(nodes: Nodes, prompts: PromptSampler | Mapping[str, PromptSampler]) -> dict[str, Any]:
    """The nodes of sources with the content of their prompts files in place of the names."""
    filled = dict(nodes)
    for name, node in nodes.items():
        if node is not None and node.get("prompts") is not None:
            sampler = prompts if isinstance(prompts, PromptSampler) else prompts[name]
            filled[name] = {**node, "prompts": sampler.prompts}
    return filled


def with_known_sentences(nodes: Nodes, stored: Nodes) -> dict[str, Any]:
    """The nodes of sources; one that names no prompts has the sentences that a source of its name had in training."""
    filled = dict(nodes)
    for name, node in nodes.items():
        sentences = (stored.get(name) or {}).get("prompts")
        if node and sentences and node.get("prompts") is None:
            filled[name] = {**node, "prompts": sentences}
    return filled


def training_order(
    sources: Mapping[str, Source], training: Manifest, items: Sequence[np.ndarray], seed: int
) -> tuple[Mixture | None, str]:
    """The order of a mixture with weights (None: without), and what an epoch takes of each source, for a person.

    Args:
        training: the rows. A source may have none: one that is for evaluation only.
        items: the rows of each sample.

    Raises:
        ConfigError: a source with a weight has rows and no sample, or a weight too small for one in an epoch.
    """
    part_of_rows = training.rows["part"].to_numpy()
    part_of_items = part_of_rows[[int(rows[0]) for rows in items]]
    parts = {name: np.flatnonzero(part_of_items == name) for name in sources if name in part_of_rows}
    weights = [source.weight for name, source in sources.items() if name in parts and source.weight is not None]
    order = Mixture(list(parts.values()), weights, seed) if weights else None
    shares = order.shares if order is not None else [len(part) for part in parts.values()]
    summaries = {name: f"{name} 0" for name in sources}
    for (name, part), share in zip(parts.items(), shares, strict=True):
        if order is not None and not (len(part) and share):
            raise ConfigError(
                f"data.sources.{name}.weight={sources[name].weight:g}: gives {share} of {len(items)} samples of an "
                f"epoch, out of {len(part)} that can be used: {'raise it, or ' if len(part) else ''}leave the source "
                "out of data=[...]"
            )
        if share:
            summaries[name] = f"{name} {len(part):,} x {share / len(part):.3g}"
    return order, ", ".join(summaries.values())
