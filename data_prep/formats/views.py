"""Names of the projection (PA, AP, lateral) in published tables."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.contracts.ids import renamed
from cxr_compare.data_prep.contracts.text import TEXT

VIEW_NAMES = {
    "PA": "PA",
    "AP": "AP",
    "AP SUPINE": "AP",
    "LL": "LL",
    "RL": "LL",
    "LATERAL": "LL",
    "L": "LL",
}


def normal_views(text: pd.Series) -> pd.Series:
    """Translate names of the projection to PA, AP, LL (lateral) or other.

    An empty name becomes missing.

    Args:
        text: Names as a published table writes them, such as ``ap supine``.

    Returns:
        ``PA``, ``AP``, ``LL``, ``other`` or missing, one for each name.

    Example:
        >>> normal_views(pd.Series(["ap supine", "Lateral", "oblique"])).tolist()
        ['AP', 'LL', 'other']
    """
    upper = text.fillna("").astype(TEXT).str.strip().str.upper()
    return renamed(upper, {name: VIEW_NAMES.get(name, "other") for name in upper.unique() if name})
