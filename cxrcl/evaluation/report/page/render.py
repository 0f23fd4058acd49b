"""A report -> one HTML file: `page.html` is the page, `sections.html` what stands in it."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cxrcl.errors import RESEARCH_ONLY
from cxrcl.evaluation.report import score_tables, use_tables
from cxrcl.evaluation.report.content import Page
from cxrcl.evaluation.report.page import pictures, plot_scores, plot_space, plot_training, plot_use, views
from cxrcl.evaluation.report.tables import retrieval_table


def render(page: Page) -> str:
    """The whole HTML file. Every text is escaped: texts of reports come from anywhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(
        page=page,
        use=RESEARCH_ONLY,
        views=views,
        tables=score_tables,
        retrieval_table=retrieval_table,
        data_uri=pictures.data_uri,
        plot_scores=plot_scores,
        plot_space=plot_space,
        plot_training=plot_training,
        plot_use=plot_use,
        use_tables=use_tables,
    )
