"""Why is my number not yours: `cxrcl explain checkpoint=FILE target=0.81 [key=value ...]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxrcl.commands.entry import guarded
from cxrcl.commands.evaluate import check_folder
from cxrcl.commands.hydra import run_composed
from cxrcl.errors import ConfigError


def main() -> None:
    guarded(lambda: run_composed("explain", _explain))


def _explain(values: dict[str, Any], overrides: list[str], packages: tuple[str, ...], typed: str) -> None:
    from cxrcl.app.explain.explain import explain
    from cxrcl.app.job import Typed
    from cxrcl.checkpoint import find
    from cxrcl.evaluation.report import explained

    out = Path(values.get("out") or find.beside(values["checkpoint"], values["splits"], "explain")).expanduser()
    check_folder(out)
    report = explain(values, packages, out, Typed(typed, tuple(overrides)))
    if report is not None:
        try:
            written = explained.write(out, report)
        except OSError as error:
            raise ConfigError(f"out={out}: cannot write there ({error.strerror})") from None
        print(f"\n{explained.summary(report)}\n\nreport: {written}")
