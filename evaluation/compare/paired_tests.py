"""Tests of the paired differences between systems in all figures.

Patients are taken as independent. For AUROC and decisions, tests that take images as independent
are listed as well.
"""

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
"""Columns of the table of tests.

``independent`` says if patients or images are taken as independent. ``ci_low_all`` and
``ci_high_all`` are the ends of the interval that holds for all differences from the reference
system at once. ``p_holm_pairs`` is corrected over all pairs of systems, ``p_holm`` over all
comparisons of an answer. ``detectable`` is the smallest true difference that such a test set shows
with 80 % power. ``first_only`` and ``second_only`` count the images that only one system decides
correctly.
"""
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
    """Compute the two-sided p-value of a difference of 0 from its bootstrap replicates.

    The p-value is twice the share of replicates on that side of 0 which has fewer; replicates of
    exactly 0 count on both sides. 1 is added to both counts, so that the p-value is never 0. If the
    effective number of patients is given, the p-value is enlarged so that it agrees with a
    percentile interval that is widened for few patients by `expanded_level`.

    Args:
        replicates: Values of the difference on R bootstrap resamples, shape ``(R,)``; NaN where it
            is undefined.
        patients: Effective number of patients: how many patients with one image each would give as
            much information. None enlarges nothing.

    Returns:
        The p-value in (0, 1]; None if every replicate is undefined.

    Source:
        Efron and Tibshirani 1993, sections 15.4 and 16.4; Davison and Hinkley 1997, section 4.2.

    Example:
        >>> bootstrap_p_value(np.array([0.1] * 97 + [-0.1] * 2))
        0.06
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
    """Test all paired differences with the replicates of the bootstrap.

    Args:
        estimates: Figures of all systems and their paired differences, with intervals.
        differences: Replicates of the differences (their values on bootstrap resamples) by names of
            the two systems and key of the figure; for systems with several training seeds,
            estimates over the seeds.

    Returns:
        Table with the columns of `TEST_COLUMNS`, such as ``first`` and ``second`` (names of the
        systems), ``metric``, ``method`` and ``p_value``: one row for the AUROC of each system,
        without a p-value, and one for each difference.
    """
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
    """Join tables of tests, and correct the p-values of all pairs of systems by Holm's method.

    The pairs with the same unit, subgroup, policy, metric and method are corrected together, in the
    column ``p_holm_pairs``. The column ``p_holm`` is filled by `Comparison.tests_with_holm`.
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
"""Name of the test that decides if a threshold, or a score cut of boxes, was chosen on validation.
"""
SEEDS_TEST = f"{OVER_SEEDS}; covariances of the {BOOTSTRAP.removesuffix(' percentile')}"
"""Name of the test of a figure other than AUROC if a system has several training seeds."""


