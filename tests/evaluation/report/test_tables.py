"""Tables of metrics by their names, and nested figures."""

from __future__ import annotations

import json
import math

from cxrcl.evaluation.report import tables

RESULTS = {
    "zero_shot": {
        "auroc/Edema": 0.8125,
        "auroc/Pleural Effusion": math.nan,
        "mean_auroc": 0.8125,
        "positives/Edema": 12.0,
        "negatives/Edema": 30.0,
        "positives/Pleural Effusion": 0.0,
        "negatives/Pleural Effusion": 42.0,
        "auroc_low/Edema": 0.7,
        "auroc_high/Edema": 0.9,
        "auroc_low/Pleural Effusion": math.nan,
        "auroc_high/Pleural Effusion": math.nan,
        "mean_auroc_low": 0.75,
        "mean_auroc_high": 0.85,
        "mean_positives": 12.0,
        "mean_negatives": 30.0,
    },
    "pixel_ridge": {"auroc/Edema": 0.6, "mean_auroc": 0.6, "auprc/Edema": 0.3, "mean_auprc": 0.3},
    "retrieval": {
        **{f"image_to_text/{key}": value for key, value in {"r1": 0.25, "r5": 0.5, "r10": 1.0}.items()},
        **{f"image_to_text/chance_r{k}": k / 20 for k in (1, 5, 10)},
        "image_to_text/median_rank": 5.0,
        "image_to_text/mean_rank": 6.5,
        "image_to_text/gallery": 20.0,
        "image_to_text/queries": 16.0,
        "image_to_text/r1_low": 0.1,
        "image_to_text/r1_high": 0.4,
        "image_to_text/median_rank_low": 3.0,
        "image_to_text/median_rank_high": 8.0,
    },
    "loss": {"total": 2.34567},
}


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_one_row_a_label_with_intervals_and_one_column_an_evaluator() -> None:
    rows = cells(tables.label_table(RESULTS, "auroc").text())
    assert rows[0] == ["AUROC", "positives", "negatives", "zero_shot", "pixel_ridge"]
    assert rows[2] == ["Edema", "12", "30", "0.812 [0.700, 0.900]", "0.600"]
    assert rows[3] == ["Pleural Effusion", "0", "42", "-", "-"]
    assert rows[4] == ["mean", "≥ 12", "≥ 30", "0.812 [0.750, 0.850]", "0.600"]


def test_an_interval_that_is_withheld_is_said() -> None:
    few = {"auroc/Edema": 0.7, "mean_auroc": 0.7, "auroc_low/Edema": math.nan, "auroc_high/Edema": math.nan}
    text = tables.label_table({"zero_shot": {**few, "positives/Edema": 3, "negatives/Edema": 40}}, "auroc").text()
    assert cells(text)[2] == ["Edema", "3", "40", "0.700 (a)"] and "(a) too few patients" in text


def test_average_precision_has_a_table_and_intervals_of_its_own() -> None:
    probe = {"auprc/Edema": 0.4, "mean_auprc": 0.4, "auprc_low/Edema": 0.35, "auprc_high/Edema": 0.45}
    probe |= {"mean_auprc_low": 0.36, "mean_auprc_high": 0.44}
    rows = cells(tables.label_table({**RESULTS, "probe": probe}, "auprc").text())
    assert rows[0] == ["AUPRC", "positives", "negatives", "pixel_ridge", "probe"]
    assert rows[2][3:] == ["0.300", "0.400 [0.350, 0.450]"] and rows[3][3:] == ["0.300", "0.400 [0.360, 0.440]"]
    assert "AUPRC" in tables.tables(RESULTS)


def test_recall_stands_beside_its_chance_level_in_numerical_order() -> None:
    rows = cells(tables.retrieval_table(RESULTS).text())
    assert rows[0] == ["retrieval", "value", "chance", "queries", "of"]
    assert rows[2:] == [
        ["image -> text R@1", "0.250 [0.100, 0.400]", "0.050", "16", "20"],
        ["image -> text R@5", "0.500", "0.250", "16", "20"],
        ["image -> text R@10", "1.000", "0.500", "16", "20"],
        ["image -> text median rank", "5.0 [3.0, 8.0]", "", "16", "20"],
        ["image -> text mean rank", "6.5", "", "16", "20"],
    ]
    more = {"image_to_text/p5": 0.3, "image_to_text/chance_p": 0.2, "image_to_text/class_queries": 12.0}
    rows = cells(tables.retrieval_table({"a": {**RESULTS["retrieval"], **more}}).text())
    assert rows[-1] == ["a: image -> text P@5", "0.300", "0.200", "12", ""] and len(rows) == 8


