"""Means of a figure over several findings, with intervals by patient over all of them at once.

A patient has images, and labels of several findings, so the figures of the findings are correlated.
The intervals of a mean AUROC and of a mean average precision join those of the findings with these
correlations, so that a rare finding counts with its own uncertainty, and one that is counted twice
makes no interval narrower. All other means, and the differences of means, rest on resamples, in
which the patients are the same for all findings, or on the contributions of patients to the mean.

Sampling errors of findings partly cancel in a mean, and biases add up. An average precision of few
positive images is too high on average, so the lower half of the interval of its mean is corrected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import harmonic_mean
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.evaluation.compare import Comparison, compare_outputs
from cxr_compare.evaluation.figures import (
    Key,
    bootstrap_p_value,
    corrected,
    lower_for_bias,
    too_high,
)
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI, AurocParts
from cxr_compare.evaluation.statistics.clustered_counts import joined_interval
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import satterthwaite_freedom
from cxr_compare.evaluation.statistics.intervals import (
    LEVEL,
    Interval,
    expanded_level,
    percentile_interval,
)
from cxr_compare.evaluation.truth import Truth

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
    parts: list[pd.DataFrame] = []
    for metric, record in METRICS.items():
        if not record.mean:
            continue
        key = (metric, next(iter(comparisons.values())).main_policy if record.at_threshold else "")
        has_figure = {name: _known(comparison, *key) for name, comparison in comparisons.items()}
        names = [name for name, is_known in has_figure.items() if is_known]
        if len(names) < 2:
            continue
        included_comparisons = [comparisons[name] for name in names]
        key_columns = {"metric": metric, "policy": key[1], "findings": ",".join(names)}
        if record.interval == "ranks":
            means = mean_aurocs([each.rows.aurocs for each in included_comparisons], systems)
        else:
            means = [*_resampled(included_comparisons, systems, key)]
        parts += [of_metric.assign(**key_columns) for of_metric in means]
    table = pd.concat(parts or [pd.DataFrame()], ignore_index=True)
    table = table.reindex(columns=[*COLUMNS, "policy"])
    table = table.astype(dict.fromkeys(("p_value", "p_holm"), np.float64))
    (table,) = _corrected([table], comparisons)
    return table[list(COLUMNS)]


def compared_together(
    questions: Mapping[str, tuple[Mapping[str, Output], Truth]], **options: Any
) -> dict[str, Comparison]:
    """Compare the outputs for each finding, on the same resamples of the test patients of all.

    `options` are those of `compare_outputs`. ``p_holm`` of several is corrected over them all.
    """
    owners = [truth.of("test").owners for _, truth in questions.values()]
    drawn = np.unique(np.concatenate(owners)) if len(owners) > 1 else None
    comparisons = {
        name: compare_outputs(outputs, replace(truth, drawn=drawn), **options)
        for name, (outputs, truth) in questions.items()
    }
    if len(comparisons) < 2:
        return comparisons
    tables = _corrected([comparison.figures for comparison in comparisons.values()], comparisons)
    return {
        name: replace(comparison, figures=table, n_findings=len(comparisons))
        for (name, comparison), table in zip(comparisons.items(), tables, strict=True)
    }


def _corrected(
    tables: Sequence[pd.DataFrame], comparisons: Mapping[str, Comparison]
) -> list[pd.DataFrame]:
    """Correct the p-values of tables by the systems and primary figures of comparisons."""
    first_comparison = next(iter(comparisons.values()))
    keys = dict.fromkeys(key for comparison in comparisons.values() for key in comparison.primary)
    return corrected(
        tables, first_comparison.joint, primary=keys, with_boxes=first_comparison.with_boxes
    )


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


def _known(comparison: Comparison, metric: str, policy: str) -> bool:
    """Return True if every system has a figure with an interval that resamples or patients move."""
    rows = comparison.figures
    rows = rows[(rows["metric"] == metric) & (rows["policy"] == policy) & (rows["second"] == "")]
    rows = rows[rows["first"].isin(list(comparison.systems))]
    if len(rows) < len(comparison.systems) or rows["ci_low"].isna().any():
        return False
    return METRICS[metric].interval != "ranks" or not rows["estimate"].isin([0.0, 1.0]).any()


def mean_aurocs(
    aurocs_by_system: Sequence[Mapping[str, AurocParts | None]], systems: Sequence[str]
) -> list[pd.DataFrame]:
    """Return mean AUROCs over findings, and differences of all pairs, by Obuchowski's method.

    The interval of a mean joins those of the findings, of which a rare one is known from few
    patients, more than the spread of the contributions to the mean shows.
    """
    rows = []
    of_patients = []
    for name in systems:
        aurocs = [auroc for by_system in aurocs_by_system if (auroc := by_system[name]) is not None]
        estimates = [auroc.estimate() for auroc in aurocs]
        value, low, high = np.array(
            [[estimate.estimate, estimate.ci_low, estimate.ci_high] for estimate in estimates]
        ).T
        contributions = np.stack(
            [
                auroc_contributions
                for auroc in aurocs
                if (auroc_contributions := auroc.contributions) is not None
            ]
        )
        mean = joined_interval(value, low, high, contributions)
        rows.append({"first": name, **mean.to_dict()})
        of_patients.append(contributions.mean(axis=0))
    table = pd.DataFrame(rows).assign(second="", note="", method=OBUCHOWSKI)
    gaps = contributed_gaps(table["estimate"].to_numpy(), np.stack(of_patients), systems)
    return [table, gaps.assign(method=OBUCHOWSKI)]


def contributed_gaps(
    values: Floats, of_patients: Floats, systems: Sequence[str], most_freedom: float = np.inf
) -> pd.DataFrame:
    """Return the differences of all pairs of figures, with contributions of patients ``(S, P)``."""
    rows = []
    for one, other in combinations(range(len(systems)), 2):
        contributions = of_patients[one] - of_patients[other]
        gap = ClusteredEstimate(float(values[one] - values[other]), None)
        variance = float((contributions**2).sum())
        if variance > 0:
            freedom = min(satterthwaite_freedom(contributions), most_freedom)
            gap = replace(gap, error=math.sqrt(variance), freedom=freedom)
        names = {"first": systems[one], "second": systems[other]}
        rows.append({**names, "estimate": gap.estimate, **gap.to_row()})
    return pd.DataFrame(rows)


def _resampled(
    comparisons: Sequence[Comparison], systems: Sequence[str], key: Key
) -> Iterator[pd.DataFrame]:
    """Yield the means over findings of another figure, and their differences, by resamples."""
    metric, policy = key
    figures = [comparison.figures[comparison.figures["second"] == ""] for comparison in comparisons]
    of_metric = [rows[(rows["metric"] == metric) & (rows["policy"] == policy)] for rows in figures]
    effective = float(np.mean([float(rows["effective_patients"].iloc[0]) for rows in of_metric]))
    level = expanded_level(LEVEL, effective)
    biased = METRICS[metric].averages_precision
    bias = ""
    if biased:
        bias = too_high(harmonic_mean([float(rows["n_positive"].iloc[0]) for rows in of_metric]))
    means = []
    rows = []
    for name in systems:
        frames = [
            comparison.rows.frames[name][policy, metric].to_numpy(np.float64)
            for comparison in comparisons
        ]
        # A resample without an image of a class leaves the figure undefined: it then has that of
        # the images themselves, so that one rare finding does not undefine the mean.
        filled_values = np.stack(
            [np.where(np.isnan(values), values[0], values) for values in frames]
        )
        mean = filled_values.mean(axis=0)
        value, drawn = float(mean[0]), mean[1:]
        if metric == "average_precision":
            interval = _joined(name, of_metric, filled_values)
        else:
            drawn = lower_for_bias(drawn, value) if biased else drawn
            interval = percentile_interval(drawn, level, estimate=value)
        note = "; ".join(filter(None, [interval.note, bias]))
        ends = {"ci_low": interval.ci_low, "ci_high": interval.ci_high, "note": note}
        rows.append({"first": name, "estimate": value, **ends})
        means.append(mean)
    yield pd.DataFrame(rows).assign(second="", method=BOOTSTRAP)
    yield _resampled_gaps(np.stack(means), systems, effective)


def _joined(system: str, figures: Sequence[pd.DataFrame], values: Floats) -> Interval:
    """Return a mean average precision of images, ``(findings, 1 + R)``, with the findings' ends.

    It is too high by the sum of the biases, which the replicates show once more: the lower end is
    lowered by twice as much.
    """
    finding_ends = [
        rows.loc[rows["first"] == system, ["ci_low", "ci_high"]].iloc[0] for rows in figures
    ]
    low, high = np.array(finding_ends, dtype=np.float64).T
    drawn = values[:, 1:]
    interval = joined_interval(values[:, 0], low, high, drawn - drawn.mean(axis=1, keepdims=True))
    bias = max(float(drawn.mean()) - interval.estimate, 0.0)
    return replace(interval, ci_low=max(interval.ci_low - 2 * bias, 0.0))


def _resampled_gaps(means: Floats, systems: Sequence[str], effective: float) -> pd.DataFrame:
    """Return the differences of all pairs of means, ``(S, 1 + R)``, of so many patients."""
    rows = []
    for one, other in combinations(range(len(systems)), 2):
        gaps = means[one] - means[other]
        level = expanded_level(LEVEL, effective)
        interval = percentile_interval(gaps[1:], level, estimate=float(gaps[0]))
        names = {"first": systems[one], "second": systems[other]}
        p_value = bootstrap_p_value(gaps[1:], effective)
        rows.append({**names, **vars(interval), "p_value": p_value, "method": BOOTSTRAP})
    return pd.DataFrame(rows)
