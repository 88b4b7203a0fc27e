"""Points of all curves of a report, as one tidy table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.charts import report_charts

_COLUMNS = ("chart", "system", "kind", "policy", "x", "y", "low", "high")


def curve_table(comparison: Comparison) -> pd.DataFrame:
    """Return the points of all curves of a comparison, one in each row."""
    rows = []
    for chart in report_charts(comparison):
        for x, y in chart.guides:
            rows += [(chart.key, "", "guide", "", *at, np.nan, np.nan) for at in zip(x, y)]
        for curve in chart.curves:
            kind = "image-blind" if curve.dashed else "curve"
            rows += [
                (chart.key, curve.name, kind, "", x, y, np.nan, np.nan)
                for x, y in zip(curve.x, curve.y)
            ]
    return pd.DataFrame(rows, columns=list(_COLUMNS))
