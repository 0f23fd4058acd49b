"""Tables and pictures of how scores would be used, in Markdown, on the terminal and on the page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from score_data import LABELS, awkward

from cxrcl.evaluation.report import score_markdown, use_tables
from cxrcl.evaluation.report.content import Page, of_scores
from cxrcl.evaluation.report.page import plot_use
from cxrcl.evaluation.report.page.render import render
from cxrcl.evaluation.report.table import number
from cxrcl.evaluation.scores.bootstrap import Patients
from cxrcl.evaluation.scores.models import score_models
from cxrcl.evaluation.scores.reader_files import Readings
from cxrcl.evaluation.scores.score_report import ScoreReport
from cxrcl.evaluation.scores.scoring import ranked_only
from cxrcl.evaluation.scores.thresholds import ThresholdRule, predicted_from_scores
from cxrcl.evaluation.scores.use import with_use

pytestmark = pytest.mark.usefixtures("blank_pictures")

SCORES, TRUTH, IDS = awkward(2, count=120)


def report(readers: int = 2, probabilities: bool = True) -> ScoreReport:
    """Two models, a control, and readers of Edema who read half of the images."""
    shift = 0 if probabilities else 3
    models = [
        predicted_from_scores(name, LABELS, SCORES**power + shift, None, ThresholdRule("given", 0.4), False)
        for name, power in (("one", 1), ("two", 2))
    ]
    calls = np.full(SCORES.shape, np.nan)
    calls[::2, 1] = (SCORES[::2, 1] > 0.5).astype(float)
    readings = [Readings(f"Reader {k}", calls) for k in range(readers)]
    patients = Patients(IDS, 20)
    control = ranked_only("shuffled", LABELS, SCORES[::-1])
    scored = score_models([*models, control], TRUTH, patients, LABELS[1:], {}, {}, controls=["shuffled"])
    return with_use(scored, models, TRUTH, patients, LABELS[1:], readings=readings)


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {start}")]


def test_markdown_has_every_number_under_the_name_of_its_model() -> None:
    found = report()
    text = score_markdown.markdown(found)
    for model in found.models[:2]:
        part = text.partition(f"### Sensitivity at fixed specificity of {model.name}, and the reverse")[2]
        fixed, areas, benefit = lines(part, "Edema")[:3]
        assert all(number(one.labels["Edema"].value) in fixed for one in model.fixed_rates)
        edema, curve = model.selective[1], model.decision_curves[1]
        assert all(number(score.value) in areas for score in (edema.aurc, edema.excess_aurc, edema.risk))
        for threshold in use_tables.SHOWN:
            k = curve.thresholds.index(threshold)
            assert number(curve.net_benefit[k]) in benefit and number(curve.treat_all[k]) in benefit
        beside = lines(text.partition(f"{model.name} at the operating points of readers")[2], "Reader 1")[0]
        against = [one for one in model.against_readers if one.reader == "Reader 1"]
        assert all(number(one.value.value) in beside and number(one.p_holm, 4) in beside for one in against)
    assert use_tables.CALIBRATED in text and use_tables.NOT_TRANSFERRED in text and use_tables.THESE_READERS in text
    assert "specificity of shuffled" not in text
    one = found.readers[0]
    point = lines(text.partition("## Readers")[2], "Reader 0")[0]
    assert f"| {one.images} " in point and number(one.specificity.value) in point


def test_the_terminal_shows_means_and_as_many_readers_as_it_has_room_for() -> None:
    few, many = score_markdown.summary(report()), score_markdown.summary(report(readers=20))
    (mean,) = lines(few, "one  ")
    macro = report().models[0]
    assert number(macro.fixed_rates[1].macro.value) in mean and number(macro.selective[-1].aurc.value) in mean
    assert not lines(few, "shuffled  ") and lines(few, "Reader 0") and lines(few, "mean of 2 readers")
    assert not lines(many, "Reader 0") and lines(many, "mean of 20 readers")


def test_without_probabilities_or_readers_the_parts_are_not_there() -> None:
    text = score_markdown.markdown(report(readers=0, probabilities=False))
    assert "Sensitivity at fixed specificity" in text
    for absent in ("Selective prediction", "Net benefit", "Readers", "operating points"):
        assert f"# {absent}" not in text
    page = render(of_scores(report(readers=0, probabilities=False)))
    assert 'id="operating"' in page
    assert not any(f'id="{name}"' in page for name in ("selective", "benefit", "readers"))


def test_the_page_shows_each_part_once_for_all_models() -> None:
    found = report()
    page = render(of_scores(found))
    for section in ("operating", "selective", "benefit", "readers"):
        assert page.count(f'<section id="{section}">') == 1
    assert number(found.models[1].fixed_rates[0].labels["Edema"].value) in page
    for name in ("one", "two"):
        assert f"Decision curves of {name}" in page and f"ROC curves of {name} on the images" in page
    only = Page(title="t", scores={"": replace(found, models=found.models[2:], readers=[], comparisons=[])})
    assert 'id="operating"' not in render(only)


def test_pictures_show_the_points_of_the_readers_and_the_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[object]] = {}

    def draw_one(by_label: dict[str, object], one: object, *words: object, **options: object) -> list[str]:
        from matplotlib.figure import Figure

        for label, part in by_label.items():
            axes = Figure().add_subplot()
            one(axes, label, part)  # type: ignore[operator]
            drawn[label] = [line.get_xydata().tolist() for line in axes.lines]
        return list(by_label)

    monkeypatch.setattr(plot_use, "multiples", draw_one)
    found = report()
    model = found.models[0]
    assert plot_use.readers(model, found.readers) == ["Edema"]
    for point in found.readers:
        assert [[1 - point.specificity.value, point.sensitivity.value]] in drawn["Edema"]
    assert [list(pair) for pair in zip(*model.roc["Edema"], strict=True)] in drawn["Edema"]
    assert plot_use.decision_curves(model) == ["No Finding", "Edema", "Fracture"]
    curve = model.decision_curves[1]
    for values in (curve.net_benefit, curve.treat_all):
        assert [list(pair) for pair in zip(curve.thresholds, values, strict=True)] in drawn["Edema"]
    assert plot_use.risk_coverage(model) == ["No Finding", "Edema", "Fracture"]
    part = model.selective[1]
    assert [list(pair) for pair in zip(part.coverage, part.risks, strict=True)] in drawn["Edema"]
    assert plot_use.readers(model, []) is plot_use.decision_curves(found.models[2]) is None
