"""A report as one HTML file that needs nothing else: no script, no network.

`render(page)` makes the text of the file from plain data (see `parts.Page`).
"""

from cxrcl.evaluation.page.parts import Checkpoint, ClassSimilarity, Films, Page, from_look, of_scores
from cxrcl.evaluation.page.render import render

__all__ = ["Checkpoint", "ClassSimilarity", "Films", "Page", "from_look", "of_scores", "render"]
