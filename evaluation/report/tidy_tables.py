"""Tables of a result: tidy, typed, and checked against the schemas of their files."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.contracts.tables import empty_table, typed_table
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.unknown_patients import image_worded_table


def tidy_table(comparison: Comparison, name: str) -> pd.DataFrame:
    """Return one of the five tables of a comparison in the types of its file.

    They are ``figures`` (by image, then by study or patient), ``tests``, ``groups``, ``decisions``
    and ``curves``.
    """
    if name == "figures":
        table = comparison.metrics
        if comparison.by_unit is not None:
            table = pd.concat([table, comparison.by_unit.table()], ignore_index=True)
    elif name == "tests":
        table = comparison.tests_with_holm.reset_index(drop=True)
    elif name == "groups":
        table = comparison.groups.infer_objects()
    elif name == "decisions":
        table = comparison.decisions
        if not comparison.patients_known:  # the column then holds ids of images
            table = table.drop(columns="patient_id", errors="ignore")
    else:
        from cxr_compare.evaluation.report.curves import curve_table  # resamples for the bands

        table = curve_table(comparison)
    if table.empty:
        return empty_table(name)
    if name in ("figures", "tests", "groups") and not comparison.patients_known:
        table = image_worded_table(table, comparison.names)
    return typed_table(table, name)
