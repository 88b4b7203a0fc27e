"""Published figures beside those of a report."""

import re

from cxr_compare.evaluation.report.published_figures import published_figures, published_table


def test_published_figures_are_shown_only_with_related_data(comparison):
    assert published_table(comparison, {"vindr"}, "max_f1") is None
    grid = published_table(comparison, {"rsna"}, "max_f1")
    published = ["0.2547", "0.3272 (0.3006 to 0.3538)", "0.435 (0.387 to 0.481)"]
    assert [row[2] for row in grid.rows] == published
    f1 = grid.rows[-1]
    assert f1[3].startswith("0.760")  # RetinaNet's, at the threshold for best F1
    assert all(len(row) == len(grid.columns) for row in grid.rows)


def test_every_published_figure_has_a_source_and_a_reason_why_it_may_not_be_compared():
    for figure in published_figures():
        assert 0 < figure["value"] < 1
        assert re.search(r"doi 10\.\d{4,}/\S+|arXiv:\d{4}\.\d{5}|https://\S+", figure["source"]), (
            figure
        )
        assert len(figure["comparable"]) > 20
        assert len(figure["data"]) > 20
