"""The parts of docs/results.md, in its order."""

from __future__ import annotations

import os
from pathlib import Path

from cxrcl.commands.results import phantom, real, speed
from cxrcl.commands.results.running import Part
from cxrcl.data.sources.phantom import Phantom


def make(out: Path, has_real: bool) -> list[Part]:
    """All parts; their commands write below `out`.

    Args:
        has_real: whether the download of the real collection is there.
    """
    images = Phantom(f"{os.environ.get('CXRCL_DATA', 'data')}/phantom").root
    return [
        phantom.demo(out, images),
        phantom.probes(out, images),
        phantom.stem(out, images),
        phantom.transfer(out),
        phantom.pointing(out),
        real.iu(out, has_real),
        real.transfer(out, has_real),
        speed.losses(out),
        speed.data(out),
    ]
