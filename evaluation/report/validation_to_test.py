"""Table of the rates at each chosen threshold, on validation and on test images."""

from __future__ import annotations

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.groups.validation_to_test import VALIDATION
from cxr_compare.evaluation.report.failure_rows import first_interval
from cxr_compare.evaluation.report.table import Table, figure_text
from cxr_compare.evaluation.report.templates import TABLES, sentence

_RATES = (("recall", "Sensitivity"), ("specificity", "Specificity"), ("accuracy", "Accuracy"))
_OUTSIDE = " ▲"


def validation_to_test_table(comparison: Comparison) -> Table | None:
    """Return a table of sensitivity, specificity and accuracy on validation and on test images.

    The thresholds were chosen on validation images. Beside each value on test images the table has
    the range that was to be expected from the value on validation images.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The table, with one row for each system and rule for the threshold, and two columns for each
        of the three metrics. A value on test images outside its expected range is marked ▲. None if
        no threshold was chosen.
    """
    failures = comparison.failures
    if failures.empty:
        return None
    failures = failures[failures["topic"] == VALIDATION]
    rows = []
    for (system, policy), figures in failures.groupby(["system", "policy"], sort=False):
        cells = []
        for metric, _ in _RATES:
            of_metric = figures[figures["metric"] == metric]
            validation = first_interval(of_metric[of_metric["group"] == "validation"])
            test = first_interval(of_metric[of_metric["group"] == "test"])
            outside = test.bounded and not test.ci_low <= test.estimate <= test.ci_high
            cells.append(figure_text(validation))
            cells.append(figure_text(test) + (_OUTSIDE if outside else ""))
        rows.append((sentence("transfer_row", system, str(policy), template=TABLES), *cells))
    if not rows:
        return None
    columns = ["System"]
    for _, title in _RATES:
        columns += [f"{title} on validation", f"{title} on test (expected)"]
    return Table.from_rows(
        sentence("transfer_title", template=TABLES),
        sentence("transfer_lead", template=TABLES),
        columns,
        rows,
    )
