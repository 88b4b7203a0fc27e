"""Estimates, intervals and paired differences of every figure, and why one is missing.

Every resample draws validation patients, too, the same for all systems, and makes every choice
again on these: a figure at a chosen threshold, or of boxes from a chosen score, varies as it would
had other patients been at hand to choose and to evaluate. Beside such an interval stands the one
with the choice held.

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

from cxr_compare.evaluation.compare.estimates import (
    OVER_SEEDS,
    Differences,
    Estimate,
    Estimates,
    IntervalKind,
    SampleSize,
    family_levels,
    is_chosen,
    of_choices,
)
from cxr_compare.evaluation.compare.scorecard import Scorecard, Scorecards
from cxr_compare.evaluation.decisions.refitted_choices import choose_again
from cxr_compare.evaluation.metrics.metric import MetricKey
from cxr_compare.evaluation.metrics.registry import METRICS, family, why_undefined
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.intervals import (
    LEVEL,
    NO_WIDTH,
    Interval,
    expanded_level,
    percentile_interval,
)
from cxr_compare.evaluation.statistics.obuchowski_rockette import estimate_over_seeds

EXACT_METHOD = "exact (Clopper-Pearson), patients as trials"
_NOT_TUNED = "not tuned for this"
_CHOICE_UNSURE = "choices were refitted: other validation patients would have chosen otherwise"
_CALIBRATION_INSTEAD = "of calibration, read Brier score, slope and in the large"
_TOO_HIGH = "too high on average of so few positive images: AP50 by 0.04 with 18, by 0.02 with 60"
_ONE_PATIENT = "one patient gives no interval"

_Drawn = Mapping[tuple[str, int, MetricKey, bool], Floats]
"""Replicates by system, seed and figure, and whether choices are held instead."""


class _Resampled(NamedTuple):
    """Estimates, and the replicates of their paired differences, or of seeds their estimates."""

    estimates: Estimates
    differences: Differences


def resampled_figures(
    target: str,
    scorecards: Scorecards,
    resamples: Resamples,
    *,
    unit: str = "image",
    kept: Callable[[MetricKey], bool] = lambda key: key.metric not in family("counts"),
    advance: Callable[[int], None] | None = None,
) -> _Resampled:
    """Resample the patients of all models at once, for the figures of their systems."""
    systems = {name: _SystemScorecards(members) for name, members in scorecards.items()}
    return _resampled(target, systems, _draw(scorecards, resamples, kept, advance), resamples, unit)


def _resampled(
    target: str,
    systems: Mapping[str, _SystemScorecards],
    drawn: _Drawn,
    resamples: Resamples,
    unit: str = "image",
) -> _Resampled:
    """Put the estimates and replicates of all systems together."""
    maker = _EstimateMaker(systems, drawn, resamples)
    values = {name: system.estimates() for name, system in systems.items()}
    missing = {name: system.missing() for name, system in systems.items()}
    of_systems = {
        name: {
            key: maker.estimate([name], key, value, why_undefined(key.metric))
            for key, value in values[name].items()
        }
        | {key: maker.estimate([name], key, None, why) for key, why in missing[name].items()}
        for name in systems
    }
    estimates: dict[tuple[str, str], dict[MetricKey, Estimate]] = {}
    differences: dict[tuple[str, str], dict[MetricKey, Floats | ClusteredEstimate]] = {}
    for pair in combinations(systems, 2):
        estimates[pair], differences[pair] = {}, {}
        for key in dict.fromkeys([*values[pair[0]], *missing[pair[0]]]):
            if key.metric in family("counts"):
                continue
            one, other = (values[name].get(key) for name in pair)
            gap = None if one is None or other is None else one - other
            why = _why_no_difference(key, pair, values, missing)
            estimate = estimates[pair][key] = maker.estimate(pair, key, gap, why)
            of_seeds = maker.drawn.estimate_over_seeds(pair, key, estimate.effective_patients)
            of_gap = maker.drawn.of(pair, key) if of_seeds is None else of_seeds
            if of_gap is not None:
                differences[pair][key] = of_gap
    return _Resampled(Estimates(target, unit, of_systems, estimates), differences)


def _why_no_difference(
    key: MetricKey,
    pair: Sequence[str],
    values: Mapping[str, Mapping[MetricKey, float | None]],
    missing: Mapping[str, Mapping[MetricKey, str]],
) -> str:
    reasons = []
    for name in pair:
        if values[name].get(key) is None:
            reason = why_undefined(key.metric) if key in values[name] else _NOT_TUNED
            reasons.append(f"{name}: {missing[name].get(key, reason)}")
    return "; ".join(reasons)


@dataclass(frozen=True)
class _SystemScorecards:
    """The scorecards of one system, one a training seed, on the same images."""

    scorecards: Sequence[Scorecard]

    @cached_property
    def by_seed(self) -> list[dict[MetricKey, float | None]]:
        """The figures of each seed."""
        return [scorecard.estimates() for scorecard in self.scorecards]

    def estimates(self) -> dict[MetricKey, float | None]:
        """Means over the seeds; undefined where any seed's figure is."""
        means: dict[MetricKey, float | None] = {}
        for key in dict.fromkeys(key for figures in self.by_seed for key in figures):
            values = [figures.get(key) for figures in self.by_seed]
            known = [value for value in values if value is not None]
            means[key] = float(np.mean(known)) if len(known) == len(values) else None
        return means

    def missing(self) -> dict[MetricKey, str]:
        """Figures that a seed cannot have, with the reason."""
        if len(self.scorecards) == 1:
            return self.scorecards[0].missing()
        return {
            key: f"seed {seed}: {reason}"
            for seed, scorecard in enumerate(self.scorecards, start=1)
            for key, reason in scorecard.missing().items()
        }


