"""Views: from where a radiograph was taken, as far as the column `view` says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

FRONTAL, LATERAL, UNKNOWN = "frontal", "lateral", "of unknown view"
# The first word of a view, in small letters. Sources write AP, PA, Frontal, Lateral, L, LL, AP_horizontal, PA LLD.
_KINDS = {
    **dict.fromkeys(("ap", "pa", "frontal", "anteroposterior", "posteroanterior"), FRONTAL),
    **dict.fromkeys(("lateral", "l", "ll", "rl", "lat"), LATERAL),
}


def kind(view: str) -> str:
    """`FRONTAL`, `LATERAL`, or `UNKNOWN` where the word does not tell.

    >>> kind("AP_horizontal"), kind("LL"), kind("")
    ('frontal', 'lateral', 'of unknown view')
    """
    first = re.match(r"[a-z]+", view.strip().lower())
    return _KINDS.get(first[0], UNKNOWN) if first else UNKNOWN


def counted(views: Iterable[str]) -> dict[str, int]:
    """View -> number of images, the most frequent first."""
    counts: dict[str, int] = {}
    for view in views:
        counts[view] = counts.get(view, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def described(counts: Mapping[str, int | None]) -> str:
    """Images by kind of view, and by view; without numbers where these are not known.

    >>> described({"PA": 3, "Lateral": 2, "AP": 1})
    '4 frontal (PA 3, AP 1), 2 lateral (Lateral 2)'
    """
    parts = []
    for name in (FRONTAL, LATERAL, UNKNOWN):
        views = {view or "blank": count for view, count in counts.items() if kind(view) == name}
        known = [count for count in views.values() if count is not None]
        if views:
            named = ", ".join(f"{view} {count}" if known else view for view, count in views.items())
            parts.append(f"{f'{sum(known)} ' if known else ''}{name} ({named})")
    return ", ".join(parts) or "none"


def not_seen(trained: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    """Of counted images those that are frontal or lateral where the views of training have none of that kind.

    Training on images of unknown view may have seen either kind: then nothing is asserted. Nor is it of an image of
    unknown view.
    """
    seen = {kind(view) for view in trained}
    if UNKNOWN in seen:
        return {}
    return {view: count for view, count in counts.items() if kind(view) not in (*seen, UNKNOWN)}
