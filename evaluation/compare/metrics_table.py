"""Estimates, intervals and paired differences of every figure, and why one is missing.

Every resample draws validation patients, too, the same for all systems, and chooses thresholds
again on these: a figure at a chosen threshold varies as it would had other patients been at hand
to choose and to judge. Beside such an interval stands the one with thresholds held.

Of several training seeds of one system figures are means, and intervals are Obuchowski and
Rockette's, with the replicates' covariances between all seeds of all systems.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import beta

from data_prep.contracts.errors import InputError
from evaluation.compare.estimates import (
    OVER_SEEDS,
    Differences,
    Estimate,
    Estimates,
    IntervalKind,
    SampleSize,
    family_level,
    family_sizes,
    is_chosen,
    of_thresholds,
)
from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.refit import refit_thresholds
from evaluation.metrics.evaluation_set import EvaluationSet, MetricKey
from evaluation.metrics.registry import METRICS, family, why_undefined
from evaluation.statistics.auroc_variance import (
    ClusteredEstimate,
    effective_patients,
    over_seeds,
)
from evaluation.statistics.bootstrap import (
    LEVEL,
    NO_WIDTH,
    Interval,
    Resamples,
    cluster_bootstrap,
    expanded_level,
    percentile_interval,
)
from evaluation.statistics.ranking import Floats

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
_CHOICE_UNSURE = "thresholds were refitted: other validation patients would have chosen otherwise"
_CALIBRATION_INSTEAD = "of calibration, read Brier score, slope and in the large"
_ONE_PATIENT = "one patient gives no interval"


@dataclass(frozen=True)
class SeedMean:
    """The figures of several seeds of one system, as one scorecard.

    Attributes:
        cards: One per seed, on the same images.
    """

    cards: Sequence[Scorecard]

    @property
    def judged(self) -> EvaluationSet:
        """The images."""
        return self.cards[0].judged

    @cached_property
    def each(self) -> list[dict[MetricKey, float | None]]:
        """The figures of each seed."""
        return [card.estimates() for card in self.cards]

    def estimates(self) -> dict[MetricKey, float | None]:
        """Means over the seeds; undefined where any seed's figure is."""
        means: dict[MetricKey, float | None] = {}
        for figure in dict.fromkeys(name for figures in self.each for name in figures):
            values = [figures.get(figure) for figures in self.each]
            known = [value for value in values if value is not None]
            means[figure] = float(np.mean(known)) if len(known) == len(self.each) else None
        return means

    def missing(self) -> dict[MetricKey, str]:
        """Estimates that a seed cannot have, with the reason."""
        return {
            figure: f"seed {place + 1}: {reason}"
            for place, card in enumerate(self.cards)
            for figure, reason in card.missing().items()
        }


class _Seeds:
    """Figures of systems of which one or more have several seeds, after Obuchowski and Rockette.

    Their covariances over patients are those of the replicates. So where thresholds are refitted,
    the luck of their choice is in them, which leaving out test patients in turn would not show.
    """

    def __init__(
        self, each: Mapping[str, Sequence[Mapping[MetricKey, float | None]]], drawn: _OfModels
    ) -> None:
        self._each, self._drawn = each, drawn

    def of(
        self, names: Sequence[str], key: MetricKey, effective: float | None
    ) -> ClusteredEstimate | None:
        """A system's figure, or the difference of two.

        `None` where no system has several seeds, or a seed lacks the figure.
        """
        each = [[seed.get(key) for seed in self._each[name]] for name in names]
        drawn = [
            self._drawn.get((name, place, key))
            for name in names
            for place in range(len(self._each[name]))
        ]
        values = [[value for value in seeds if value is not None] for seeds in each]
        known = [replicates for replicates in drawn if replicates is not None]
        several = max(map(len, each)) > 1
        if not several or len(known) < len(drawn) or [*map(len, values)] != [*map(len, each)]:
            return None
        table = np.column_stack(known)
        table = table[~np.isnan(table).any(axis=1)]
        if len(table) < 2:
            return None
        metric = METRICS[key.metric]
        return over_seeds(
            values,
            np.cov(table.T),
            max((effective or np.inf) - 1, 1.0),
            bounded=len(names) == 1 and metric.share_of is not None,
            span=np.inf if metric.unbounded else 1.0,
        )