def _draw(
    scorecards: Scorecards,
    resamples: Resamples,
    kept: Callable[[MetricKey], bool],
    advance: Callable[[int], None] | None,
) -> _Drawn:
    """Replicates of every figure, and of those whose choices are made again with these held."""
    models = {
        (n, seed): scorecard
        for n, members in scorecards.items()
        for seed, scorecard in enumerate(members)
    }
    again = choose_again(
        {model: scorecard.choices for model, scorecard in models.items()}, resamples
    )
    columns = [(model, what) for model, chosen in again.items() for what in chosen]
    beside = [again[model][what] for model, what in columns]

    def statistic(weights: np.ndarray, chosen: Floats | None = None) -> _Drawn:
        of_models: dict[tuple[str, int], dict[str, Floats]] = {model: {} for model in models}
        if chosen is not None:
            for (model, what), column in zip(columns, chosen.T, strict=True):
                of_models[model][what] = column
        drawn: dict[tuple[str, int, MetricKey, bool], Floats] = {}
        for model, scorecard in models.items():
            replicates = scorecard.replicates(weights, of_models[model])
            for held, figures in enumerate(replicates):
                drawn |= {(*model, k, held == 1): v for k, v in figures.items() if kept(k)}
        return drawn

    return cluster_bootstrap(
        statistic, resamples, advance, np.column_stack(beside) if beside else None
    )


class _Replicates:
    """Replicates of the figures of systems, and of the differences of two."""

    def __init__(self, drawn: _Drawn, systems: Mapping[str, _SystemScorecards], held: bool) -> None:
        self._drawn, self._systems, self._held = drawn, systems, held

    def _columns(self, name: str, key: MetricKey) -> list[Floats] | None:
        """One a seed; `None` where a seed has none."""
        seeds = range(len(self._systems[name].scorecards))
        columns = [self._drawn.get((name, seed, key, self._held)) for seed in seeds]
        known = [column for column in columns if column is not None]
        return known if len(known) == len(columns) else None

    def of(self, names: Sequence[str], key: MetricKey) -> Floats | None:
        """Of the mean over a system's seeds, or of the difference of two systems."""
        means = []
        for name in names:
            columns = self._columns(name, key)
            if columns is None:
                return None
            means.append(columns[0] if len(columns) == 1 else np.mean(columns, axis=0))
        return means[0] if len(means) == 1 else np.asarray(means[0] - means[1])

    def estimate_over_seeds(
        self, names: Sequence[str], key: MetricKey, effective: float | None
    ) -> ClusteredEstimate | None:
        """A system's figure, or the difference of two, after Obuchowski and Rockette.

        The covariances over patients are those of the replicates. So where thresholds are
        refitted, the luck of their choice is in them, which leaving out test patients in turn
        would not show. `None` where no system has several seeds, or a seed lacks the figure.
        """
        if all(len(self._systems[name].scorecards) == 1 for name in names):
            return None
        seeds = [[figures.get(key) for figures in self._systems[name].by_seed] for name in names]
        values = [[value for value in of_one if value is not None] for of_one in seeds]
        columns = [self._columns(name, key) for name in names]
        known = [column for of_one in columns if of_one is not None for column in of_one]
        if None in columns or [*map(len, values)] != [*map(len, seeds)]:
            return None
        table = np.column_stack(known)
        table = table[~np.isnan(table).any(axis=1)]
        if len(table) < 2:
            return None
        metric = METRICS[key.metric]
        return estimate_over_seeds(
            values,
            np.cov(table.T),
            max((effective or np.inf) - 1, 1.0),
            bounded=len(names) == 1 and metric.share_of is not None,
            span=np.inf if metric.unbounded else 1.0,
        )


