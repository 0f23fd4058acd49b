"""The report as one HTML file."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import page_data
import pytest
from PIL import Image

from cxrcl.errors import RESEARCH_ONLY
from cxrcl.evaluation.evaluator import EvaluatorResult
from cxrcl.evaluation.report.content import Page, from_results, of_scores
from cxrcl.evaluation.report.page import render
from cxrcl.evaluation.report.page.plot_training import panels, read
from cxrcl.evaluation.report.page.views import prompt_tables
from cxrcl.evaluation.scores.score_report import Score
from cxrcl.evaluation.zero_shot_classes import ClassConfusion

VOID = ("meta", "img")
OF_SCORES = ("scores", "controls", "comparisons", "curves", "decisions", "groups")
SECTIONS = [
    *("scored", "scores", "prompts", "controls", "comparisons", "classes", "curves", "decisions", "groups"),
    *("retrieval", "similarity", "space", "other", "training", "settings"),
]


class Parsed(HTMLParser):
    """Tables by caption (rows of cell texts), attributes of all elements, and that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self._cell: list[str] | None = None
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "table":
            self._rows: list[list[str]] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "caption"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag in ("td", "th"):
            self._rows[-1].append("".join(self._cell or []))
        elif tag == "caption":
            self.tables["".join(self._cell or [])] = self._rows
        if tag in ("td", "th", "caption"):
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell is not None:
            self._cell.append(data)

    def table(self, start: str) -> list[list[str]]:
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))

    def sections(self) -> list[str]:
        return [str(given["id"]) for name, given in self.elements if name == "section"]


@pytest.fixture(scope="module")
def page() -> Page:
    return page_data.page()


@pytest.fixture(scope="module")
def html(page: Page) -> str:
    return render(page)


@pytest.fixture(scope="module")
def parsed(html: str) -> Parsed:
    return Parsed(html)


def cell(score: Score) -> str:
    interval = "" if score.low is None else f" [{score.low:.3f}, {score.high:.3f}]"
    return f"{score.value:.3f}{interval}"


def test_nothing_is_fetched_and_nothing_runs(parsed: Parsed) -> None:
    names = {name for name, _ in parsed.elements}
    assert not names & {"script", "iframe", "object", "link", "form"}
    for _, given in parsed.elements:
        assert not any(key.startswith("on") for key in given)
        for key in ("src", "href", "srcset", "action"):
            assert re.match(r"data:image/|#", given.get(key) or "#")
    policy = next(given["content"] for name, given in parsed.elements if given.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'")


def test_texts_of_data_are_no_markup(html: str, parsed: Parsed) -> None:
    assert "<b>" not in html and parsed.text.count(page_data.MARKUP) > 10
    pictures = [base64.b64decode(data) for data in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)]
    assert pictures and all(b"<b>" not in picture for picture in pictures)
    written = [re.search(rb"<text[^>]*>&lt;b&gt;\$large\$", picture) for picture in pictures]
    assert sum(found is not None for found in written) >= 4


def test_no_text_can_leave_the_attribute_or_the_element_that_it_stands_in(page: Page) -> None:
    hostile = """"><script>alert('{{ 7 * 7 }}')</script>&amp;{% raw %}"""

    def elements(text: str) -> tuple[Parsed, list[tuple[str, list[str]]]]:
        one, report = page.checkpoints[0], page.scores["zero_shot"]
        label = replace(report.models[0].labels[1], label=text)
        model = replace(report.models[0], name=text, threshold=text, calibration=text, labels=[label])
        model = replace(model, averages=[], groups=[], gaps=[])
        missing = replace(label, scores={name: Score(None, reason=text) for name in label.scores})
        control = replace(model, name="shuffled images", labels=[missing])
        scores = replace(report, models=[model, control], rules={text: text}, comparisons=[])
        example = replace(one.examples["retrieval"][0], image=text, text=text, retrieved=[(text, 0.5), ("", 0.5)])
        confusion = ClassConfusion((text, "b"), np.eye(2, dtype=int))
        checkpoint = replace(
            one,
            name=text,
            metrics={text: {text: 0.5}, "five": page_data.METRICS["five"]},
            confusions={"five": confusion},
            spaces={},
            examples={text: [example]},
        )
        data = replace(page.data, manifest=text) if page.data else None
        shown = Page(text, data, {text: {text: text}}, [text], [checkpoint], {text: scores}, page.controls, text, text)
        found = Parsed(render(shown))
        return found, [(name, sorted(given)) for name, given in found.elements]

    found, there = elements(hostile)
    assert there == elements("text")[1]
    assert found.text.count(hostile) > 25
    for kind, key in (("td", "title"), ("div", "aria-label"), ("img", "alt")):
        assert any(hostile in str(given.get(key)) for name, given in found.elements if name == kind), (kind, key)