def _means(drawn: _OfModels, seeds: Mapping[str, int]) -> dict[tuple[str, MetricKey], Floats]:
    """Replicates of the mean over seeds; of a figure that each seed has."""
    found: dict[tuple[str, MetricKey], Floats] = {}
    for name, count in seeds.items():
        for key in [key for system, seed, key in drawn if system == name and not seed]:
            each = [drawn.get((name, seed, key)) for seed in range(count)]
            known = [values for values in each if values is not None]
            if len(known) == count:
                found[name, key] = known[0] if count == 1 else np.mean(known, axis=0)
    return found


class ResampledFigures(NamedTuple):
    """Estimates, and the replicates of their paired differences, or of seeds their estimates."""

    estimates: Estimates
    differences: Differences


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
    seeds = {name: len(each) for name, each in cards.items()}
    drawn, drawn_held = _draw(cards, resamples, kept, advance)
    replicates, held = _means(drawn, seeds), _means(drawn_held, seeds)
    joined = {name: SeedMean(each) if len(each) > 1 else each[0] for name, each in cards.items()}
    of_seeds = None
    if max(seeds.values()) > 1:
        each = {
            name: card.each if isinstance(card, SeedMean) else [card.estimates()]
            for name, card in joined.items()
        }
        of_seeds = _Seeds(each, drawn), _Seeds(each, drawn_held)
    figures = figures_of(
        target, joined, replicates, resamples, held=held, seeds=of_seeds, unit=unit
    )
    differences: dict[tuple[str, str], dict[MetricKey, Floats | ClusteredEstimate]] = {}
    for pair in combinations(cards, 2):
        found = differences[pair] = {}
        for key, figure in figures.differences[pair].items():
            gap = of_seeds and of_seeds[0].of(pair, key, figure.effective_patients)
            drawn_gap = _gap(replicates, pair, key) if gap is None else gap
            if drawn_gap is not None:
                found[key] = drawn_gap
    return ResampledFigures(figures, differences)


_Model = tuple[str, int]
"""A system and the place of its seed."""
_OfModels = dict[tuple[str, int, MetricKey], Floats]
"""Replicates by system, seed and figure."""


def _draw(
    cards: Mapping[str, Sequence[Scorecard]],
    resamples: Resamples,
    kept: Callable[[MetricKey], bool],
    advance: Callable[[int], None] | None,
) -> tuple[_OfModels, _OfModels]:
    """Replicates of every figure, and of those at refitted thresholds with thresholds held."""
    models = {(name, seed): card for name, each in cards.items() for seed, card in enumerate(each)}
    refitted = refit_thresholds(
        {
            model: (card.validation, policies)
            for model, card in models.items()
            if card.validation is not None and (policies := card.chosen_policies)
        },
        resamples,
    )
    columns = [(model, policy) for model, each in refitted.items() for policy in each]
    beside = [refitted[model][policy] for model, policy in columns]

    def statistic(
        weights: np.ndarray, thresholds: Floats | None = None
    ) -> dict[tuple[str, int, MetricKey, bool], Floats]:
        given: dict[_Model, dict[str, Floats]] = {model: {} for model in models}
        for place, (model, policy) in enumerate(columns):
            if thresholds is not None:
                given[model][policy] = thresholds[:, place]
        found: dict[tuple[str, int, MetricKey, bool], Floats] = {}
        for model, card in models.items():
            for at, values in enumerate(card.replicates(weights, given[model])):
                found |= {(*model, key, at == 1): v for key, v in values.items() if kept(key)}
        return found

    drawn = cluster_bootstrap(
        statistic, resamples, advance, np.column_stack(beside) if beside else None
    )
    return (
        {(name, seed, key): v for (name, seed, key, held), v in drawn.items() if not held},
        {(name, seed, key): v for (name, seed, key, held), v in drawn.items() if held},
    )


