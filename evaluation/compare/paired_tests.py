"""Tests of paired differences: AUROC and decisions, by patient and, beside it, by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.compare.estimates import (
    OVER_SEEDS,
    REFITTED,
    THRESHOLDS,
    Differences,
    Estimate,
    Estimates,
    choices_text,
    family_levels,
    is_chosen,
)
from cxr_compare.evaluation.compare.holm import holm
from cxr_compare.evaluation.compare.scorecard import Scorecard, Scorecards, evaluation_set_of
from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet
from cxr_compare.evaluation.metrics.metric import ALL, VERSUS_NORMAL, MetricKey
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP
from cxr_compare.evaluation.statistics.clustered_auroc import (
    OBUCHOWSKI,
    AurocParts,
    auroc_over_seeds,
    auroc_parts,
)
from cxr_compare.evaluation.statistics.clustered_estimate import (
    ClusteredEstimate,
    smallest_detectable,
)
from cxr_compare.evaluation.statistics.mcnemar import clustered_mcnemar

TEST_COLUMNS = (
    "target",
    "unit",
    "subgroup",
    "policy",
    "metric",
    "first",
    "second",
    "method",
    "independent",
    "estimate",
    "ci_low",
    "ci_high",
    "ci_low_all",
    "ci_high_all",
    "standard_error",
    "p_value",
    "p_holm",
    "p_holm_pairs",
    "detectable",
    "first_only",
    "second_only",
    "n_images",
    "n_patients",
    "note",
)
_FAMILY = ["unit", "subgroup", "policy", "metric", "method"]
_NUMBERS = (
    "ci_low",
    "ci_high",
    "ci_low_all",
    "ci_high_all",
    "standard_error",
    "p_value",
    "p_holm",
    "p_holm_pairs",
    "detectable",
    "first_only",
    "second_only",
)


def bootstrap_p_value(replicates: Floats, patients: float | None = None) -> float | None:
    """Compute the two-sided p-value of a difference of 0 from the bootstrap's replicates.

    It is twice the share of replicates on the smaller side of 0, where replicates at 0 count on
    both sides. 1 is added to both counts, so that no number of replicates gives a p-value of 0.
    With the effective number of patients it is the p-value of the expanded percentiles of
    `expanded_level`.

    Source:
        Efron and Tibshirani 1993, section 15.4 and 16.4; Davison and Hinkley 1997, section 4.2.
    """
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return None
    smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p_value = min(1.0, 2 * (smaller + 1) / (len(defined) + 1))
    if patients is None or not patients > 1:
        return p_value
    widened = scipy.special.ndtri(p_value / 2) * np.sqrt((patients - 1) / patients)
    return float(2 * scipy.special.stdtr(patients - 1, widened))


def resampled_tests(estimates: Estimates, differences: Differences) -> pd.DataFrame:
    """Test every paired difference that the bootstrap has replicates of."""
    rows = [
        _resampled_test(estimates, (name, ""), key, estimate)
        for name, of_system in estimates.systems.items()
        for key, estimate in of_system.items()
        if key.metric == "auroc" and estimate.known
    ]
    rows += [
        _resampled_test(estimates, pair, key, estimate, differences.get(pair, {}).get(key))
        for pair, of_pair in estimates.differences.items()
        for key, estimate in of_pair.items()
        if estimate.known
    ]
    return _test_table(rows)


def _test_table(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(TEST_COLUMNS))
    return table.astype(dict.fromkeys(_NUMBERS, "float64"))


def _resampled_test(
    estimates: Estimates,
    pair: tuple[str, str],
    key: MetricKey,
    estimate: Estimate,
    drawn: Floats | ClusteredEstimate | None = None,
) -> dict[str, Any]:
    method = SEEDS_TEST if estimate.kind == "seeds" else BOOTSTRAP
    if estimate.refitted and estimate.kind != "seeds":
        method = REFITTED_TEST
    row: dict[str, Any] = {
        "target": estimates.target,
        "unit": estimates.unit,
        **key._asdict(),
        "first": pair[0],
        "second": pair[1],
        "method": method,
        "independent": "patients",
        "estimate": estimate.estimate,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "n_images": estimate.counts.n_images,
        "n_patients": estimate.counts.n_patients,
        "note": estimate.note,
    }
    if drawn is None or not estimate.bounded:
        return row
    if isinstance(drawn, ClusteredEstimate):
        error = drawn.error
        p_value = drawn.p_value
        reach = drawn.detectable
    else:
        patients = estimate.effective_patients
        freedom = np.inf if patients is None else max(patients - 1, 1.0)
        error = float(np.nanstd(drawn, ddof=1))
        p_value = bootstrap_p_value(drawn, None if estimate.refitted else patients)
        reach = smallest_detectable(error, freedom=freedom)
    row |= {"standard_error": error, "p_value": p_value, "detectable": reach}
    if pair[0] == next(iter(estimates.systems)):
        wide = estimate.within(len(estimates.systems) - 1)
        row |= {"ci_low_all": wide.low, "ci_high_all": wide.high}
    return row


def _adjusted(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join tests, with Holm's p-values over the pairs of a unit, subgroup, policy, metric, method.

    ``p_holm``, over all that an answer mentions, follows later: `Comparison.tests_with_holm`.
    """
    rows: list[dict[Any, Any]] = [row for table in tables for row in table.to_dict("records")]
    families: dict[tuple[str, ...], list[dict[Any, Any]]] = {}
    for row in rows:
        if row["second"]:
            families.setdefault(tuple(row[key] for key in _FAMILY), []).append(row)
    for pairs in families.values():
        values = [None if pd.isna(row["p_value"]) else float(row["p_value"]) for row in pairs]
        for row, p_value in zip(pairs, holm(values), strict=True):
            row["p_holm_pairs"] = p_value
    return _test_table(rows)


