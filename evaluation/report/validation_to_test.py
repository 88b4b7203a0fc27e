"""Rates at each chosen threshold on validation and on test images."""

from __future__ import annotations

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.shares import VALIDATION
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.report.failure_rows import first_interval
from cxr_compare.evaluation.report.table import Table, figure_words
from cxr_compare.evaluation.report.templates import sentence

_RATES = (("recall", "Sensitivity"), ("specificity", "Specificity"), ("accuracy", "Accuracy"))


_OUTSIDE = " ▲"


_ROLES = ("validation", "test")


def validation_to_test_table(comparison: Comparison) -> Table | None:
    """The rates at each chosen threshold on validation and on test; None without any."""
    table = comparison.failures
    table = table[table["topic"] == VALIDATION] if len(table) else table
    rows = []
    groups = table.groupby(["system", "policy"], sort=False) if len(table) else ()
    for (system, policy), of in groups:
        cells = []
        for metric, _ in _RATES:
            of_metric = of[of["metric"] == metric]
            then, now = (first_interval(of_metric[of_metric["group"] == on]) for on in _ROLES)
            outside = now.bounded and not now.low <= now.estimate <= now.high
            cells += [figure_words(then), figure_words(now) + (_OUTSIDE if outside else "")]
        rows.append((f"{system}, threshold for {policy_text(str(policy))}", *cells))
    heads = ("on validation", "on test (expected)")
    on = [f"{title} {head}" for _, title in _RATES for head in heads]
    transfer = Table.of("Validation-to-test transfer", sentence("transfer"), ("System", *on), rows)
    return transfer if rows else None