def figures_of(
    target: str,
    cards: Mapping[str, Scorecard | SeedMean],
    replicates: Mapping[tuple[str, MetricKey], Floats],
    resamples: Resamples,
    *,
    held: Mapping[tuple[str, MetricKey], Floats] | None = None,
    seeds: tuple[_Seeds, _Seeds] | None = None,
    unit: str = "image",
) -> Estimates:
    """Put the estimates and replicates of all systems together.

    Args:
        target: Name of the target.
        cards: Of the systems, the reference first.
        replicates: By system and figure.
        resamples: What they are computed on.
        held: With thresholds held, where `replicates` are at refitted ones.
        seeds: The analysis of several seeds, at refitted thresholds and held ones; left out: none.
        unit: ``image``, ``study`` or ``patient``.
    """
    at_held = held or {}
    maker = _Maker(next(iter(cards.values())).judged, resamples, seeds)
    estimates = {name: card.estimates() for name, card in cards.items()}
    missing = {name: card.missing() for name, card in cards.items()}
    systems: dict[str, dict[MetricKey, Estimate]] = {}
    for name, card in cards.items():
        systems[name] = {
            key: maker.figure(
                key,
                estimate,
                replicates.get((name, key)),
                why_undefined(key.metric) if estimate is None else "",
                held=at_held.get((name, key)),
                cards={name: card},
            )
            for key, estimate in estimates[name].items()
        }
        systems[name] |= {
            key: maker.figure(key, None, None, reason) for key, reason in missing[name].items()
        }
    figures = Estimates(target, unit, systems, {})
    differences: dict[tuple[str, str], dict[MetricKey, Estimate]] = {}
    for pair in combinations(cards, 2):
        found = differences[pair] = {}
        for key in dict.fromkeys([*estimates[pair[0]], *missing[pair[0]]]):
            if key.metric in family("counts"):
                continue
            one, other = (estimates[name].get(key) for name in pair)
            drawn = _gap(replicates, pair, key)
            figure = maker.figure(
                key,
                None if one is None or other is None else one - other,
                drawn,
                _why_no_difference(key, pair, estimates, missing),
                held=_gap(at_held, pair, key),
                cards={name: cards[name] for name in pair},
            )
            if figure.kind == "seeds" and seeds is not None:
                estimate = seeds[0].of(pair, key, figure.effective_patients)
                if estimate is not None:
                    levels = [family_level(size) for size in family_sizes(len(cards))]
                    figure = replace(figure, family=estimate.intervals_at(levels))
            elif figure.bounded and drawn is not None:
                figure = replace(figure, family=_family_ends(drawn, len(cards), figure))
            found[key] = figure
    return replace(figures, differences=differences)


def _gap(
    replicates: Mapping[tuple[str, MetricKey], Floats], pair: tuple[str, str], key: MetricKey
) -> Floats | None:
    """Replicates of a difference; `None` where a system has none."""
    one, other = (replicates.get((name, key)) for name in pair)
    return None if one is None or other is None else one - other


def _family_ends(
    drawn: Floats, n_systems: int, figure: Estimate
) -> tuple[tuple[float, float], ...]:
    """Percentile intervals of a difference as one of 1, 2, 3, ... comparisons."""
    patients = None if figure.refitted else figure.effective_patients
    sizes = family_sizes(n_systems)
    tails = [(1 - expanded_level(family_level(size), patients)) / 2 for size in sizes]
    ends = np.quantile(drawn[~np.isnan(drawn)], [*tails, *(1 - tail for tail in tails)])
    return tuple(zip(ends[: len(tails)].tolist(), ends[len(tails) :].tolist(), strict=True))


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


def _chosen_on(policy: str, cards: Sequence[Scorecard | SeedMean]) -> int | None:
    """The fewest positives that any of the thresholds was chosen on; `None` where unknown."""
    if not is_chosen(policy):
        return None
    models = _models(cards)
    known = [model.validation.n_positive for model in models if model.validation is not None]
    return min(known) if known and len(known) == len(models) else None


def _too_few(policy: str, cards: Sequence[Scorecard | SeedMean]) -> str:
    """Why resamples cannot say how far a threshold of the systems varies; empty where they can."""
    chosen_on = [model.validation for model in _models(cards) if model.validation is not None]
    reasons = [reason for each in chosen_on if (reason := each.too_few_for(policy))]
    return reasons[0] if reasons else ""


def _models(cards: Sequence[Scorecard | SeedMean]) -> list[Scorecard]:
    return [m for card in cards for m in (card.cards if isinstance(card, SeedMean) else [card])]


