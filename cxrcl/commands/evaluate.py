"""Score checkpoints: `cxrcl evaluate checkpoint=FILE [evals=[zero_shot,retrieval]] [key=value ...]`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrcl.commands.entry import guarded
from cxrcl.commands.hydra import requested_evals, run_composed
from cxrcl.errors import ConfigError

if TYPE_CHECKING:
    from cxrcl.evaluation.report.content import Page


def main() -> None:
    guarded(lambda: run_composed("evaluate", _evaluate))


def _evaluate(values: dict[str, Any], overrides: list[str], packages: tuple[str, ...], typed: str) -> None:
    from cxrcl.app.evaluate import evaluate
    from cxrcl.app.job import Typed
    from cxrcl.checkpoint import find as checkpoint_files
    from cxrcl.evaluation.report import tables
    from cxrcl.evaluation.report.use_tables import brief_tables

    out = Path(values.get("out") or checkpoint_files.beside(values["checkpoint"], values["splits"])).expanduser()
    check_folder(out)
    scored = evaluate(values, packages, requested_evals(overrides), Typed(typed, tuple(overrides)))
    if scored.page is not None:
        written = write_report(out, scored.page)  # before the tables: `| head` ends the process at these
        several = {one.name: one.metrics for one in scored.page.proper}
        made = scored.page.tables(with_controls=False)
        shown = tables.tables_of_several(several, made) if len(several) > 1 else tables.tables(scored.results, made)
        brief = [table.text() for table in brief_tables(scored.page.models())]
        told = [*trained_on(scored.page), f"report: {written}"]
        print("\n" + "\n\n".join([shown, *filter(None, brief), "\n".join(told)]))


def trained_on(page: Page) -> list[str]:
    """A line for each checkpoint: what it was trained on, and whether scored images are among it."""
    texts = {one.name: str(one.facts.shown()["trained on"]) for one in page.proper if one.facts is not None}
    return [f"trained on{f' ({name})' if len(texts) > 1 else ''}: {text}" for name, text in texts.items()]


def check_folder(out: Path) -> None:
    """Raises ConfigError where a report could not be written: before the work, and not after it."""
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ConfigError(f"out={out}: cannot write there ({nearest} is no folder that you may write to)")


def write_report(folder: Path, page: Page) -> Path:
    """The files of a report in `folder`; returns the page to look at."""
    from cxrcl.evaluation.report import output

    try:
        return output.write(folder, page)[0]
    except OSError as error:
        raise ConfigError(f"out={folder}: cannot write there ({error.strerror})") from None
