"""Tests of paired differences: AUROC and decisions, by patient and, beside it, by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from evaluation.compare.scorecard import Scorecard
from evaluation.metrics.evaluation_set import ALL, VERSUS_NORMAL, JudgedImages, MetricKey
from evaluation.metrics.registry import METRICS
from evaluation.statistics.auroc_variance import (
    AurocParts,
    ClusteredEstimate,
    SeedSpread,
    auroc_parts,
    mean_parts,
    smallest_detectable,
)
from evaluation.statistics.bootstrap import BOOTSTRAP, LEVEL, percentile_interval
from evaluation.statistics.mcnemar import clustered_mcnemar, holm
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
    differences: Mapping[tuple[str, MetricKey], Floats],
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
        figure = MetricKey(row["subgroup"], row["policy"], row["metric"])
        drawn = differences.get((name, figure))
        if drawn is not None and not pd.isna(row["ci_low"]):
            error = float(np.nanstd(drawn, ddof=1))
            described |= {
                "standard_error": error,
                "p_value": percentile_p(drawn),
                "detectable": smallest_detectable(error),
            }
            if first == systems[0]:
                wide = percentile_interval(drawn, level, estimate=row["estimate"])
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


OBUCHOWSKI = "Obuchowski 1997, clustered by patient"
DELONG = "DeLong 1988, images taken as independent"
MCNEMAR = "Obuchowski 1998, McNemar clustered by patient"
EXACT = "exact McNemar, images taken as independent"


def paired_tests(
    target: str,
    cards: Mapping[str, Sequence[Scorecard]],
    metrics: pd.DataFrame,
    differences: Mapping[tuple[str, MetricKey], Floats] | None = None,
    more: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Test every pair of systems on every figure.

    AUROC, accuracy, sensitivity and specificity have tests of their own, by patient and by image;
    all that the bootstrap has replicates of has its p-value, too, and stands after them.

    Args:
        target: The target's name.
        cards: Per system one scorecard a training seed, all on the same images; the first system
            is the reference.
        metrics: The tidy table; its bootstrap intervals are taken over.
        differences: Replicates of its paired differences; those left out have no such p-value.
        more: Tests by another unit, from `evaluation.compare.paired_tests.resampled_tests`.

    Returns:
        The columns of `TEST_COLUMNS`. ``second`` is empty for the interval of one system.
        ``independent`` says what is taken as independent: patients or images. ``p_holm`` is over
        the contrasts with the reference system, ``p_holm_pairs`` over all pairs; each is per
        unit, subgroup, policy, metric and method. ``ci_low_all`` and ``ci_high_all`` cover all
        contrasts with the reference at once (Bonferroni). ``detectable`` is the smallest true
        difference that such a test set shows with 80 % power (two-sided 5 %).

    Source:
        Obuchowski 1997 and 1998; DeLong et al. 1988; McNemar 1947; Holm 1979.
    """
    judged = next(iter(cards.values()))[0].judged
    rows = _Rows(target, next(iter(cards)), simultaneous_level(len(cards)))
    subgroups = {ALL: np.ones(len(judged.y_true), dtype=bool)}
    if judged.versus_normal is not None:
        subgroups[VERSUS_NORMAL] = judged.versus_normal
    for subgroup, chosen in subgroups.items():
        _auroc_rows(rows, subgroup, cards, chosen)
        _decision_rows(rows, subgroup, cards, chosen)
    own = pd.DataFrame(rows.found, columns=list(TEST_COLUMNS))
    drawn = resampled_tests(metrics, list(cards), differences or {})
    return adjusted([own, drawn, *([] if more is None else [more])], rows.reference)


@dataclass
class _Rows:
    """Rows under way."""

    target: str
    reference: str
    level: float

    def __post_init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def add(self, estimate: ClusteredEstimate, pair: tuple[str, str], **rest: Any) -> None:
        """Add a row: an estimate with what follows from it, and what it is of."""
        low, high = estimate.interval or (None, None)
        differs = bool(pair[1])
        wide = estimate.interval_at(self.level) if differs and pair[0] == self.reference else None
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
            "p_value": estimate.p_value if differs else None,
            "detectable": estimate.detectable if differs else None,
            "note": estimate.note,
        }
        self.found.append(row | rest)


