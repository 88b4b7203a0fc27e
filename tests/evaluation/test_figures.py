"""Typed figures and the tidy table say the same, whichever way a difference is taken."""

import numpy as np
import pytest

from cxr_compare.evaluation.figures import (
    COLUMNS,
    Figure,
    Figures,
)
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey

AUROC = MetricKey(ALL, "", "auroc")
COUNTS = {"n_images": 9, "n_patients": 7, "n_positive": 3}


def figure(estimate, **rest):
    return Figure(
        estimate, estimate - 0.1, estimate + 0.2, method="exact (Clopper-Pearson)", kind="exact",
        **COUNTS, **rest,
    )  # fmt: skip


@pytest.fixture
def figures():
    gap = figure(0.1, interval_at=lambda level: {0.95: (0.0, 0.3), 0.975: (-0.05, 0.35)}[level])
    threshold = MetricKey(ALL, "max_f1", "threshold")
    undefined = Figure(note="no image is called positive", **COUNTS)
    return Figures(
        "opacity",
        "image",
        ("A - 1", "B"),
        {
            ("A - 1", ""): {threshold: figure(0.7), AUROC: figure(0.9)},
            ("B", ""): {AUROC: figure(0.8), MetricKey(ALL, "max_f1", "precision"): undefined},
            ("A - 1", "B"): {AUROC: gap},
        },
    )


def test_table_holds_every_figure_and_thresholds_at_its_end(figures):
    table = figures.table()
    assert list(table) == list(COLUMNS)
    assert table["first"].tolist() == ["A - 1", "B", "B", "A - 1", "A - 1"]
    assert table["second"].tolist() == ["", "", "", "B", ""]
    assert table["metric"].tolist()[-1] == "threshold"
    row = table.iloc[2]
    assert np.isnan(row["estimate"])
    assert (row["note"], row["n_patients"]) == ("no image is called positive", 7)


def test_table_gives_the_same_figures_again_also_of_names_with_a_dash(figures):
    again = Figures.from_table(figures.table())
    assert again.systems == figures.systems
    for names, each in figures.rows.items():
        assert {key: repr(held) for key, held in each.items()} == {
            key: repr(held) for key, held in again.rows[names].items()
        }
    assert again.of("A - 1", "B")[AUROC].kind == "exact"
    assert (again.target, again.unit) == ("opacity", "image")


def test_difference_is_the_same_either_way_round(figures):
    one, other = (
        figures.difference("A - 1", "B", "auroc"),
        figures.difference("B", "A - 1", "auroc"),
    )
    assert (other.estimate, other.ci_low, other.ci_high) == (
        -one.estimate,
        -one.ci_high,
        -one.ci_low,
    )
    assert (other.within(2).ci_low, other.within(2).ci_high) == (-0.35, 0.05)
    assert other.within(1) == other
    of_table = Figures.from_table(figures.table()).difference("A - 1", "B", "auroc")
    assert not of_table.within(2).bounded, "a table does not hold the wider intervals"
    assert not figures.difference("B", "C", "auroc").known