class _EstimateMaker:
    """Makes estimates of one system, or of the difference of two."""

    def __init__(
        self,
        systems: Mapping[str, _SystemScorecards],
        drawn: _Drawn,
        resamples: Resamples,
    ) -> None:
        self._systems, self._resamples = systems, resamples
        self.drawn = _Replicates(drawn, systems, held=False)
        self._held = _Replicates(drawn, systems, held=True)
        self._sizes: dict[tuple[int, bytes, str], SampleSize] = {}

    def estimate(
        self, names: Sequence[str], key: MetricKey, value: float | None, why_none: str
    ) -> Estimate:
        """The estimate with its interval; without a value with the reason."""
        size = self._size(names[0], key)
        if value is None:
            return Estimate(note=why_none, counts=size)
        models = [scorecard for name in names for scorecard in self._systems[name].scorecards]
        drawn, drawn_held = self.drawn.of(names, key), self._held.of(names, key)
        refitted, choices = drawn_held is not None, _choices(models, key)
        of_precision = len(names) == 1 and key.metric in family("coco")
        corrected = of_precision and len(models) == 1
        if corrected and drawn is not None:
            drawn = _lowered(drawn, value)
        # Percentiles are expanded where choices are held: made again, they widen beyond that.
        patients = None if refitted else size.effective_patients
        interval = self._interval(key, value, drawn, patients, refitted=refitted)
        if refitted and (reason := _too_few(key.policy, models)):
            interval = Interval(value, note=f"no interval: {reason}")
        held = self._interval(key, value, drawn_held, size.effective_patients)
        method, exact, of_seeds = self._resamples.method, None, None
        kind: IntervalKind = "bootstrap"
        if len(models) > len(names):
            kind = "seeds"
            method = f"{OVER_SEEDS}; covariances of {self._resamples.n_replicates} resamples"
            of_size = size.effective_patients
            interval, of_seeds = _over_seeds(self.drawn, names, key, interval, of_size)
            held, _ = _over_seeds(self._held, names, key, held, of_size)
        elif len(names) == 1:
            exact = _exact_interval(models[0], key, value)
        method += (", lower end bias-corrected" if corrected else "") + of_choices(choices)
        if of_precision and size.n_positive < 100:
            interval = replace(interval, note="; ".join(filter(None, [interval.note, _TOO_HIGH])))
        if exact is not None and held.unmoved:
            held = exact
            if interval.bounded:  # no resample of test patients moved it: it is not that narrow
                low, high = min(interval.low, exact.low), max(interval.high, exact.high)
                interval = replace(interval, low=low, high=high)
                method += f"; {EXACT_METHOD}"
        if exact is not None and interval.unmoved:
            interval, method, kind = exact, EXACT_METHOD, "exact"
        family_ends: tuple[tuple[float, float], ...] = ()
        if len(names) == 2 and interval.bounded and of_seeds is not None:
            family_ends = of_seeds.intervals_at(family_levels(len(self._systems)))
        elif len(names) == 2 and interval.bounded and drawn is not None:
            family_ends = self._family_ends(drawn, patients)
        return Estimate(
            interval.estimate,
            interval.low,
            interval.high,
            interval.note,
            method=method if interval.bounded else "",
            kind=kind if interval.bounded else None,
            counts=size,
            family=family_ends,
            fixed_choice_interval=(held.low, held.high) if held.bounded else None,
            n_chosen_on=_chosen_on(key, models),
            refitted=refitted,
            fixed_choices=tuple(name for name, again in choices.items() if not again),
        )

    def _interval(
        self,
        key: MetricKey,
        value: float,
        drawn: Floats | None,
        patients: float | None,
        *,
        refitted: bool = False,
    ) -> Interval:
        if drawn is None:
            return Interval(value)
        if self._resamples.n_clusters < 2:
            return Interval(value, note=_ONE_PATIENT)
        level = expanded_level(LEVEL, patients)
        interval = percentile_interval(drawn, level, estimate=value)
        if refitted and not (interval.bounded or interval.unmoved):
            return replace(interval, note=f"{interval.note}; {_CHOICE_UNSURE}")
        if key.metric in family("calibration") and interval.shifted:
            return replace(interval, note=f"{interval.note}; {_CALIBRATION_INSTEAD}")
        return interval

    def _family_ends(
        self, drawn: Floats, patients: float | None
    ) -> tuple[tuple[float, float], ...]:
        """Percentile intervals of a difference as one of 1, 2, 3, ... comparisons."""
        levels = family_levels(len(self._systems))
        tails = [(1 - expanded_level(level, patients)) / 2 for level in levels]
        ends = np.quantile(drawn[~np.isnan(drawn)], [*tails, *(1 - tail for tail in tails)])
        return tuple(zip(ends[: len(tails)].tolist(), ends[len(tails) :].tolist(), strict=True))

    def _size(self, name: str, key: MetricKey) -> SampleSize:
        """Of a system's images, whose unknown labels may be taken in another way than others'."""
        evaluated = self._systems[name].scorecards[0].evaluated
        chosen = evaluated.population(key)
        share_of = METRICS[key.metric].share_of if key.metric in METRICS else None
        of_class = share_of if share_of in ("positive", "negative") else ""
        population = id(evaluated), chosen.tobytes(), of_class
        if population not in self._sizes:
            self._sizes[population] = SampleSize.from_images(evaluated, chosen, of_class)
        return self._sizes[population]