EXACT_AUROC = "exact (Clopper-Pearson), pairs of patients as trials"
DELONG = "DeLong 1988, images taken as independent"
MCNEMAR = "Obuchowski 1998, McNemar clustered by patient"
EXACT = "exact McNemar, images taken as independent"
REFITTED_TEST = f"{BOOTSTRAP}, choices {REFITTED}"
"""The test that decides where validation chose a threshold, or a score cut of boxes."""
SEEDS_TEST = f"{OVER_SEEDS}; covariances of the {BOOTSTRAP.removesuffix(' percentile')}"
"""The test of a figure other than AUROC where a system has several seeds."""


def paired_tests(
    estimates: Estimates,
    scorecards: Scorecards,
    differences: Differences | None = None,
    more: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Test every pair of systems on every figure.

    AUROC, accuracy, sensitivity and specificity have tests of their own, by patient and by image.
    They come first, and the bootstrap's p-values of all figures after them. Where resamples choose
    thresholds again, the bootstrap's test comes first, since McNemar's test keeps thresholds fixed.

    Args:
        estimates: Estimates with the bootstrap's intervals.
        scorecards: Scorecards of each system, one for each training seed.
        differences: Replicates of the paired differences.
        more: Further tests, such as those by study or patient.

    Returns:
        The tests with the columns of `TEST_COLUMNS`.

    Source:
        Obuchowski 1997 and 1998; DeLong et al. 1988; McNemar 1947; Holm 1979.
    """
    evaluated = evaluation_set_of(scorecards)
    rows = _Rows(estimates.target, next(iter(scorecards)), estimates.contrast_level)
    clustered = _clustered_auroc(scorecards)
    for subgroup, chosen in _subgroups(evaluated).items():
        _auroc_rows(rows, subgroup, scorecards, chosen, clustered)
        _decision_rows(rows, subgroup, scorecards, chosen)
    own = pd.DataFrame(rows.rows, columns=list(TEST_COLUMNS))
    drawn = resampled_tests(estimates, differences or {})
    decides = drawn["method"].isin([REFITTED_TEST, SEEDS_TEST])
    decides &= drawn["policy"].map(is_chosen).astype(bool)
    tables = [drawn[decides], own, drawn[~decides], *([] if more is None else [more])]
    return _adjusted(tables)


def _subgroups(evaluated: EvaluationSet) -> dict[str, np.ndarray]:
    subgroups = {ALL: np.ones(len(evaluated.y_true), dtype=bool)}
    if evaluated.versus_normal is not None:
        subgroups[VERSUS_NORMAL] = evaluated.versus_normal
    return subgroups


_ClusteredAuroc = Mapping[str, Mapping[tuple[str, str], ClusteredEstimate]]
"""Obuchowski's estimates by subgroup and pair; for one system the second name is empty."""


def _clustered_auroc(scorecards: Scorecards) -> _ClusteredAuroc:
    """Estimate every AUROC and its paired differences by Obuchowski, clustered by patient."""
    subgroups = _subgroups(evaluation_set_of(scorecards))
    return {subgroup: _aurocs(scorecards, chosen) for subgroup, chosen in subgroups.items()}


def _aurocs(
    scorecards: Scorecards, chosen: np.ndarray, *, by_image: bool = False
) -> dict[tuple[str, str], ClusteredEstimate]:
    """Estimate the AUROC of every system and every pair; a system that lacks it is left out."""
    of_systems = {
        name: seed_parts(members, chosen, by_image=by_image) for name, members in scorecards.items()
    }
    parts = {name: part for name, part in of_systems.items() if part is not None}
    aurocs = {(name, ""): auroc_over_seeds(part) for name, part in parts.items()}
    for pair in combinations(parts, 2):
        aurocs[pair] = auroc_over_seeds(parts[pair[0]], parts[pair[1]])
    if by_image:  # DeLong's own: normal, and without a logit
        aurocs = {
            names: replace(auroc, freedom=np.inf, bounded=False) for names, auroc in aurocs.items()
        }
    return aurocs


def seed_parts(
    members: Sequence[Scorecard], chosen: np.ndarray, *, by_image: bool = False
) -> list[AurocParts] | None:
    """Return what patients, or images, add to the AUROC of each seed.

    Args:
        members: Scorecards of one system, one for each training seed.
        chosen: True for the images that count, shape ``(N,)``.
        by_image: Let images count as independent.

    Returns:
        Contributions for each seed; `None` where a class is absent.
    """
    evaluated = members[0].evaluated
    clusters = evaluated.patients[chosen]
    n_clusters = evaluated.n_patients
    if by_image:
        n_clusters = int(chosen.sum())
        clusters = np.arange(n_clusters)
    y_true = evaluated.y_true[chosen]
    parts = [
        auroc_parts(y_true, scorecard.scores[chosen], clusters, n_clusters) for scorecard in members
    ]
    known = [part for part in parts if part is not None]
    return known if known and len(known) == len(parts) else None


@dataclass
class _Rows:
    """Rows of tests by other methods than the bootstrap."""

    target: str
    reference: str  # name of the reference system
    level: float  # coverage of each interval for which all contrasts hold at once
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, estimate: ClusteredEstimate, pair: tuple[str, str], **rest: Any) -> None:
        """Add a row: an estimate with what follows from it, and its further columns."""
        low, high = estimate.interval or (None, None)
        of_two = bool(pair[1])
        wide = estimate.interval_at(self.level) if of_two and pair[0] == self.reference else None
        row = {
            "target": self.target,
            "unit": "image",
            "first": pair[0],
            "second": pair[1],
            "estimate": estimate.value,
            "ci_low": low,
            "ci_high": high,
            "ci_low_all": wide[0] if wide else None,
            "ci_high_all": wide[1] if wide else None,
            "standard_error": estimate.error,
            "p_value": estimate.p_value if of_two else None,
            "detectable": estimate.detectable if of_two else None,
            "note": estimate.note,
        }
        self.rows.append(row | rest)


