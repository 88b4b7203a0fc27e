"""Means of a figure over several findings, with intervals by patient over all findings at once.

A patient has images, and labels of several findings, so the figures of the findings are correlated.
The AUROC has a closed interval: the contributions of a patient to the AUROC of each finding are
averaged, and their squares are summed over the patients. All other figures are averaged over the
findings in each resample, in which the patients are the same for all findings. A finding that is
counted twice therefore makes no interval narrower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figure_intervals import bootstrap_p_value, lower_for_bias, seed_parts
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.registry import family
from cxr_compare.evaluation.replicates import Evidence
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI, AurocParts
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import satterthwaite_freedom
from cxr_compare.evaluation.statistics.holm import holm
from cxr_compare.evaluation.statistics.intervals import LEVEL, expanded_level, percentile_interval
from cxr_compare.evaluation.statistics.obuchowski_rockette import estimate_over_seeds

MACRO_METRICS = ("auroc", "average_precision", "ap50_decided", "froc_mean")
"""Figures of which a mean over findings is shown; the last two need boxes."""
COLUMNS = (
    "metric",
    "first",
    "second",
    "estimate",
    "ci_low",
    "ci_high",
    "p_value",
    "ci_method",
    "findings",
)


def macro_table(comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """Compute the mean of each figure over findings, for systems and for pairs of them.

    `comparisons` has one comparison of the same systems for each finding, on the same resamples of
    the same patients. A finding enters the mean of a figure if every system has this figure, with
    an interval. Figures that fewer than two findings have are left out.

    The table has the columns of `COLUMNS` and one row for each figure of one system, or paired
    difference of two (``second`` is then not empty). ``findings`` names the findings in the mean,
    with commas; ``p_holm`` is that of the AUROC among all pairs of systems.
    """
    systems = next(iter(comparisons.values())).figures.systems
    rows = []
    for metric in MACRO_METRICS:
        key = MetricKey(ALL, "", metric)
        findings = [
            name
            for name, each in comparisons.items()
            if all(each.figures.get(system, metric).bounded for system in systems)
        ]
        if len(findings) < 2:
            continue
        evidence = [_evidence(comparisons[name]) for name in findings]
        effective = [
            comparisons[name].figures.get(systems[0], metric).effective_patients or np.inf
            for name in findings
        ]
        for names in [*((name,) for name in systems), *combinations(systems, 2)]:
            if metric == "auroc":
                row = mean_of_auroc(evidence, names)
            else:
                row = _of_resamples(evidence, names, key, float(np.mean(effective)))
            second = names[1] if len(names) == 2 else ""
            rows.append(
                {"metric": metric, "first": names[0], "second": second, **row}
                | {"findings": ",".join(findings)}
            )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["p_holm"] = np.nan
    is_claim = (table["metric"] == "auroc") & (table["second"] != "")
    p_values = [None if pd.isna(p) else p for p in table.loc[is_claim, "p_value"]]
    table.loc[is_claim, "p_holm"] = np.array(holm(p_values), dtype=np.float64)
    return table.astype({"p_value": "float64", "p_holm": "float64"})


def finding_tests(comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """Collect the paired differences of AUROC of each finding, corrected by Holm over all of them.

    The table has one row for each finding and pair of systems, with ``finding``, ``first``,
    ``second``, ``estimate``, ``ci_low``, ``ci_high``, ``p_value`` and ``p_holm``; p-values are
    missing where the difference has no test.
    """
    rows = []
    p_values: list[float | None] = []
    for finding, comparison in comparisons.items():
        for first, second in combinations(comparison.figures.systems, 2):
            gap = comparison.figures.difference(first, second, "auroc")
            p_values.append(gap.p_value)
            rows.append(
                {
                    "finding": finding,
                    "first": first,
                    "second": second,
                    "estimate": gap.estimate,
                    "ci_low": gap.ci_low,
                    "ci_high": gap.ci_high,
                    "p_value": gap.p_value,
                }
            )
    columns = ["finding", "first", "second", "estimate", "ci_low", "ci_high", "p_value"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = holm(p_values)
    return table.astype({"p_value": "float64", "p_holm": "float64"})


def _evidence(comparison: Comparison) -> Evidence:
    if comparison.evidence is None:
        raise ValueError(f"{comparison!r} does not hold what its figures were computed from")
    return comparison.evidence


def mean_of_auroc(evidence: Sequence[Evidence], names: Sequence[str]) -> dict[str, object]:
    """Return the mean AUROC over findings, or the difference of two, by Obuchowski's method."""
    by_system = [_seeds_of_auroc(evidence, name) for name in names]
    signs = (1.0, -1.0)
    means = [np.mean([value for value, _ in seeds]) for seeds in by_system]
    value = float(sum(sign * mean for sign, mean in zip(signs, means, strict=False)))
    contributions = sum(
        sign * np.mean([of_patients for _, of_patients in seeds], axis=0)
        for sign, seeds in zip(signs, by_system, strict=False)
    )
    freedom = satterthwaite_freedom(contributions) if np.any(contributions) else np.inf
    error = float(np.sqrt((contributions**2).sum()))
    estimate = ClusteredEstimate(value, error, freedom, bounded=len(names) == 1)
    if any(len(seeds) > 1 for seeds in by_system):
        columns = np.column_stack([each for seeds in by_system for _, each in seeds])
        estimate = estimate_over_seeds(
            [[value for value, _ in seeds] for seeds in by_system],
            columns.T @ columns,
            freedom,
            bounded=len(names) == 1,
        )
    low, high = estimate.ci_low, estimate.ci_high
    if len(names) == 1:
        low, high = _with_exact_ends(value, (low, high), evidence, names[0])
    return {
        "estimate": value,
        "ci_low": low,
        "ci_high": high,
        "p_value": estimate.p_value if len(names) == 2 else None,
        "ci_method": OBUCHOWSKI,
    }