def _auroc_rows(
    rows: _Rows,
    subgroup: str,
    cards: Mapping[str, Sequence[Scorecard]],
    chosen: np.ndarray,
) -> None:
    judged = next(iter(cards.values()))[0].judged
    n_images = int(chosen.sum())
    patients = judged.patients[chosen]
    n_patients = len(np.unique(patients))
    each_alone = (np.arange(n_images), n_images)
    of = {"subgroup": subgroup, "policy": "", "metric": "auroc"}
    of |= {"n_images": n_images, "n_patients": n_patients}  # type: ignore[dict-item]
    by_unit = (
        (OBUCHOWSKI, "patients", (patients, judged.n_patients)),
        (DELONG, "images", each_alone),
    )
    for method, independent, clusters in by_unit:
        parts: dict[str, AurocParts] = {}
        spread: dict[str, list[SeedSpread]] = {}
        for name, members in cards.items():
            each = [
                auroc_parts(judged.y_true[chosen], card.scores[chosen], *clusters)
                for card in members
            ]
            known = [part for part in each if part is not None]
            if len(known) < len(each):
                continue
            parts[name] = mean_parts(known)
            spread[name] = SeedSpread.of([part.value for part in known])
        described = of | {"method": method, "independent": independent}
        for name, part in parts.items():
            rows.add(part.estimate(spread[name]), (name, ""), **described)
        for first, second in combinations(parts, 2):
            gap = (parts[first] - parts[second]).estimate(spread[first] + spread[second])
            rows.add(gap, (first, second), **described)


def _decision_rows(
    rows: _Rows, subgroup: str, cards: Mapping[str, Sequence[Scorecard]], judged_on: np.ndarray
) -> None:
    """Clustered and exact McNemar at every policy that both systems have a threshold for."""
    judged = next(iter(cards.values()))[0].judged
    policies = dict.fromkeys(p for members in cards.values() for p in members[0].thresholds)
    of_share = {"all": judged_on, "positive": judged_on & judged.y_true}
    of_share["negative"] = judged_on & ~judged.y_true
    populations = {
        metric.name: of_share[metric.share_of]
        for metric in METRICS.values()
        if metric.test == "mcnemar" and metric.share_of is not None
    }
    for policy in policies:
        right = {name: shares_right(members, policy) for name, members in cards.items()}
        for first, second in combinations(cards, 2):
            shares = [right[first], right[second]]
            if shares[0] is None or shares[1] is None:
                continue
            for metric, chosen in populations.items():
                if chosen.any():
                    of = {"subgroup": subgroup, "policy": policy, "metric": metric}
                    _test_decisions(
                        rows, of, (first, second), (shares[0], shares[1]), chosen, judged
                    )


def _test_decisions(
    rows: _Rows,
    of: dict[str, str],
    pair: tuple[str, str],
    shares: tuple[Floats, Floats],
    chosen: np.ndarray,
    judged: JudgedImages,
) -> None:
    spread = [s for share in shares for s in SeedSpread.of(share[:, chosen].mean(axis=1).tolist())]
    means = [share[:, chosen].mean(axis=0) for share in shares]
    patients = judged.patients[chosen]
    test = clustered_mcnemar(means[0], means[1], patients, judged.n_patients, spread)
    counts = {
        "first_only": test.first_only,
        "second_only": test.second_only,
        "n_images": test.n_images,
        "n_patients": len(np.unique(patients)),
    }
    clustered = {"method": MCNEMAR, "independent": "patients", "p_value": test.p_value}
    rows.add(test.difference, pair, **of, **counts, **clustered)
    if test.p_exact is not None:
        exact = {"method": EXACT, "independent": "images", "p_value": test.p_exact}
        rows.add(ClusteredEstimate(test.difference.value, None), pair, **of, **counts, **exact)


def shares_right(members: Sequence[Scorecard], policy: str) -> Floats | None:
    """Whether each seed gets each image right at a policy, shape ``(seeds, N)``.

    Returns:
        `None` where a seed has no threshold for the policy.
    """
    right = []
    for card in members:
        called = card.called(policy) if policy in card.thresholds else None
        if called is None:
            return None
        right.append((called == card.judged.y_true).astype(np.float64))
    return np.stack(right)


def with_clustered_auroc(
    metrics: pd.DataFrame, tests: pd.DataFrame, teams: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Give the AUROC rows of the tidy table Obuchowski's intervals.

    Args:
        metrics: The tidy table with bootstrap intervals.
        tests: From `paired_tests`.
        teams: The models of each system; those of several seeds are told as such.

    Returns:
        The table; where Obuchowski gives no interval, neither does it.
    """
    chosen = tests[tests["method"] == OBUCHOWSKI]
    second = chosen["second"].where(chosen["second"] == "", " - " + chosen["second"])
    keyed = chosen.set_index([chosen["first"] + second, "subgroup"])
    table = metrics.copy()
    several = {name for name, models in teams.items() if len(models) > 1}
    for row in table.index[table["metric"] == "auroc"]:
        key = (table.loc[row, "system"], table.loc[row, "subgroup"])
        if key not in keyed.index:
            continue
        found = keyed.loc[key]
        table.loc[row, ["ci_low", "ci_high"]] = [found["ci_low"], found["ci_high"]]
        known = pd.notna(found["ci_low"])
        single = " (on the logit)" if " - " not in str(key[0]) else ""
        seeds = " and training seed" if several.intersection(str(key[0]).split(" - ")) else ""
        table.loc[row, "ci_method"] = f"{OBUCHOWSKI}{seeds}{single}" if known else ""
        if known:
            table.loc[row, "note"] = ""
    return table