def _auroc_rows(
    rows: _Rows,
    subgroup: str,
    scorecards: Scorecards,
    chosen: np.ndarray,
    clustered: _ClusteredAuroc,
) -> None:
    of = {
        "subgroup": subgroup,
        "policy": "",
        "metric": "auroc",
        "n_images": int(chosen.sum()),
        "n_patients": len(np.unique(evaluation_set_of(scorecards).patients[chosen])),
    }
    single = {name: members for name, members in scorecards.items() if len(members) == 1}
    for method, independent, aurocs in (
        (OBUCHOWSKI, "patients", clustered[subgroup]),
        (DELONG, "images", _aurocs(single, chosen, by_image=True)),
    ):
        for pair, estimate in aurocs.items():
            rows.add(estimate, pair, **of, method=method, independent=independent)


def _decision_rows(
    rows: _Rows, subgroup: str, scorecards: Scorecards, evaluated_on: np.ndarray
) -> None:
    """Add McNemar's tests, clustered and exact, at every policy with a threshold for both."""
    evaluated = evaluation_set_of(scorecards)
    policies = dict.fromkeys(p for members in scorecards.values() for p in members[0].thresholds)
    refitted = {
        p
        for members in scorecards.values()
        for scorecard in members
        for p in scorecard.chosen_policies
    }
    of_share = {
        "all": evaluated_on,
        "positive": evaluated_on & evaluated.y_true,
        "negative": evaluated_on & ~evaluated.y_true,
    }
    populations = {
        metric.name: of_share[metric.share_of]
        for metric in METRICS.values()
        if metric.test == "mcnemar" and metric.share_of is not None
    }
    for policy in policies:
        right = {name: _shares_right(members, policy) for name, members in scorecards.items()}
        fixed = choices_text({THRESHOLDS: False}) if policy in refitted else ""
        for pair in combinations(scorecards, 2):
            one, other = (right[name] for name in pair)
            if one is None or other is None:
                continue
            for metric, chosen in populations.items():
                if not chosen.any():
                    continue
                patients = evaluated.patients[chosen]
                test = clustered_mcnemar(
                    one[:, chosen], other[:, chosen], patients, evaluated.n_patients
                )
                of = {
                    "subgroup": subgroup,
                    "policy": policy,
                    "metric": metric,
                    "first_only": test.first_only,
                    "second_only": test.second_only,
                    "n_images": test.n_images,
                    "n_patients": len(np.unique(patients)),
                }
                by_patient = {"method": MCNEMAR + fixed, "independent": "patients"}
                rows.add(test.difference, pair, **of, **by_patient, p_value=test.p_value)
                if test.p_exact is not None:
                    value = ClusteredEstimate(test.difference.value, None)
                    by_image = {"method": EXACT + fixed, "independent": "images"}
                    rows.add(value, pair, **of, **by_image, p_value=test.p_exact)