def test_the_score_table_holds_the_metrics_of_the_report(page: Page, parsed: Parsed) -> None:
    rows = parsed.table("Scores by label")
    model = page.scores["zero_shot"].models[0]
    assert rows[0] == ["", "zero_shot"] and rows[1] == ["label", "positives", "negatives", "AUROC", "AUPRC"]
    for row, label in zip(rows[2:], model.labels, strict=False):
        shown = [cell(label.scores[m]) for m in ("auroc", "auprc") if label.scores[m].value is not None]
        assert row[:3] == [label.label, str(label.positives), str(label.negatives)]
        assert row[3:] == (shown or ["–a", "–a"] if label.label == "Only ones" else shown or ["–b", "–b"])
    averages = {average.name: average.scores for average in model.averages}
    assert [row[0].split()[0] for row in rows[7:]] == list(averages)
    in_mean = model.labels[1:3]
    counts = [f"≥ {min(part.positives for part in in_mean)}", f"≥ {min(part.negatives for part in in_mean)}"]
    assert rows[8][1:3] == [str(sum(part.positives for part in in_mean)), str(sum(part.negatives for part in in_mean))]
    assert rows[7] == ["macro over 2 labels", *counts, *(cell(averages["macro"][m]) for m in ("auroc", "auprc"))]


def test_a_metric_that_does_not_exist_has_its_reason(parsed: Parsed) -> None:
    assert "a 150 positives, 0 negatives. b 0 positives, 0 negatives. " in parsed.text
    titles = [given.get("title") for name, given in parsed.elements if name == "td"]
    assert "150 positives, 0 negatives" in titles


def test_other_tables_hold_their_metrics(page: Page, parsed: Parsed) -> None:
    model, control = page.scores["zero_shot"].models
    label = model.labels[1]
    assert parsed.table("AUROC of zero_shot")[0][3:] == ["zero_shot", "shuffled images"]
    assert parsed.table("AUROC of zero_shot")[2][3:] == [
        cell(part.labels[1].scores["auroc"]) for part in (model, control)
    ]
    row = parsed.table("Decisions of zero_shot")[2]
    assert label.confusion is not None and row[:6] == ["Edema", "0.5000", *map(str, label.confusion.values())]
    assert row[6] == cell(label.scores["f1"])
    assert parsed.table("Errors of the scores")[2][1:5] == [
        str(label.positives),
        str(label.negatives),
        "–",
        cell(label.scores["brier"]),
    ]
    group = model.groups[0]
    assert parsed.table("Averages over 2 labels by sex")[1][:3] == ["F", str(group.images), str(group.patients)]
    in_group = group.labels[1]
    shown = f"{cell(in_group.scores['auroc'])} ({in_group.positives}/{in_group.negatives})"
    assert parsed.table("AUROC of each label by sex")[2][1] == shown
    one = page.scores["zero_shot"].comparisons[1]
    row = ["shuffled images − run", one.label, "AUROC", str(one.positives), str(one.negatives), cell(one.difference)]
    row += [f"{one.p:.4f}", f"{one.p_holm:.4f}"]
    assert row in parsed.table("Controls of zero_shot")
    assert parsed.table("Mean AUROC of zero_shot")[1] == ["zero_shot", "0.800", "0.700", "0.450"]
    assert parsed.table("One class")[1] == ["five", "8", "0.625", "0.500", "0.610", "0.600"]
    assert parsed.table("Images of five")[1:] == [["Edema", "3", "1", "0.750"], [page_data.MARKUP, "2", "2", "0.500"]]
    rows = parsed.table("Retrieval")
    assert rows[1] == ["image -> text R@1", "0.110 [0.050, 0.200]", "0.020", "40", "50"]
    assert rows[5] == ["image -> text P@5", "0.400", "0.200", "–", ""] and len(rows) == 11
    assert parsed.table("Metrics that no other")[1:] == [["loss/total", "3.2500"]]


