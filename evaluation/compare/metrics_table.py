"""Estimates, intervals and paired differences of every figure, and why one is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import beta  # type: ignore[attr-defined]

from data_prep.contracts.errors import InputError
from evaluation.compare.figures import Counts, Figure, Figures, IntervalKind
from evaluation.compare.scorecard import Scorecard
from evaluation.compare.seeds import SeedMean, mean_replicates
from evaluation.metrics.evaluation_set import EvaluationSet, MetricKey
from evaluation.metrics.registry import METRICS, family, why_undefined
from evaluation.statistics.bootstrap import (
    LEVEL,
    NO_WIDTH,
    Interval,
    Resamples,
    cluster_bootstrap,
    percentile_interval,
)
from evaluation.statistics.ranking import Floats

if TYPE_CHECKING:
    from evaluation.compare.scorecard import Scorecard
    from evaluation.metrics.evaluation_set import MetricKey


EXACT_METHOD = "exact (Clopper-Pearson), patients as trials"


def _clopper_pearson(hits: int, trials: int, level: float = LEVEL) -> Interval:
    """The exact interval of a proportion.

    Source:
        Clopper and Pearson 1934.

    Example:
        >>> interval = _clopper_pearson(10, 10)
        >>> round(interval.low, 4), interval.high
        (0.6915, 1.0)
    """
    if not 0 <= hits <= trials or not trials:
        raise InputError(f"clopper_pearson: {hits} hits of {trials} trials; give at least one")
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return Interval(hits / trials, low, high)


def _exact_interval(card: Scorecard, figure: MetricKey, estimate: float) -> Interval | None:
    """The interval of a proportion that is 0 or 1.

    All images that count are then decided alike, so a patient is one trial, right or wrong with
    all of them: more trials than patients would promise more than was seen.
    """
    judged = card.judged
    called = card.called(figure.policy) if figure.policy else None
    share_of = METRICS[figure.metric].share_of
    if share_of is None or estimate not in (0.0, 1.0):
        return None
    counted = {
        "all": np.ones_like(judged.y_true),
        "positive": judged.y_true,
        "negative": ~judged.y_true,
        "called": called,
        "not_called": None if called is None else ~called,
    }[share_of]
    if counted is None:
        return None
    patients = np.unique(judged.patients[counted & judged.population(figure)])
    if len(patients) < 2:  # one patient gives no interval here, by any method
        return None
    return _clopper_pearson(len(patients) if estimate else 0, len(patients))


NOT_TUNED = "not tuned for this policy"
_ONE_PATIENT = "one patient gives no interval"


class ResampledFigures(NamedTuple):
    """Figures, and the replicates of their paired differences."""

    figures: Figures
    differences: dict[tuple[str, str], dict[MetricKey, Floats]]


def resampled_figures(
    target: str,
    cards: Mapping[str, Sequence[Scorecard]],
    resamples: Resamples,
    *,
    unit: str = "image",
    kept: Callable[[MetricKey], bool] = lambda key: key.metric not in family("counts"),
    advance: Callable[[int], None] | None = None,
) -> ResampledFigures:
    """Resample the patients of all models at once, for the figures of their systems."""

    def statistic(weights: np.ndarray) -> dict[tuple[str, int, MetricKey], Floats]:
        return {
            (name, seed, key): values
            for name, each in cards.items()
            for seed, card in enumerate(each)
            for key, values in card(weights).items()
            if kept(key)
        }

    seeds = {name: len(each) for name, each in cards.items()}
    replicates = mean_replicates(cluster_bootstrap(statistic, resamples, advance), seeds, resamples)
    joined = {name: SeedMean(each) if len(each) > 1 else each[0] for name, each in cards.items()}
    figures = figures_of(target, joined, replicates, resamples, seeds=seeds, unit=unit)
    differences = {
        (first, second): {
            key: values - replicates[second, key]
            for (name, key), values in replicates.items()
            if name == first and (second, key) in replicates
        }
        for first, second in combinations(cards, 2)
    }
    return ResampledFigures(figures, differences)


def figures_of(
    target: str,
    cards: Mapping[str, Scorecard | SeedMean],
    replicates: Mapping[tuple[str, MetricKey], Floats],
    resamples: Resamples,
    *,
    seeds: Mapping[str, int] | None = None,
    unit: str = "image",
) -> Figures:
    """Put the estimates and replicates of all systems together."""
    maker = _Maker(next(iter(cards.values())).judged, resamples)
    estimates = {name: card.estimates() for name, card in cards.items()}
    missing = {name: card.missing() for name, card in cards.items()}
    several = {name for name in cards if (seeds or {}).get(name, 1) > 1}
    systems: dict[str, dict[MetricKey, Figure]] = {}
    for name, card in cards.items():
        systems[name] = {
            key: maker.figure(
                key,
                estimate,
                replicates.get((name, key)),
                why_undefined(key.metric) if estimate is None else "",
                seeded=name in several,
                card=card,
            )
            for key, estimate in estimates[name].items()
        }
        systems[name] |= {
            key: maker.figure(key, None, None, reason) for key, reason in missing[name].items()
        }
    level, reference = simultaneous_level(len(cards)), next(iter(cards))
    differences: dict[tuple[str, str], dict[MetricKey, Figure]] = {}
    for pair in combinations(cards, 2):
        found = differences[pair] = {}
        for key in dict.fromkeys([*estimates[pair[0]], *missing[pair[0]]]):
            if key.metric in family("counts"):
                continue
            one, other = (estimates[name].get(key) for name in pair)
            drawn = [replicates.get((name, key)) for name in pair]
            known = [values for values in drawn if values is not None]
            figure = maker.figure(
                key,
                None if one is None or other is None else one - other,
                known[0] - known[1] if len(known) == 2 else None,
                _why_no_difference(key, pair, estimates, missing),
                seeded=bool(several.intersection(pair)),
            )
            if pair[0] == reference and figure.bounded:
                wide = percentile_interval(known[0] - known[1], level, estimate=figure.estimate)
                figure = replace(figure, simultaneous=(wide.low, wide.high))
            found[key] = figure
    return Figures(target, unit, systems, differences)


def _why_no_difference(
    key: MetricKey,
    pair: tuple[str, str],
    estimates: Mapping[str, Mapping[MetricKey, float | None]],
    missing: Mapping[str, Mapping[MetricKey, str]],
) -> str:
    reasons = []
    for name in pair:
        if estimates[name].get(key) is not None:
            continue
        reason = why_undefined(key.metric) if key in estimates[name] else NOT_TUNED
        reasons.append(f"{name}: {missing[name].get(key, reason)}")
    return "; ".join(reasons)


class _Maker:
    """Makes figures; counts of a figure's images are found once."""

    def __init__(self, judged: EvaluationSet, resamples: Resamples) -> None:
        self._judged, self._resamples = judged, resamples
        self._counts: dict[bytes, Counts] = {}

    def figure(
        self,
        key: MetricKey,
        estimate: float | None,
        drawn: Floats | None,
        note: str,
        *,
        seeded: bool = False,
        card: Scorecard | SeedMean | None = None,
    ) -> Figure:
        interval, method = Interval(), ""
        kind: IntervalKind = "bootstrap"
        if estimate is not None:
            interval = Interval(estimate)
            if drawn is not None and self._judged.n_patients < 2:
                interval = Interval(estimate, note=_ONE_PATIENT)
            elif drawn is not None:
                interval = percentile_interval(drawn, estimate=estimate)
            method = self._resamples.method
            method += " of patients and training seeds" if seeded else ""
            if interval.note == NO_WIDTH and isinstance(card, Scorecard):
                exact = _exact_interval(card, key, estimate)
                if exact is not None:
                    interval, method, kind = exact, EXACT_METHOD, "exact"
        return Figure(
            interval.estimate,
            interval.low,
            interval.high,
            "; ".join(part for part in (note, interval.note) if part),
            method=method if interval.bounded else "",
            kind=kind if interval.bounded else None,
            counts=self._counts_of(key),
        )

    def _counts_of(self, key: MetricKey) -> Counts:
        chosen = self._judged.population(key)
        cells = chosen.tobytes()
        if cells not in self._counts:
            self._counts[cells] = Counts(
                n_images=int(chosen.sum()),
                n_patients=len(np.unique(self._judged.patients[chosen])),
                n_positive=int((chosen & self._judged.y_true).sum()),
            )
        return self._counts[cells]


def simultaneous_level(n_systems: int) -> float:
    """Coverage of each interval, so that all contrasts with the reference hold in 95 % of cases.

    Source:
        Bonferroni's inequality.

    Example:
        >>> simultaneous_level(2), simultaneous_level(3)
        (0.95, 0.975)
    """
    return 1 - (1 - LEVEL) / max(n_systems - 1, 1)
