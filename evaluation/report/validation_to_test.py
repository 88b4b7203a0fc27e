"""Table of the rates at each chosen threshold, on validation and on test images."""

from __future__ import annotations

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.groups.validation_to_test import VALIDATION
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.report.failure_rows import first_interval
from cxr_compare.evaluation.report.table import Table, figure_text

_LEAD = (
    "Each threshold was chosen on validation images, where its rates look better than they "
    "are. In brackets: the range in which 95 % of test figures, all three at once, would lie "
    "if test patients were like validation patients. It comes from 1,000 random exchanges of "
    "validation and test patients, with the threshold chosen again each time. ▲ marks a "
    "figure outside its range: the test images differ from the validation images by more than "
    "chance explains."
)

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
        rows.append((f"{system}, threshold for {policy_text(str(policy))}", *cells))
    if not rows:
        return None
    columns = ["System"]
    for _, title in _RATES:
        columns += [f"{title} on validation", f"{title} on test (expected)"]
    return Table.from_rows(
        "From validation to test",
        _LEAD,
        columns,
        rows,
    )