def test_totals_words_and_shades_are_told_apart(html: str, parsed: Parsed) -> None:
    def of_class(name: str, kind: str) -> list[dict[str, str | None]]:
        return [given for element, given in parsed.elements if element == name and given.get("class") == kind]

    assert len(of_class("th", "first")) == 4, "one line a table: scores, prompts, controls, labels by group"
    rows = len(parsed.table("Controls of zero_shot")) - 1
    assert len(of_class("th", "left")) == 2 and len(of_class("td", "left")) == 2 * rows
    assert all(f'<th scope="col" class="left">{head}</th>' in html for head in ("over", "metric"))
    missing = of_class("td", "none")
    assert missing and all(given["title"] for given in missing)
    shades = [(given["title"], given["style"]) for given in of_class("td", "shade")]
    assert shades[:2] == [
        ("75% of the images of Edema", "background:rgb(0 92 148/0.75);color:#fff"),
        ("25% of the images of Edema", "background:rgb(0 92 148/0.25);color:#000"),
    ]
    assert len(shades) == 4


def test_the_image_of_an_example_is_shown(html: str, parsed: Parsed) -> None:
    (data,) = [g["src"] for name, g in parsed.elements if name == "img" and g["alt"] == "Image p1/a.png"]
    picture = Image.open(io.BytesIO(base64.b64decode(str(data).split(",")[1])))
    assert np.array_equal(np.asarray(picture), np.round(page_data.FILM.numpy() / 63 * 255))
    assert ("span", {"class": "wrong"}) in parsed.elements
    assert "rank 3" in parsed.text and "its own text" in parsed.text and "0.500 clear" in parsed.text


def test_facts_warnings_and_rules_are_shown(parsed: Parsed) -> None:
    warnings = [given for _, given in parsed.elements if given.get("role") == "note"]
    assert len(warnings) == 2 and "zero_shot: a note" in parsed.text
    for text in ("run/best.pt", "margin", "30 resamples of the", "python evaluate.py", "splits: [test]"):
        assert text in parsed.text


def test_pictures_and_tables_can_be_read_aloud(parsed: Parsed) -> None:
    pictures = [given for name, given in parsed.elements if name == "img"]
    assert len(pictures) >= 8 and all(given["alt"] for given in pictures)
    assert "trained (mean 0.310) and initial (mean 0.900)" in " ".join(str(given["alt"]) for given in pictures)
    sampled = " ".join(parsed.text.split())
    assert "8 images with exactly one of the labels, and the 4 texts of these." in sampled
    assert any("PCA, 2D, PCA, 3D" in str(given["alt"]) for given in pictures)
    boxes = [given["aria-label"] for name, given in parsed.elements if given.get("class") == "wide"]
    assert boxes == list(parsed.tables)
    scopes = {given.get("scope") for name, given in parsed.elements if name == "th"}
    assert scopes == {"col", "row", "colgroup"} and ("html", {"lang": "en"}) in parsed.elements


@pytest.mark.parametrize(
    ("without", "gone"),
    [
        ({"metrics": {}, "examples": {}}, ("prompts", "classes", "retrieval", "other")),
        ({"spaces": {}}, ("similarity", "space")),
        ({"training": ()}, ("training",)),
    ],
)
def test_sections_come_and_go_with_the_data(page: Page, without: dict[str, Any], gone: tuple[str, ...]) -> None:
    found = Parsed(render(replace(page, checkpoints=[replace(page.checkpoints[0], **without)])))
    assert found.sections() == [key for key in SECTIONS if key not in gone]


def test_sections_of_scores_need_scores(page: Page, parsed: Parsed) -> None:
    assert parsed.sections() == SECTIONS
    assert [given["href"] for name, given in parsed.elements if name == "a"] == [f"#{key}" for key in SECTIONS]
    found = Parsed(render(replace(page, scores={}, command="", config="")))
    assert found.sections() == [key for key in SECTIONS if key not in (*OF_SCORES, "settings")]