def paired_tests(
    estimates: Estimates,
    scorecards: Scorecards,
    differences: Differences | None = None,
    more: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Test the difference of every pair of systems in every figure.

    All figures have a test by the bootstrap. AUROC is also tested by Obuchowski's and DeLong's
    methods, and accuracy, sensitivity and specificity by McNemar's test, clustered by patient and
    exact. Of several tests of one figure, the one that decides comes first: these methods come
    before the bootstrap, unless the bootstrap chooses the threshold again in each resample, because
    McNemar's test keeps thresholds fixed.

    Args:
        estimates: Figures and paired differences with bootstrap intervals.
        scorecards: Scorecards by display name of the system, one for each training seed; a
            scorecard computes all figures of one trained model on the evaluated images.
        differences: Replicates of the paired differences (their values on bootstrap resamples), or
            estimates over training seeds, by names of the two systems and key of the figure. With
            `None`, the rows of the bootstrap have no p-value.
        more: Table of further tests with the same columns, such as those of figures by study or
            patient, to be added; `None` adds none.

    Returns:
        Table with one row for each test and the columns of `TEST_COLUMNS`, such as ``first`` and
        ``second`` (names of the systems), ``metric``, ``policy`` (rule for the threshold),
        ``method``, ``estimate`` (first minus second system) and ``p_value``. A row on the AUROC of
        one system has an empty ``second`` and no p-value.

    Source:
        Obuchowski 1997 and 1998; DeLong et al. 1988; McNemar 1947; Holm 1979.

    Example:
        >>> from cxr_compare.evaluation.compare.intervals import resampled_figures
        >>> from cxr_compare.evaluation.decisions.ground_truth import no_boxes
        >>> from cxr_compare.evaluation.statistics.bootstrap import Resamples
        >>> n = np.arange(60)
        >>> evaluated = EvaluationSet(
        ...     pd.Index(n), n % 2 == 0, n, 60, np.zeros(60, dtype=bool), no_boxes())
        >>> scores = {"A": pd.Series((n * 7 % 10 + 6 * (n % 2 == 0)) / 20), "B": pd.Series(n / 60)}
        >>> scorecards = {name: [Scorecard(evaluated, scores[name], {})] for name in scores}
        >>> drawn = resampled_figures("opacity", scorecards, Resamples(60, 200, 0))
        >>> tests = paired_tests(drawn.estimates, scorecards, drawn.differences)
        >>> tests[(tests["metric"] == "auroc") & (tests["second"] == "B")]["method"].tolist()[0]
        'Obuchowski 1997, clustered by patient'
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
"""AUROC and its differences by subgroup and pair; for one system the second name is empty."""


def _clustered_auroc(scorecards: Scorecards) -> _ClusteredAuroc:
    """Estimate every AUROC and its paired differences by Obuchowski's method, by patient."""
    subgroups = _subgroups(evaluation_set_of(scorecards))
    return {subgroup: _aurocs(scorecards, chosen) for subgroup, chosen in subgroups.items()}


def _aurocs(
    scorecards: Scorecards, chosen: np.ndarray, *, by_image: bool = False
) -> dict[tuple[str, str], ClusteredEstimate]:
    """Estimate the AUROC of every system and the difference of every pair.

    Systems whose AUROC is undefined are left out.
    """
    of_systems = {
        name: seed_parts(members, chosen, by_image=by_image) for name, members in scorecards.items()
    }
    parts = {name: part for name, part in of_systems.items() if part is not None}
    aurocs = {(name, ""): auroc_over_seeds(part) for name, part in parts.items()}
    for pair in combinations(parts, 2):
        aurocs[pair] = auroc_over_seeds(parts[pair[0]], parts[pair[1]])
    if by_image:  # DeLong's interval: by the normal distribution, and not on the logit
        aurocs = {
            names: replace(auroc, freedom=np.inf, bounded=False) for names, auroc in aurocs.items()
        }
    return aurocs


def seed_parts(
    members: Sequence[Scorecard], chosen: np.ndarray, *, by_image: bool = False
) -> list[AurocParts] | None:
    """Compute the contribution of each patient to the AUROC, for every training seed.

    The variance of the AUROC and the covariance between seeds and systems are computed from them.

    Args:
        members: Objects that compute all figures of one trained model, one for each training seed
            of one system.
        chosen: True for the images on which the AUROC is computed, shape ``(N,)``.
        by_image: If True, contributions of images instead of patients are computed, as if images
            were independent.

    Returns:
        The AUROC with its contributions, one item for each seed; `None` if all chosen images are of
        one class.
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
    """Rows of the table of tests, for methods other than the bootstrap."""

    target: str
    reference: str  # name of the reference system
    level: float  # coverage of an interval if all differences from the reference are to hold
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, estimate: ClusteredEstimate, pair: tuple[str, str], **rest: Any) -> None:
        """Add one row to the table of tests.

        Args:
            estimate: Figure of one system, or difference of two systems in it, with standard error,
                interval and p-value.
            pair: Display names of the first and the second system; the second is empty for the
                figure of one system.
            **rest: Values of further columns by their name in `TEST_COLUMNS`, such as
                ``metric="auroc"`` or ``method="..."``. They replace values that follow from
                `estimate`, such as ``p_value``.
        """
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
    """Add McNemar's tests, clustered by patient and exact, at every policy.

    A pair is tested at a policy if both systems have a threshold for it.
    """
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
    """Return 1 where a seed decides an image correctly at a policy and else 0, ``(seeds, N)``.

    The result is None if a seed has no threshold for the policy.
    """
    right = []
    for scorecard in members:
        called = scorecard.called(policy)
        if called is None:
            return None
        right.append((called == scorecard.evaluated.y_true).astype(np.float64))
    return np.stack(right)


def with_clustered_auroc(estimates: Estimates, scorecards: Scorecards) -> Estimates:
    """Replace the interval of every AUROC, and of its differences, by that of Obuchowski's method.

    If the method gives no interval, the AUROC has none. If a system has several training seeds, the
    interval is that of Obuchowski and Rockette.

    Args:
        estimates: Figures and paired differences with bootstrap intervals.
        scorecards: Scorecards by display name of the system, one for each training seed; a
            scorecard computes all figures of one trained model on the evaluated images.

    Returns:
        The estimates, in which the intervals of the AUROC are replaced.

    Source:
        Obuchowski 1997; Obuchowski and Rockette 1995.

    Example:
        >>> from cxr_compare.evaluation.compare.intervals import resampled_figures
        >>> from cxr_compare.evaluation.decisions.ground_truth import no_boxes
        >>> from cxr_compare.evaluation.statistics.bootstrap import Resamples
        >>> n = np.arange(60)
        >>> evaluated = EvaluationSet(
        ...     pd.Index(n), n % 2 == 0, n, 60, np.zeros(60, dtype=bool), no_boxes())
        >>> scorecards = {"A": [Scorecard(evaluated, pd.Series(n / 60), {})]}
        >>> drawn = resampled_figures("opacity", scorecards, Resamples(60, 200, 0))
        >>> with_clustered_auroc(drawn.estimates, scorecards).get("A", "auroc").method
        'Obuchowski 1997, clustered by patient (on the logit)'
    """
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
