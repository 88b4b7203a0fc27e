import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.report.summary_table import TableRow, summary_table, table_rows


def test_table_without_a_choice_has_the_summary_rows_that_a_system_has(comparison):
    (whole, at) = summary_table(comparison).groups
    titles = ["AUROC", "Average precision", "AP50 of the decided boxes"]
    assert [row[0] for row in whole.rows] == titles
    assert {"Sensitivity (recall)", "Specificity"} <= {row[0] for row in at.rows}


def test_without_a_threshold_table_and_cases_say_so_and_pictures_ask_for_images():
    truth, scores = [0, 0, 1, 1, 0, 1], {"A": [0.1, 0.2, 0.8, 0.7, 0.6, 0.9]}
    result = cxr_compare.compare(scores, truth=truth, replicates=100)
    assert [title for _, title in result.table.index] == ["AUROC", "Average precision"]
    assert "threshold" in summary_table(result.compared.comparison).lead
    with pytest.raises(InputError, match="threshold"):
        result.cases()
    with pytest.raises(InputError, match="images="):
        result.overlay(result.decisions["image_id"].iloc[0])
    at_half = cxr_compare.compare(scores, truth=truth, replicates=100, policy=["threshold=0.5"])
    accuracy = at_half.table.xs("Accuracy", level=1)["A"].iloc[0]
    assert accuracy.startswith("0.833")  # one of six is wrong
    assert at_half.cases()["image_id"].is_unique


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("presicion", "did you mean 'precision'"),
        ("auroc@max_f1", "'auroc' has no threshold"),
        ("recall@best", "unknown policy 'best'"),
    ],
)
def test_row_that_cannot_be_is_refused_with_what_to_write(wanted, says):
    with pytest.raises(InputError, match=says):
        table_rows([wanted])


def test_row_at_a_policy_without_a_figure_stays_and_is_a_dash(comparison):
    table = summary_table(comparison, [TableRow("recall", "youden")])
    assert {cell.text for cell in table.groups[0].rows[0][1:]} == {"–"}
