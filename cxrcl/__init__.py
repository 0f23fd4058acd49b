"""cxrcl: config-driven contrastive learning on chest X-rays. `cxrcl.load(checkpoint)` reads images from Python."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cxrcl.api import load as load
else:

    def __getattr__(name: str) -> object:
        if name == "load":  # imported when asked for: the commands answer before torch is there
            from cxrcl.api import load

            return load
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "load"])