def test_prompt_families_have_a_row_each_with_their_intervals() -> None:
    metrics = {"a/combined": 0.8, "a/combined_low": 0.7, "a/combined_high": 0.9, "a/affirmative": 0.6, "a/negated": 0.4}
    metrics |= {"over_prompts/mean": 0.8, "over_prompts/mean_low": 0.7, "over_prompts/mean_high": 0.9}
    (table,) = tables.family_tables({"own": metrics, "loss": {"total": 1.0}})
    rows = cells(table.text())
    assert rows[0] == ["prompts of own", "combined", "affirmative", "negated"]
    assert rows[2] == ["a", "0.800 [0.700, 0.900]", "0.600", "0.400"]
    assert rows[3] == ["mean over families", "0.800 [0.700, 0.900]", "", ""] and rows[4][1] == "-"
    (alone,) = tables.family_tables({"medclip": {"a/affirmative": 0.6, "over_prompts/mean": 0.6}})
    assert cells(alone.text())[0] == ["prompts of medclip", "affirmative"]
    assert "mean over families" in tables.tables({"own": {**metrics, "mean_auroc": 0.8}})


def test_bounds_stand_beside_their_metric() -> None:
    metrics = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "images": 40.0, "recall/Edema": 0.25}
    metrics |= {"recall_low/Edema": 0.1, "recall_high/Edema": 0.5, "too_low": 3.0}
    assert cells(tables.tables({"five": metrics}))[2:] == [
        ["five/accuracy", "0.5000 [0.4000, 0.6000]"],
        ["five/images", "40.0000"],
        ["five/recall/Edema", "0.2500 [0.1000, 0.5000]"],
        ["five/too_low", "3.0000"],
    ]


def test_a_label_that_begins_with_r_is_no_retrieval() -> None:
    text = tables.tables({"zero_shot": {"auroc/rib fracture": 0.7, "mean_auroc": 0.7}, "five": {"recall/rib": 0.5}})
    assert cells(text)[2] == ["rib fracture", "-", "-", "0.700"] and "R@" not in text
    assert "| five/recall/rib | 0.5000 |" in text


def test_what_fits_no_table_is_listed() -> None:
    assert cells(tables.tables(RESULTS).split("\n\n")[-1])[2:] == [["loss/total", "2.3457"]]


def test_lines_of_a_table_have_equal_length() -> None:
    for part in tables.tables(RESULTS).split("\n\n"):
        assert len({len(line) for line in part.splitlines()}) == 1


def test_several_models_have_a_row_each_and_are_named_elsewhere() -> None:
    text = tables.tables_of_several({"a": RESULTS, "b": {"zero_shot": {"mean_auroc": 0.5}, "loss": {"total": 1.0}}})
    means, retrieval, others = text.split("\n\n")
    assert cells(means)[0] == ["mean AUROC", "positives", "negatives", "zero_shot", "pixel_ridge"]
    assert cells(means)[2:] == [["a", "≥ 12", "≥ 30", "0.812 [0.750, 0.850]", "0.600"], ["b", "", "", "0.500", "-"]]
    assert cells(retrieval)[2][0] == "a / retrieval: image -> text R@1"
    assert cells(others)[2:] == [["a / loss/total", "2.3457"], ["b / loss/total", "1.0000"]]
    assert tables.tables_of_several({"a": {}, "b": {}}) == ""


def test_a_table_without_rows_is_left_out() -> None:
    only = tables.tables({"loss": {"total": 1.0}})
    assert only.startswith("| metric") and "\n\n" not in only
    assert tables.tables({}) == ""


def test_metrics_nest_at_the_slash_and_nan_is_null() -> None:
    tree = tables.nested(RESULTS)
    assert tree["zero_shot"]["auroc"] == {"Edema": 0.8125, "Pleural Effusion": None}
    assert tree["zero_shot"]["mean_auroc"] == 0.8125
    assert tree["retrieval"]["image_to_text"]["r5"] == 0.5
    assert tree["loss"] == {"total": 2.34567}
    json.dumps(tree, allow_nan=False)
