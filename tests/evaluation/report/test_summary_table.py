import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.report.summary_table import TableRow, summary_table, table_rows


def test_table_without_a_choice_has_the_summary_rows_that_a_system_has(comparison):
    (whole, at) = summary_table(comparison).groups
    assert [row[0] for row in whole.rows] == ["AUROC", "Average precision"]
    assert {"Sensitivity (recall)", "Specificity"} <= {row[0] for row in at.rows}


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
