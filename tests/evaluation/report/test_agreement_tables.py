"""Images that both, one or none of two systems decide right."""

import pandas as pd

from cxr_compare.evaluation.report.agreement_tables import agreement_tables


def test_agreement_counts_every_image_once(comparison):
    (grid,) = agreement_tables(comparison, "max_f1")
    rows = {row[0]: tuple(map(int, row[1:])) for row in grid.rows}
    # hand-counted from the twelve images; p05 and p06 are right as images, whatever the place
    assert rows == {
        "Both right": (3, 4, 7),
        "Only RetinaNet right": (1, 1, 2),
        "Only CheXNet right": (1, 1, 2),
        "Both wrong": (1, 0, 1),
    }


def test_undecided_system_has_no_agreement(comparison):
    called = comparison.decisions["system"] == "CheXNet"
    comparison.decisions.loc[called, "decision_max_f1"] = pd.NA
    assert agreement_tables(comparison, "max_f1") == []
    assert agreement_tables(comparison, "no such policy") == []
