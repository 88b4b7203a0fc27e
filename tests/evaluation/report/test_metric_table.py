"""The table of all pairs of systems."""

import pytest

from cxr_compare.evaluation.report.metric_table import every_pair_table
from cxr_compare.evaluation.statistics.figure_text import p_value_text
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions


@pytest.fixture
def three(test_set, predict):
    systems = {
        name: predict(name, seed=seed, skill=skill)
        for name, seed, skill in (("A", 1, 0.5), ("B", 2, 2.5), ("C", 3, 1.0))
    }
    return compare_predictions(systems, test_set, replicates=100)


def test_two_systems_have_no_table_of_pairs(comparison):
    assert every_pair_table(comparison) is None  # the main table has their difference


def test_every_pair_stands_with_holm_over_all_pairs(three):
    grid = every_pair_table(three)
    auroc = {row[1]: row for row in grid.rows if row[0] == "AUROC"}
    assert list(auroc) == ["A − B", "A − C", "B − C"]
    assert "over the 3 pairs" in grid.lead
    own = three.tests.query(
        "first == 'B' and second == 'C' and metric == 'auroc' and subgroup == 'all'"
    )
    expected = own.loc[own["method"].str.startswith("Obuchowski"), "p_holm_pairs"].item()
    assert auroc["B − C"][3] == p_value_text(expected)