class _Maker:
    """Makes figures; counts of a figure's images are found once."""

    def __init__(
        self,
        judged: EvaluationSet,
        resamples: Resamples,
        seeds: tuple[_Seeds, _Seeds] | None = None,
    ) -> None:
        self._judged, self._resamples, self._seeds = judged, resamples, seeds
        self._counts: dict[tuple[bytes, str], SampleSize] = {}

    def figure(
        self,
        key: MetricKey,
        estimate: float | None,
        drawn: Floats | None,
        note: str,
        *,
        held: Floats | None = None,
        cards: Mapping[str, Scorecard | SeedMean] | None = None,
    ) -> Estimate:
        """A figure of one system, or the difference of two; `held`: with thresholds held."""
        if estimate is None:
            return Estimate(note=note, counts=self._counts_of(key))
        exact, systems = None, cards or {}
        alone = next(iter(systems.values())) if len(systems) == 1 else None
        if isinstance(alone, Scorecard):
            exact = _exact_interval(alone, key, estimate)
        interval = self._interval(key, estimate, drawn, refitted=held is not None)
        if held is not None and (reason := _too_few(key.policy, list(systems.values()))):
            interval = Interval(estimate, note=f"no interval: {reason}")
        beside = self._interval(key, estimate, held)
        method = self._resamples.method
        kind: IntervalKind = "bootstrap"
        if any(isinstance(card, SeedMean) for card in systems.values()):
            kind = "seeds"
            method = f"{OVER_SEEDS}; covariances of {self._resamples.n_replicates} resamples"
            interval = self._of_seeds(list(systems), key, interval, drawn, 0)
            beside = self._of_seeds(list(systems), key, beside, held, 1)
        method += of_thresholds(key.policy, refitted=held is not None)
        if exact is not None and beside.unmoved:
            beside = exact
            if interval.bounded:  # no resample of test patients moved it: it is not that narrow
                low, high = min(interval.low, exact.low), max(interval.high, exact.high)
                interval, method = (
                    replace(interval, low=low, high=high),
                    f"{method}; {EXACT_METHOD}",
                )
        if exact is not None and interval.unmoved:
            interval, method, kind = exact, EXACT_METHOD, "exact"
        return Estimate(
            interval.estimate,
            interval.low,
            interval.high,
            "; ".join(part for part in (note, interval.note) if part),
            method=method if interval.bounded else "",
            kind=kind if interval.bounded else None,
            counts=self._counts_of(key),
            held=(beside.low, beside.high) if beside.bounded else None,
            n_chosen_on=_chosen_on(key.policy, list(systems.values())),
            refitted=held is not None,
        )

    def _of_seeds(
        self,
        names: Sequence[str],
        key: MetricKey,
        found: Interval,
        drawn: Floats | None,
        place: int,
    ) -> Interval:
        """The interval over seeds, where replicates of the mean have one; inside their bounds."""
        if self._seeds is None or drawn is None or not found.bounded:
            return found
        estimate = self._seeds[place].of(names, key, self._counts_of(key).effective_patients)
        ends = None if estimate is None else estimate.interval
        if ends is None:
            return replace(found, low=np.nan, high=np.nan, note=NO_WIDTH)
        low, high = ends
        if len(names) == 1 and np.nanmin(drawn) >= 0:
            low = max(low, 0.0)
            high = min(high, 1.0) if np.nanmax(drawn) <= 1 else high
        return replace(found, low=low, high=high)

    def _interval(
        self, key: MetricKey, estimate: float, drawn: Floats | None, *, refitted: bool = False
    ) -> Interval:
        if drawn is None:
            return Interval(estimate)
        if self._judged.n_patients < 2:
            return Interval(estimate, note=_ONE_PATIENT)
        # Refitted thresholds widen an interval beyond what few patients ask for.
        patients = None if refitted else self._counts_of(key).effective_patients
        found = percentile_interval(drawn, expanded_level(LEVEL, patients), estimate=estimate)
        if refitted and not found.bounded and not found.unmoved:
            return replace(found, note=f"{found.note}; {_CHOICE_UNSURE}")
        if key.metric in family("calibration") and found.shifted:
            return replace(found, note=f"{found.note}; {_CALIBRATION_INSTEAD}")
        return found

    def _counts_of(self, key: MetricKey) -> SampleSize:
        judged, chosen = self._judged, self._judged.population(key)
        share_of = METRICS[key.metric].share_of if key.metric in METRICS else None
        of_class = share_of if share_of in ("positive", "negative") else ""
        cells = chosen.tobytes(), of_class
        if cells not in self._counts:
            of_classes = {"positive": chosen & judged.y_true, "negative": chosen & ~judged.y_true}
            effective = {
                name: effective_patients(np.bincount(judged.patients[of]))
                for name, of in of_classes.items()
            }
            self._counts[cells] = SampleSize(
                n_images=int(chosen.sum()),
                n_patients=len(np.unique(judged.patients[chosen])),
                n_positive=int(of_classes["positive"].sum()),
                effective_patients=effective.get(of_class, min(effective.values())),
            )
        return self._counts[cells]
