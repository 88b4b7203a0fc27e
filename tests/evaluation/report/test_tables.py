"""The tables of paired differences: which interval decides, and every pair."""

import pytest

from evaluation.compare.compare import compare_systems
from evaluation.report.tables import _difference_tests, _every_pair, _p_words


@pytest.fixture
def three(test_set, predict):
    systems = {name: predict(name, seed=seed, skill=skill)
               for name, seed, skill in (("A", 1, 0.5), ("B", 2, 2.5), ("C", 3, 1.0))}  # fmt: skip
    return compare_systems(systems, test_set, replicates=100)


def test_comparison_without_tests_shows_none(comparison):
    assert _difference_tests(comparison) is None
    assert _every_pair(comparison) is None  # two systems: the main table has their difference


def test_of_two_intervals_of_one_difference_it_is_said_which_decides(three):
    grid = _difference_tests(three)
    auroc = [row for row in grid.rows if row[:2] == ("AUROC", "A − B")]
    assert len(auroc) == 3  # Obuchowski's, DeLong's, the bootstrap's
    (decides,) = [row for row in auroc if row[2].endswith("(decides)")]
    assert decides[2].startswith("Obuchowski 1997")
    gap = three.metrics.query("system == 'A - B' and metric == 'auroc' and subgroup == 'all'")
    assert decides[3].startswith(f"{gap['estimate'].iloc[0]:.3f}".replace("-", "−"))
    assert "decide" in grid.lead
    recall = [row[2] for row in grid.rows if row[:2] == ("Sensitivity (recall), best F1", "A − B")]
    assert [method.endswith("(decides)") for method in recall] == [True, False, False]
    assert "refitted" in recall[0]
    assert not [row for row in grid.rows if row[0].startswith("F1")]  # it has one test only
    assert {row[1] for row in grid.rows} == {"A − B", "A − C", "B − C"}


def test_every_pair_stands_with_holm_over_all_pairs(three):
    grid = _every_pair(three)
    auroc = {row[1]: row for row in grid.rows if row[0] == "AUROC"}
    assert list(auroc) == ["A − B", "A − C", "B − C"]
    assert "over the 3 pairs" in grid.lead
    own = three.tests.query(
        "first == 'B' and second == 'C' and metric == 'auroc' and subgroup == 'all'"
    )
    expected = own.loc[own["method"].str.startswith("Obuchowski"), "p_holm_pairs"].item()
    assert auroc["B − C"][3] == _p_words(expected)
