"""Tables of metrics: the p-values of differences."""

from dataclasses import replace

import pytest
from cxr_compare.evaluation.report.latex_table import latex_table
from cxr_compare.evaluation.report.markdown_table import markdown_table

from cxr_compare.evaluation.report.metric_table import metric_table
from cxr_compare.evaluation.report.summary_table import summary_table
from cxr_compare.evaluation.report.table import text_sections
from cxr_compare.evaluation.sources.stored_predictions import compare_predictions
from cxr_compare.evaluation.statistics.figure_text import p_value_text


@pytest.fixture
def three(test_set, predict):
    systems = {
        name: predict(name, seed=seed, skill=skill)
        for name, seed, skill in (("A", 1, 0.5), ("B", 2, 2.5), ("C", 3, 1.0))
    }
    return compare_predictions(systems, test_set, replicates=100)


def test_difference_has_the_p_value_of_its_own_test_not_adjusted(three):
    table = metric_table(three)
    (auroc,) = [row for row in table.rows if row[0] == "AUROC" and row[1].known][:1]
    tests = three.tests.query("metric == 'auroc' and subgroup == 'all' and first == 'A'")
    tests = tests[tests["method"].str.startswith("Obuchowski")].set_index("second")
    expected = [p_value_text(tests.loc[name, "p_value"]) for name in ("B", "C")]
    assert [cell.p_value for cell in auroc[4:]] == expected
    assert not any(cell.p_value for cell in auroc[1:4])  # systems have none


def test_p_value_of_a_subgroup_is_that_of_its_own_images(three):
    groups = {group.title: group for group in metric_table(three).groups}
    (title,) = [title for title in groups if title.startswith("Against normal")]
    tests = three.tests.query("metric == 'auroc' and subgroup == 'vs_normal' and second == 'B'")
    expected = tests.loc[tests["method"].str.startswith("Obuchowski"), "p_value"].item()
    (row,) = [row for row in groups[title].rows if row[0] == "AUROC"]
    assert row[4].p_value == p_value_text(expected)


def test_texts_have_a_column_of_p_values_after_each_difference(three):
    table = summary_table(three)
    assert table.text_heads[1:] == ("A", "B", "C", "A − B", "p", "A − C", "p")
    rows = [row for section in text_sections(table) for row in section.rows]
    assert {len(row) for row in rows} == {8}
    assert rows[0][5] == table.rows[0][4].p_value


def test_a_note_of_many_figures_is_written_once_below_the_table(comparison):
    for number, figures in enumerate(comparison.figures.systems.values()):
        for count, (key, figure) in enumerate(figures.items()):
            note = f"undefined in {number + 2 * count + 1} of 2000 resamples, left out"
            figures[key] = replace(figure, note=note)
    table = summary_table(comparison)
    assert list(table.footnotes.values()) == ["a"]
    for text in (markdown_table(comparison, table), latex_table(comparison, table)):
        assert text.count("undefined in") == 1
        n_cells = sum(cell.note != "" for row in table.rows for cell in row[1:])
        assert text.count("[a]") == n_cells + 1