def _shares_right(members: Sequence[Scorecard], policy: str) -> Floats | None:
    """Return 1 where a seed decides an image correctly at a policy, shape ``(seeds, N)``."""
    right = []
    for scorecard in members:
        called = scorecard.called(policy)
        if called is None:
            return None
        right.append((called == scorecard.evaluated.y_true).astype(np.float64))
    return np.stack(right)


def with_clustered_auroc(estimates: Estimates, scorecards: Scorecards) -> Estimates:
    """Give every AUROC Obuchowski's interval; without one it has no interval at all."""
    clustered = _clustered_auroc(scorecards)
    levels = family_levels(len(scorecards))

    def with_interval(names: tuple[str, ...], key: MetricKey, estimate: Estimate) -> Estimate:
        pair = (*names, "")[:2]
        auroc = clustered.get(key.subgroup, {}).get((pair[0], pair[1]))
        if key.metric != "auroc" or auroc is None:
            return estimate
        if auroc.interval is None:
            return replace(estimate, low=np.nan, high=np.nan, method="", kind=None, family=())
        low, high = auroc.interval
        bounded = replace(estimate, low=low, high=high, note="", family=())
        if auroc.exact:
            return replace(bounded, method=EXACT_AUROC, kind="exact")
        several = any(len(scorecards[name]) > 1 for name in names)
        method = OVER_SEEDS if several else OBUCHOWSKI
        return replace(
            bounded,
            method=method if len(names) == 2 else f"{method} (on the logit)",
            kind="seeds" if several else "obuchowski",
            family=auroc.intervals_at(levels) if len(names) == 2 else (),
        )

    return estimates.changed(with_interval)
