"""The table of figures and of paired differences, with their intervals and p-values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.evaluation.figures import COLUMNS, FigureRows, bootstrap_p_value, undefined
from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.policies import is_given
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI
from cxr_compare.evaluation.statistics.intervals import (
    LEVEL,
    expanded_level,
    percentile_interval,
)

_CALIBRATED_ONCE = "no p-value: resamples do not learn the calibrations again"
_BOXES_ONCE = "no p-value: resamples do not learn the positions of constant boxes again"


def figure_table(rows: FigureRows, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return a row for each figure of a system, and for each that both of a pair have.

    The difference of a pair is the figure of its first system minus that of its second one.
    """
    differences = [row for pair in pairs for row in _differences(rows, *pair)]
    table = pd.concat([rows.of_systems(), pd.DataFrame(differences)], ignore_index=True)
    figures = table.reindex(columns=list(COLUMNS))
    numbers = ("estimate", "p_value", "p_holm")
    figures = figures.astype(dict.fromkeys(numbers, np.float64))
    text = ["method", "note"]
    return figures.assign(**figures[text].astype(object).fillna(""))


def _differences(rows: FigureRows, first: str, second: str) -> Iterator[dict[str, Any]]:
    """Yield the row of the difference of two systems in each figure that is compared."""
    for policy, metric in rows.keys:
        values, others = (rows.replicates(name, metric, policy) for name in (first, second))
        is_compared = METRICS[metric].family != "count" and rows.is_compared(metric, policy)
        if not is_compared or values is None or others is None:
            continue
        gaps = values - others
        if METRICS[metric].interval == "ranks":
            columns = _of_auroc(rows, first, second)
        else:
            columns = _resampled(rows, first, second, metric, policy, gaps)
        where = {"first": first, "second": second, "metric": metric, "policy": policy}
        yield {**where, "estimate": float(gaps[0]), **columns, **rows.size(metric)}


def _of_auroc(rows: FigureRows, first: str, second: str) -> dict[str, Any]:
    """Return the closed interval of a difference of AUROCs, and its p-value."""
    one, other = rows.aurocs[first], rows.aurocs[second]
    if one is None or other is None:
        return {"note": undefined(rows.truth, "auroc")}
    return {**(one - other).estimate().to_row(), "method": OBUCHOWSKI}


def _resampled(
    rows: FigureRows, first: str, second: str, metric: str, policy: str, gaps: Floats
) -> dict[str, Any]:
    """Return the percentile interval and the p-value of a difference, whose value is `gaps[0]`."""
    systems = rows.systems[first], rows.systems[second]
    columns: dict[str, Any] = {"p_value": np.nan}
    if np.isnan(gaps[0]):
        columns["note"] = undefined(rows.truth, metric)
    elif reasons := [why for s in systems if (why := s.choices.reasons.get(policy))]:
        columns["note"] = f"no interval: {reasons[0]}"
    else:
        # Where resamples choose a threshold or a rule of boxes again, they vary enough.
        refits = any(system.output.ranks for system in systems)
        refits = refits and bool(policy) and not is_given(policy)
        patients = None if refits else rows.size(metric)["effective_patients"]
        level = expanded_level(LEVEL, patients)
        interval = percentile_interval(gaps[1:], level, estimate=float(gaps[0]))
        notes = [interval.note]
        if interval.bounded and METRICS[metric].interval == "losses":
            notes.append(_CALIBRATED_ONCE)
        elif interval.bounded:
            cuts = any(len(system.choices.rules) > 1 for system in systems)
            cuts = cuts and METRICS[metric].boxed and METRICS[metric].interval != "points"
            columns["p_value"] = bootstrap_p_value(gaps[1:], None if cuts else patients)
        columns |= {"ci_low": interval.ci_low, "ci_high": interval.ci_high, "method": BOOTSTRAP}
        columns["note"] = "; ".join(filter(None, notes))
    if second == image_blind_name(first) and (places := systems[1].places) is not None:
        is_tested = not np.isnan(columns["p_value"])
        once = _BOXES_ONCE if METRICS[metric].needs == "boxes" and is_tested else ""
        if no_claim := places.no_claim or once:
            columns |= {"p_value": np.nan, "note": no_claim}
    return columns