def _with_exact_ends(
    value: float, ends: tuple[float, float], evidence: Sequence[Evidence], name: str
) -> tuple[float, float]:
    """Widen the interval of a mean for the findings whose AUROC is exactly 0 or 1.

    No patient adds to the variance there, so the exact interval of such a finding is added. These
    findings are taken as one and the same, and as independent of the others (MOVER: Zou and Donner
    2008).
    """
    exact = []
    for each in evidence:
        members = each.models[name]
        everything = np.ones(len(members[0].images.image_ids), dtype=bool)
        estimate = AurocParts.mean(seed_parts(members, everything) or []).estimate()
        if estimate.exact:
            exact.append(estimate.as_interval)
    if not exact:
        return ends
    below = sum(each.estimate - each.ci_low for each in exact) / len(evidence)
    above = sum(each.ci_high - each.estimate for each in exact) / len(evidence)
    low, high = np.where(np.isnan(ends), value, ends)
    return (
        max(value - float(np.hypot(value - low, below)), 0.0),
        min(value + float(np.hypot(high - value, above)), 1.0),
    )


def _seeds_of_auroc(evidence: Sequence[Evidence], name: str) -> list[tuple[float, Floats]]:
    """Return the mean AUROC over findings of each seed, with the contributions of the patients."""
    by_finding = []
    for each in evidence:
        members = each.models[name]
        everything = np.ones(len(members[0].images.image_ids), dtype=bool)
        by_finding.append(seed_parts(members, everything) or [])
    seeds = []
    for parts in zip(*by_finding, strict=True):
        contributions = [part.contributions for part in parts]
        known = [values for values in contributions if values is not None]
        seeds.append((float(np.mean([part.value for part in parts])), np.mean(known, axis=0)))
    return seeds


def _of_resamples(
    evidence: Sequence[Evidence], names: Sequence[str], key: MetricKey, effective: float
) -> dict[str, object]:
    """Return the mean over findings of another figure, or of a difference, by resamples."""
    columns = [
        np.asarray(np.mean([_column(each, name, key) for each in evidence], axis=0))
        for name in names
    ]
    column = columns[0] if len(columns) == 1 else columns[0] - columns[1]
    drawn = column[1:]
    value = float(column[0])
    if len(names) == 1 and key.metric in family("coco_decided"):
        drawn = lower_for_bias(drawn, value)
    interval = percentile_interval(drawn, expanded_level(LEVEL, effective), estimate=value)
    return {
        "estimate": value,
        "ci_low": interval.ci_low,
        "ci_high": interval.ci_high,
        "p_value": bootstrap_p_value(drawn, effective) if len(names) == 2 else None,
        "ci_method": evidence[0].resamples.method,
    }


def _column(evidence: Evidence, name: str, key: MetricKey) -> Floats:
    """Return a figure and its replicates, shape ``(1 + R,)``: the mean over training seeds.

    A resample without an image of a class leaves the figure undefined; it then has the figure of
    the images themselves, so that one rare finding does not undefine the mean.
    """
    seeds = [frame[key].to_numpy(np.float64) for frame in evidence.frames[name]]
    column = np.mean(seeds, axis=0)
    return np.where(np.isnan(column), column[0], column)