def _over_seeds(
    replicates: _Replicates,
    names: Sequence[str],
    key: MetricKey,
    interval: Interval,
    patients: float | None,
) -> tuple[Interval, ClusteredEstimate | None]:
    """The interval over seeds, where replicates of the mean have one; inside their bounds."""
    drawn = replicates.of(names, key)
    if drawn is None or not interval.bounded:
        return interval, None
    estimate = replicates.estimate_over_seeds(names, key, patients)
    if estimate is None or estimate.interval is None:
        return replace(interval, low=np.nan, high=np.nan, note=NO_WIDTH), None
    low, high = estimate.interval
    if len(names) == 1 and np.nanmin(drawn) >= 0:
        low = max(low, 0.0)
        high = min(high, 1.0) if np.nanmax(drawn) <= 1 else high
    return replace(interval, low=low, high=high), estimate


def _choices(models: Sequence[Scorecard], key: MetricKey) -> dict[str, bool]:
    """The choices behind a figure of several models, and whether each is made again in all."""
    every = [model.choices_of(key) for model in models]
    names = dict.fromkeys(name for of_model in every for name in of_model)
    return {name: all(of_model.get(name, True) for of_model in every) for name in names}


def _lowered(drawn: Floats, value: float) -> Floats:
    """Replicates of average precision, their lower half less twice the bias that they show.

    The figure is too high once, and its replicates once more. How much they show of it varies, so
    the upper half stays: the interval is the hull of the percentile and the corrected one.
    """
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return drawn
    bias = max(float(known.mean()) - value, 0.0)
    return np.where(drawn < np.median(known), np.maximum(drawn - 2 * bias, 0.0), drawn)


def _chosen_on(key: MetricKey, models: Sequence[Scorecard]) -> int | None:
    """The fewest positives that any threshold or score cut was chosen on; `None` where unknown."""
    known = [model.validation.n_positive for model in models if model.validation]
    if "box_cut" in METRICS[key.metric].needs:
        known = [model.cut_choice.n_positive for model in models if model.cut_choice]
    elif not is_chosen(key.policy):
        return None
    return min(known) if known and len(known) == len(models) else None


def _too_few(policy: str, models: Sequence[Scorecard]) -> str:
    """Why resamples cannot say how far a threshold varies; empty where they can."""
    if not is_chosen(policy):
        return ""
    reasons = (
        scorecard.validation.too_few_for(policy) for scorecard in models if scorecard.validation
    )
    return next(filter(None, reasons), "")


def _exact_interval(scorecard: Scorecard, key: MetricKey, value: float) -> Interval | None:
    """The interval of a proportion that is 0 or 1.

    All images that count are then decided alike, so a patient is one trial, right or wrong with
    all of them: more trials than patients would guarantee more than was seen.
    """
    evaluated = scorecard.evaluated
    called = scorecard.called(key.policy) if key.policy else None
    share_of = METRICS[key.metric].share_of
    if share_of is None or value not in (0.0, 1.0):
        return None
    counted = {
        "all": np.ones_like(evaluated.y_true),
        "positive": evaluated.y_true,
        "negative": ~evaluated.y_true,
        "called": called,
        "not_called": None if called is None else ~called,
    }[share_of]
    if counted is None:
        return None
    patients = np.unique(evaluated.patients[counted & evaluated.population(key)])
    if len(patients) < 2:  # one patient gives no interval here, by any method
        return None
    return Interval.from_share(value, len(patients))
