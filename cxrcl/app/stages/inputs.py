"""Stage 1: the data of a run, and how images and texts of it are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cxrcl.app import data
from cxrcl.app.overrides import TEXTS, explained
from cxrcl.app.sources import Sources, build_sources, prompts_of
from cxrcl.app.stages.job import Job
from cxrcl.config.nodes import build
from cxrcl.data.images.reader import ImageReader
from cxrcl.data.manifest import Manifest
from cxrcl.data.text.prompts import PromptSampler
from cxrcl.data.text.texts import Texts
from cxrcl.errors import DataError


@dataclass(frozen=True)
class Inputs:
    """The data of a run, and how images and texts of it are read.

    Attributes:
        prompts: the run's own, which go into checkpoints.
        prompts_of_sources: the same, or by source where there are several.
        manifest: rows of all splits, labels under the policy.
        fingerprint: of the manifest.
        make_texts: rows -> their texts.
    """

    sources: Sources
    prompts: PromptSampler
    prompts_of_sources: PromptSampler | Mapping[str, PromptSampler]
    reader: ImageReader
    manifest: Manifest
    fingerprint: str
    make_texts: Callable[[Manifest], Texts]


def read_inputs(job: Job) -> Inputs:
    """Prepare the sources and read their manifests.

    Raises:
        UserError: a source, a manifest or a setting that cannot be used; no row to train on.
    """
    cfg = job.cfg.data
    prompts = build(job.cfg.prompts, PromptSampler, "prompts", packages=job.packages)
    sources = build_sources(cfg, job.packages)
    prompts_of_sources = prompts_of(job.cfg.prompts, sources, job.packages)
    reader = data.image_reader(cfg, sources)
    manifest = data.load_data(cfg, sources, job.runtime)
    if not len(manifest.split("train")):
        raise DataError("no row has the split train: nothing to train on")
    reports = data.report_sampler(cfg.reports)

    @explained(TEXTS)
    def make_texts(part: Manifest) -> Texts:
        return Texts(part, cfg.text, reports, prompts_of_sources)

    return Inputs(sources, prompts, prompts_of_sources, reader, manifest, manifest.fingerprint(), make_texts)
