"""Tables and charts of groups, lesions, errors and shortcuts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxr_compare.evaluation.groups.shares import FAILURE_COLUMNS, TOO_FEW
from cxr_compare.evaluation.report.case_selection import disagreement
from cxr_compare.evaluation.report.curves import curve_table
from cxr_compare.evaluation.report.failure_tables import (
    corrections_table,
    disagreement_table,
    error_kinds_table,
    group_tables,
    groups_lead,
    lesion_table,
    no_groups_text,
)
from cxr_compare.evaluation.report.folded_tables import folded_tables
from cxr_compare.evaluation.verdict.verdict_parts import JointSystem
from tests.compared import compare_predictions


@pytest.fixture
def failures_of_two(comparison):
    """Add invented figures to a comparison: a group, a kind of lesion, a kind of error, a curve."""

    def row(topic, group, system, metric, estimate, of=9.0):
        p = (0.01, 0.2) if group.endswith("rest") else (np.nan, np.nan)
        return (
            topic,
            group,
            system,
            "",
            metric,
            estimate,
            estimate - 0.1,
            estimate + 0.1,
            "b",
            1.0,
            of,
            9,
            "",
            *p,
        )

    rows = []
    for name, shift in (("RetinaNet", 0.0), ("CheXNet", 0.1), ("RetinaNet - CheXNet", -0.7)):
        rows += [
            row("sex", "F", name, "recall", 0.6 + shift),
            row("sex", "not F", name, "recall", 0.3 + shift),
            row("sex", "F - rest", name, "recall", 0.25 + shift),
            row("errors", "", name, "missed", 0.4 + shift),
            row("lesions by lesion_size", "over 6 %", name, "lesion_recall", 0.7 + shift, 15.0),
            row("lesions by lesion_size", "up to 2 %", name, "lesion_recall", 0.2 + shift, 13.0),
            row("lesions by third", "lower", name, "lesion_recall", 0.0, 9.0),
        ]
    rows += [
        row("shortcut", "view", "shortcut", "auroc", 0.69),
        row("beyond shortcut", "view", "RetinaNet", "auroc", 0.2),
    ]
    table = pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))
    return replace(comparison, compute_groups=lambda: table)


def net_benefit(comparison):
    table = curve_table(comparison)
    return table[table["chart"] == "net-benefit"]


def groups_of(comparison):
    """The rows of the only table of groups."""
    (table,) = group_tables(comparison)
    return table.frame.T.to_dict("list")


def test_a_group_that_is_shown_to_differ_is_marked_and_the_rest_is_no_group(failures_of_two):
    figures = ["0.600 (0.500 to 0.700)", "0.700 (0.600 to 0.800)", "9"]
    failures = failures_of_two.groups
    failures["policy"] = "max_f1"
    assert groups_of(failures_of_two) == {"Sex: F": figures}
    gap = (failures["group"] == "F - rest") & (failures["system"] == "CheXNet")
    failures.loc[gap, "p_holm"] = 0.04
    assert groups_of(failures_of_two)["Sex: F"] == [figures[0], f"● {figures[1]}", "9"]
    failures.loc[gap, "ci_low"] = -0.003  # p of another method does not show it alone
    assert groups_of(failures_of_two) == {"Sex: F": figures}


def test_lead_of_groups_counts_the_tests(failures_of_two):
    lead = groups_lead(failures_of_two)
    assert "over all 3 tests" in lead
    failures = failures_of_two.groups
    gaps = failures["p_holm"].notna()
    failures.loc[gaps, "p_holm"] = float("nan")
    assert "Holm" not in groups_lead(failures_of_two)


def test_two_groups_have_one_difference_for_both(failures_of_two):
    failures = failures_of_two.groups
    failures.loc[failures["group"] == "not F", ["group", "estimate"]] = "M", 0.9
    failures.loc[failures["group"] == "F - rest", ["group", "p_holm"]] = "M - rest", 0.01
    rows = groups_of(failures_of_two)
    assert all(row[0].startswith("● ") for row in rows.values())
    assert list(rows) == ["Sex: F", "Sex: M"]


def test_a_group_of_too_few_patients_shows_its_counts(failures_of_two):
    failures = failures_of_two.groups
    few = (failures["group"] == "F") & (failures["system"] == "RetinaNet")
    failures.loc[few, ["ci_low", "ci_high", "note"]] = np.nan, np.nan, TOO_FEW
    failures.loc[few, ["count", "of"]] = 3.0, 4.0
    gap = (failures["group"] == "F - rest") & (failures["system"] == "RetinaNet")
    failures.loc[gap, ["ci_low", "ci_high", "p_holm", "of", "note"]] = (
        np.nan,
        np.nan,
        np.nan,
        np.nan,
        TOO_FEW,
    )
    assert groups_of(failures_of_two)["Sex: F"][0] == "3 of 4"


def test_small_lesions_come_before_large_ones_and_few_have_no_row(failures_of_two):
    frame = lesion_table(failures_of_two).frame
    assert list(frame.index) == ["Lesion size: up to 2 %", "Lesion size: over 6 %"]
    first = frame.loc["Lesion size: up to 2 %"]
    assert (first["RetinaNet"], first["Lesions"]) == ("0.200 (0.100 to 0.300)", "13")


def test_lesions_have_no_column_of_a_joint_system_and_one_size(failures_of_two, monkeypatch):
    monkeypatch.setattr(type(failures_of_two), "joint", JointSystem("CheXNet", ("A", "B")))
    table = failures_of_two.groups
    sizes = table[table["topic"] == "lesions by lesion_size"]
    in_mm = sizes.assign(topic="lesions by lesion_size_mm", group="over 60 mm")
    both = replace(failures_of_two, compute_groups=lambda: pd.concat([table, in_mm]))
    frame = lesion_table(both).frame
    assert list(frame.columns) == ["RetinaNet", "Lesions"]
    assert list(frame.index) == ["Lesion size: over 60 mm"]


def test_largest_disagreements_are_the_ids_that_differ_most_in_rank(comparison):
    gaps = disagreement(comparison.decisions, comparison.names)
    ids = list(disagreement_table(comparison).frame.index)
    assert len(ids) == 10
    assert gaps[ids[0]] == max(gaps.values())
    assert min(gaps[image_id] for image_id in ids) >= sorted(gaps.values())[-10]
    alone = replace(comparison, systems={"RetinaNet": comparison.systems["RetinaNet"]})
    assert disagreement_table(alone) is None


def test_ids_that_the_program_gave_are_explained(comparison):
    decisions = comparison.decisions
    numbers = {each: f"image-{n}" for n, each in enumerate(decisions["image_id"].unique(), 1)}
    renamed = decisions.assign(image_id=decisions["image_id"].map(numbers))
    numbered = replace(comparison, decisions=renamed)
    assert "numbered from 1" in disagreement_table(numbered).lead
    assert "numbered" not in disagreement_table(comparison).lead


def test_errors_and_corrections_count_every_image_once(comparison):
    # hand-counted from the twelve images; p05 and p06 are right as images, whatever the place
    errors = error_kinds_table(comparison).frame
    assert errors["Missed positive images"].tolist() == ["2 of 6 (33 %)"] * 2
    assert errors["False alarms"].tolist() == ["1 of 6 (17 %)"] * 2
    corrections = corrections_table(comparison).frame
    corrected = "2 (1 missed, 1 false alarm)"
    assert corrections.to_numpy().tolist() == [["3", "", corrected], ["3", corrected, ""]]


def test_undecided_system_corrects_nobody(comparison):
    called = comparison.decisions["system"] == "CheXNet"
    comparison.decisions.loc[called, "decision_max_f1"] = pd.NA
    assert corrections_table(comparison) is None


def test_shortcut_stands_beside_the_systems(failures_of_two):
    (table,) = folded_tables(failures_of_two)
    assert table.frame.loc["Predicted from view"].tolist() == ["0.690 (0.590 to 0.790)", ""]
    # The difference has a column of its own: it is no AUROC.
    figures = ["0.891 (0.851 to 0.921)", "0.200 (0.100 to 0.300)"]
    assert table.frame.loc["RetinaNet"].tolist() == figures


def test_errors_of_boxes_are_counts_with_intervals_and_those_not_counted_are_left_out(
    failures_of_two,
):
    frame = error_kinds_table(failures_of_two).frame
    # 0.4 and 0.5 of nine, each to 0.1 more
    assert frame["Lesions missed"].tolist() == ["4 (3 to 4)", "4 (4 to 5)"]
    assert "Duplicate boxes" not in frame


def test_comparison_without_these_figures_shows_none(comparison):
    assert group_tables(comparison) == []
    assert folded_tables(comparison) == []
    assert lesion_table(comparison) is None
    assert net_benefit(comparison).empty


def test_every_topic_of_a_real_comparison_is_shown(test_set, predict):
    systems = {"Detector": predict("det", "boxes"), "Classifier": predict("cls", maps=True)}
    compared = compare_predictions(systems, test_set, replicates=20)
    assert lesion_table(compared) is not None
    assert corrections_table(compared) is not None
    kinds = error_kinds_table(compared).frame
    counts = compared.groups.query("topic == 'errors'").set_index(["metric", "system"])["count"]
    missed = kinds.loc["Detector", "Lesions missed"]
    assert missed.startswith(f"{counts['missed', 'Detector']:.0f} (")
    background = kinds.loc["Classifier", "Boxes on background"]
    assert background.startswith(f"{counts['background', 'Classifier']:.0f} (")
    assert set(net_benefit(compared)["system"]) == {"Detector", "Classifier", ""}


@pytest.mark.parametrize(
    ("columns", "reasons"),
    [
        ({}, {"not known"}),
        ({"view": "PA"}, {"not known", "not vary"}),
        ({"view": "PA", "sex": "F", "age_years": 5.0}, {"not vary"}),
    ],
)
def test_the_page_says_why_there_are_no_groups(columns, reasons):
    text = no_groups_text(pd.DataFrame({"image_id": ["a", "b"]}).assign(**columns))
    assert {reason for reason in ("not known", "not vary") if reason in text} == reasons
