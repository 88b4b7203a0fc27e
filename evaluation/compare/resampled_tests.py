"""Tests by the bootstrap of every paired difference, and what several contrasts are adjusted by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from evaluation.metrics.evaluation_set import Figure
from evaluation.statistics.auroc_variance import smallest_detectable
from evaluation.statistics.bca import Resampled
from evaluation.statistics.bootstrap import BOOTSTRAP, LEVEL
from evaluation.statistics.mcnemar import holm
from evaluation.statistics.ranking import Floats

TEST_COLUMNS = (
    "target", "unit", "subgroup", "policy", "metric", "first", "second", "method", "independent",
    "estimate", "ci_low", "ci_high", "ci_low_all", "ci_high_all", "standard_error", "p_value",
    "p_holm", "p_holm_pairs", "detectable", "first_only", "second_only", "n_images", "n_patients",
    "note",
)  # fmt: skip
_FAMILY = ["unit", "subgroup", "policy", "metric", "method"]
_NUMBERS = (
    "ci_low", "ci_high", "ci_low_all", "ci_high_all", "standard_error", "p_value", "p_holm",
    "p_holm_pairs", "detectable", "first_only", "second_only",
)  # fmt: skip


def percentile_p(replicates: Floats) -> float | None:
    """Two-sided p-value of a difference of 0, from the bootstrap's replicates of it.

    Twice the share of replicates on the smaller side of 0, those at 0 on both sides; 1 is added
    to both counts, so that no number of replicates gives a p-value of 0.

    Args:
        replicates: Shape ``(R,)``; NaN where the difference was undefined.

    Returns:
        At most 1; `None` where no replicate is defined.

    Source:
        Efron and Tibshirani 1993, section 15.4 and 16.4; Davison and Hinkley 1997, section 4.2.

    Example:
        >>> round(percentile_p(np.r_[np.full(999, 0.2), -0.1]), 4)
        0.004
    """
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return None
    smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(defined) + 1))


def simultaneous_level(n_systems: int) -> float:
    """Coverage of each interval, so that all contrasts with the reference hold in 95 % of cases.

    Args:
        n_systems: With the reference.

    Source:
        Bonferroni's inequality.

    Example:
        >>> simultaneous_level(2), simultaneous_level(3)
        (0.95, 0.975)
    """
    return 1 - (1 - LEVEL) / max(n_systems - 1, 1)


def resampled_tests(
    metrics: pd.DataFrame,
    systems: Sequence[str],
    differences: Mapping[tuple[str, Figure], Resampled],
) -> pd.DataFrame:
    """Test every paired difference that the bootstrap has replicates of.

    Args:
        metrics: The tidy table with the bootstrap's intervals.
        systems: Display names, the reference first.
        differences: By ``A - B`` and figure.

    Returns:
        The columns of `TEST_COLUMNS`, before `adjusted`. A difference without an interval has no
        p-value either. Of AUROC a row of each system, too, to hold Obuchowski's against.
    """
    pairs = {f"{first} - {second}": (first, second) for first, second in combinations(systems, 2)}
    level = simultaneous_level(len(systems))
    rows = []
    for row in metrics.to_dict("records"):
        name = row["system"]
        alone = name in systems and row["metric"] == "auroc"
        if not (alone or name in pairs) or pd.isna(row["estimate"]):
            continue
        first, second = pairs.get(name, (name, ""))
        described = {key: row[key] for key in _TAKEN}
        method = str(row["ci_method"]).partition(",")[0] or BOOTSTRAP
        described |= {"first": first, "second": second, "independent": "patients", "method": method}
        figure = Figure(row["subgroup"], row["policy"], row["metric"])
        drawn = differences.get((name, figure))
        if drawn is not None and not pd.isna(row["ci_low"]):
            error = float(np.nanstd(drawn.drawn, ddof=1))
            described |= {
                "standard_error": error,
                "p_value": percentile_p(drawn.drawn),
                "detectable": smallest_detectable(error),
            }
            if first == systems[0]:
                wide = drawn.interval(row["estimate"], level)
                described |= {"ci_low_all": wide.low, "ci_high_all": wide.high}
        rows.append(described)
    return pd.DataFrame(rows, columns=list(TEST_COLUMNS)).astype(dict.fromkeys(_NUMBERS, "float64"))


_TAKEN = (
    "target", "unit", "subgroup", "policy", "metric", "estimate", "ci_low", "ci_high", "n_images",
    "n_patients", "note",
)  # fmt: skip


def adjusted(tables: Sequence[pd.DataFrame], reference: str) -> pd.DataFrame:
    """Join tests and add Holm's p-values, over contrasts with the reference and over all pairs.

    A family is of one unit, subgroup, policy, metric and method.

    Args:
        tables: Of the columns of `TEST_COLUMNS`.
        reference: Name of the reference system.
    """
    records: list[dict[Any, Any]] = [row for each in tables for row in each.to_dict("records")]
    families: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(records):
        if row["second"]:
            families.setdefault(tuple(row[key] for key in _FAMILY), []).append(place)
    for members in families.values():
        with_reference = [place for place in members if records[place]["first"] == reference]
        for column, places in (("p_holm", with_reference), ("p_holm_pairs", members)):
            values = [records[place]["p_value"] for place in places]
            found = holm([None if pd.isna(p) else float(p) for p in values])
            for place, p in zip(places, found, strict=True):
                records[place][column] = p
    table = pd.DataFrame(records, columns=list(TEST_COLUMNS))
    return table.astype(dict.fromkeys(_NUMBERS, "float64"))
