"""The table of validation rates beside test rates."""

from dataclasses import replace

import numpy as np
import pandas as pd

from cxr_compare.evaluation.groups.validation_to_test import VALIDATION
from cxr_compare.evaluation.report.validation_to_test import validation_to_test_table


def test_rates_on_validation_stand_beside_test_and_what_is_outside_is_marked(comparison):
    row = {"topic": VALIDATION, "system": "CheXNet", "policy": "max_f1", "note": ""}
    figures = (
        ("recall", 1.0, (0.9, 0.8, 1.0)),
        ("specificity", 0.75, (0.4, 0.5, 0.9)),
        ("accuracy", 0.833, (0.7, np.nan, np.nan)),
    )
    rows = []
    for metric, validation, (test, low, high) in figures:
        rows.append(row | {"metric": metric, "group": "validation", "estimate": validation})
        ends = {"ci_low": low, "ci_high": high}
        rows.append(row | {"metric": metric, "group": "test", "estimate": test, **ends})
    table = validation_to_test_table(replace(comparison, failures=pd.DataFrame(rows)))
    assert table.rows[0] == (
        "CheXNet, threshold for best F1",
        "1.000",
        "0.900 (0.800 to 1.000)",
        "0.750",
        "0.400 (0.500 to 0.900) ▲",
        "0.833",
        "0.700",
    )


def test_a_system_without_validation_images_is_left_out(comparison):
    assert validation_to_test_table(comparison) is None
