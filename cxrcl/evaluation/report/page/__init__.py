"""A report as one HTML file that needs nothing else: no script, no network.

`render(page)` makes the text of the file from plain data (see `cxrcl.evaluation.report.content.Page`).
"""

from cxrcl.evaluation.report.page.render import render

__all__ = ["render"]