def test_predictions_of_any_origin_have_a_page() -> None:
    report = page_data.report("one", "two")
    shown = Parsed(render(of_scores(report)))
    assert shown.sections() == ["scored", "scores", "comparisons", "curves", "decisions", "groups"]
    assert shown.table("Scores by label")[0] == ["", "one", "two"]
    assert "p.csv: 12ab" in shown.text and "a note" in shown.text and RESEARCH_ONLY in shown.text
    averages = [row for row in shown.table("Averages") if row[0] == "two − one"]
    assert averages and averages[0][1:3] == ["macro", "AUROC"]


def test_several_checkpoints_are_named(page: Page) -> None:
    both = [page_data.checkpoint("run"), page_data.checkpoint("other")]
    shown = Parsed(render(replace(page, checkpoints=both, scores={"zero_shot": page_data.report("run", "other")})))
    assert shown.table("Scores by label")[0] == ["", "run / zero_shot", "other / zero_shot"]
    assert shown.table("Checkpoints")[:2] == [["", "run", "other"], ["checkpoint", "run/best.pt", "other/best.pt"]]
    assert [given for name, given in shown.elements if name == "details" and "open" in given] == [{"open": None}] * 3
    assert shown.text.count("Threshold: 0.5 (given). Calibration: none: scores as given.") == 2
    assert [row[0] for row in shown.table("Retrieval")[1:] if "R@1" in row[0]] == [
        f"{name} / retrieval: {way} R@1" for name in ("run", "other") for way in ("image -> text", "text -> image")
    ]


def test_controls_have_no_prompt_families(page: Page) -> None:
    both = replace(page, checkpoints=[page_data.checkpoint("run"), page_data.checkpoint("other")], controls=["other"])
    assert [table.caption for table in prompt_tables(both)] == ["Mean AUROC of zero_shot by prompt family and reading"]


def test_a_note_of_all_evaluators_stands_there_once(page: Page) -> None:
    report = page.scores["zero_shot"]
    other = replace(report, notes=["a note", "another"])
    shown = Parsed(render(replace(page, scores={"zero_shot": report, "pair": other}))).text
    assert shown.count("a note") == 1 and "pair: another" in shown and "pair: a note" not in shown


def test_models_on_other_images_say_so(page: Page) -> None:
    report = page_data.report("run")
    model = report.models[0]
    edema = replace(model.labels[1], positives=7, negatives=9)
    other = replace(report, models=[replace(model, labels=[edema])])
    shown = Parsed(render(replace(page, scores={"zero_shot": report, "five": other}, controls=())))
    assert shown.table("Scores by label")[3][-1].endswith("a") and "a of 7 positives and 9 negatives." in shown.text


def test_a_page_is_the_same_each_time(page: Page, html: str) -> None:
    assert render(page) == html


def test_a_checkpoint_holds_what_evaluators_return() -> None:
    scores = page_data.checkpoint().scores["zero_shot"]
    asked: list[int] = []
    facts = page_data.checkpoint().facts
    confusion = ClassConfusion(("a", "b"), np.eye(2))
    results = {
        "zero_shot": EvaluatorResult({"mean_auroc": 0.5}, scores=scores, held_out=scores),
        "five": EvaluatorResult({}, artifacts={"confusion": confusion}),
        "retrieval": EvaluatorResult({}, artifacts={"examples": lambda count: asked.append(count) or ["it"]}),
        "representation": EvaluatorResult({}, artifacts={"space": "space"}),
    }
    found = from_results("run", facts, results, training=[{"step": 1.0}])
    assert found.scores == {"zero_shot": scores} and found.examples == {"retrieval": ["it"]} and asked == [6]
    assert found.confusions == {"five": confusion} and found.metrics["zero_shot"] == {"mean_auroc": 0.5}
    assert found.spaces == {"representation": "space"}
    assert found.facts is facts and found.training == [{"step": 1.0}]


def test_training_lines_are_read_and_the_last_of_a_step_counts(tmp_path: Any) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read(file) == []
    lines = [
        *('{"step": 2, "train/loss": 3.0}', '{"step": 4, "train/loss": 2.0, "retrieval/image_to_text/r5": 0.5}'),
        *('{"step": 4, "train/loss": 2.5, "zero_shot/mean_auroc": null}', '{"step": 6, "tr'),
    ]
    file.write_text("\n".join(lines))
    found = panels(read(file))
    assert found["loss"] == {"train/loss": {2: 3.0, 4: 2.5}} and "mean AUROC" not in found
    assert found["recall, image → text"] == {"retrieval/image_to_text/r5": {4: 0.5}}
