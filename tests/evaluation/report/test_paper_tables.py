"""Tables and figures of a report for a paper."""

from cxr_compare.evaluation.report.latex_table import latex_table
from cxr_compare.evaluation.report.markdown_table import markdown_table
from cxr_compare.evaluation.report.summary_table import summary_table, table_rows


def test_both_tables_hold_accuracy_precision_recall_f1_and_auroc_unasked(comparison):
    table = summary_table(comparison)
    wanted = {"Accuracy", "Precision", "Sensitivity (recall)", "Specificity", "F1", "AUROC"}
    assert wanted | {"Average precision"} <= set(rows_of(latex_table(comparison, table)))
    assert all(f"| {row} | 0." in markdown_table(comparison, table) for row in wanted)


def rows_of(text):
    return [line.split(" & ")[0] for line in text.splitlines() if " & 0." in line]


def test_table_holds_the_rows_that_were_asked_for_in_their_order(comparison):
    rows = table_rows(["f1", " recall", "auroc", "f1"])
    text = latex_table(comparison, summary_table(comparison, rows))
    assert rows_of(text) == ["F1", "Sensitivity (recall)", "AUROC"]
