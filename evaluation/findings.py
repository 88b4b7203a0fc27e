"""Means of a figure over several findings, with intervals by patient over all of them at once.

A patient has images, and labels of several findings, so the figures of the findings are correlated.
The AUROC has a closed interval: the contributions of a patient to the AUROC of each finding are
averaged. All other figures are averaged in each resample, in which the patients are the same for
all findings. A finding that is counted twice therefore makes no interval narrower.

Sampling errors of findings partly cancel in a mean, and biases add up. An average precision of few
positive images is too high on average, so the lower half of the interval of its mean is corrected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import harmonic_mean
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.figures import (
    bootstrap_p_value,
    corrected,
    lower_for_bias,
    too_high,
)
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import satterthwaite_freedom
from cxr_compare.evaluation.statistics.intervals import LEVEL, expanded_level, percentile_interval

MEANS = ("auroc", "average_precision", "ap50", "froc_mean")
"""Figures of which a mean over findings is shown; the last two need boxes."""
COLUMNS = (
    "metric",
    "first",
    "second",
    "estimate",
    "ci_low",
    "ci_high",
    "p_value",
    "p_holm",
    "method",
    "note",
    "findings",
)


def mean_table(comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """Return the mean of each figure over findings, for systems and for pairs of them.

    `comparisons` has one comparison of the same systems for each finding, on the same resamples of
    the same patients. A finding enters the mean of a figure if every system has this figure with an
    interval and, of AUROC, none has one of exactly 0 or 1; ``findings`` names those that do.
    ``p_holm`` is that of `figures.corrected`.
    """
    systems = list(next(iter(comparisons.values())).systems)
    rows = []
    for metric in MEANS:
        found = {name: _known(each, metric) for name, each in comparisons.items()}
        names = [name for name, known in found.items() if known]
        if len(names) < 2:
            continue
        of = [comparisons[name] for name in names]
        for pair in [*((name,) for name in systems), *combinations(systems, 2)]:
            row = _mean_auroc(of, pair) if metric == "auroc" else _resampled(of, pair, metric)
            where = {"metric": metric, "first": pair[0], "second": "".join(pair[1:])}
            rows.append({**where, **row, "findings": ",".join(names)})
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).assign(policy="")
    table = table.astype(dict.fromkeys(("p_value", "p_holm"), np.float64))
    (table,) = _corrected([table], comparisons)
    return table[list(COLUMNS)]


def corrected_together(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Return comparisons of the same systems on several findings, with ``p_holm`` over them all."""
    tables = _corrected([each.figures for each in comparisons.values()], comparisons)
    return {
        name: replace(each, figures=table, n_findings=len(comparisons))
        for (name, each), table in zip(comparisons.items(), tables, strict=True)
    }


def _corrected(
    tables: Sequence[pd.DataFrame], comparisons: Mapping[str, Comparison]
) -> list[pd.DataFrame]:
    """Correct the p-values of tables by the systems and primary figures of comparisons."""
    one = next(iter(comparisons.values()))
    keys = dict.fromkeys(key for each in comparisons.values() for key in each.primary)
    return corrected(tables, one.joint, primary=keys, with_boxes=one.with_boxes)


def finding_tests(figures: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the differences of AUROC of each finding."""
    columns = ["first", "second", "estimate", "ci_low", "ci_high", "p_value", "p_holm"]
    rows = [
        table.loc[(table["metric"] == "auroc") & (table["second"] != ""), columns].assign(
            finding=finding
        )
        for finding, table in figures.items()
    ]
    return pd.concat(rows, ignore_index=True)[["finding", *columns]]


def _known(comparison: Comparison, metric: str) -> bool:
    """Return True if every system has a figure with an interval that resamples or patients move."""
    rows = comparison.figures
    rows = rows[(rows["metric"] == metric) & (rows["second"] == "")]
    rows = rows[rows["first"].isin(list(comparison.systems))]
    if len(rows) < len(comparison.systems) or rows["ci_low"].isna().any():
        return False
    return metric != "auroc" or not rows["estimate"].isin([0.0, 1.0]).any()


def _mean_auroc(comparisons: Sequence[Comparison], names: Sequence[str]) -> dict[str, Any]:
    """Return the mean AUROC over findings, or the difference of two, by Obuchowski's method.

    The contributions of all findings spread less than those of a rare one, whose variance is known
    from few patients, so the freedom of a mean is at most that of a finding of the harmonic mean of
    the effective numbers of patients.
    """
    value, contributions = 0.0, np.zeros(1)
    for sign, name in zip((1.0, -1.0), names, strict=False):
        parts = [part for each in comparisons if (part := each.rows.aurocs[name]) is not None]
        value += sign * float(np.mean([part.value for part in parts]))
        known = [part.contributions for part in parts if part.contributions is not None]
        contributions = contributions + sign * np.mean(known, axis=0)
    freedom = satterthwaite_freedom(contributions) if np.any(contributions) else np.inf
    if len(names) == 1:
        effective = harmonic_mean([part.effective_patients for part in parts])
        freedom = min(freedom, max(effective - 1, 1.0))
    error = float(np.sqrt((contributions**2).sum()))
    mean = ClusteredEstimate(value, error, freedom, bounded=len(names) == 1)
    p_value = mean.p_value if len(names) == 2 else None
    ends = {"ci_low": mean.ci_low, "ci_high": mean.ci_high, "note": ""}
    return {"estimate": value, **ends, "p_value": p_value, "method": OBUCHOWSKI}


def _resampled(
    comparisons: Sequence[Comparison], names: Sequence[str], metric: str
) -> dict[str, Any]:
    """Return the mean over findings of another figure, or of a difference, by resamples."""
    columns = []
    for name in names:
        frames = [each.rows.frames[name]["", metric].to_numpy(np.float64) for each in comparisons]
        # A resample without an image of a class leaves the figure undefined: it then has that of
        # the images themselves, so that one rare finding does not undefine the mean.
        columns.append(np.mean([np.where(np.isnan(v), v[0], v) for v in frames], axis=0))
    values = columns[0] if len(columns) == 1 else columns[0] - columns[1]
    drawn = values[1:]
    figures = [each.figures for each in comparisons]
    of_metric = [rows[(rows["metric"] == metric) & (rows["second"] == "")] for rows in figures]
    effective = [float(rows["effective_patients"].iloc[0]) for rows in of_metric]
    bias = ""
    if len(names) == 1 and metric in ("average_precision", "ap50"):
        drawn = lower_for_bias(drawn, float(values[0]))
        bias = too_high(harmonic_mean([float(rows["n_positive"].iloc[0]) for rows in of_metric]))
    level = expanded_level(LEVEL, float(np.mean(effective)))
    found = percentile_interval(drawn, level, estimate=float(values[0]))
    note = "; ".join(filter(None, [found.note, bias]))
    p_value = bootstrap_p_value(drawn, float(np.mean(effective))) if len(names) == 2 else None
    ends = {"ci_low": found.ci_low, "ci_high": found.ci_high, "note": note}
    return {"estimate": float(values[0]), **ends, "p_value": p_value, "method": BOOTSTRAP}
