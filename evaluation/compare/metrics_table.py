"""Estimates, intervals and paired differences of every figure, and why one is missing.

Every resample draws validation patients, too, the same for all systems, and chooses thresholds
again on these: a figure at a chosen threshold varies as it would had other patients been at hand
to choose and to judge. Beside such an interval stands the one with thresholds held.

Of several training seeds of one system figures are means, and intervals resample the seeds, too.
A replicate of a system with ``S`` seeds is ``mean + sqrt(S / (S - 1)) x (drawn mean - mean)``:
the seeds' figures on the resampled patients, averaged over all seeds, and over ``S`` seeds drawn
with replacement. Without the factor, that of the rescaled bootstrap, so few seeds would look
closer together than they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import beta  # type: ignore[attr-defined]

from data_prep.contracts.errors import InputError
from evaluation.compare.figures import (
    HELD,
    REFITTED,
    Counts,
    Figure,
    Figures,
    IntervalKind,
    family_level,
    family_sizes,
)
from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.refit import refit_thresholds
from evaluation.decisions.thresholds import check_policy
from evaluation.metrics.evaluation_set import EvaluationSet, MetricKey
from evaluation.metrics.registry import METRICS, family, why_undefined
from evaluation.statistics.auroc_variance import effective_patients
from evaluation.statistics.bootstrap import (
    LEVEL,
    SHIFTED,
    Interval,
    Resamples,
    cluster_bootstrap,
    percentile_interval,
)
from evaluation.statistics.ranking import Floats

_OF_SEEDS = 7919
"""Makes the draws of seeds others than those of patients."""
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

    def estimates(self) -> dict[MetricKey, float | None]:
        """Means over the seeds; undefined where any seed's figure is."""
        each = [card.estimates() for card in self.cards]
        means: dict[MetricKey, float | None] = {}
        for figure in dict.fromkeys(name for figures in each for name in figures):
            values = [figures.get(figure) for figures in each]
            known = [value for value in values if value is not None]
            means[figure] = float(np.mean(known)) if len(known) == len(each) else None
        return means

    def missing(self) -> dict[MetricKey, str]:
        """Figures that a seed cannot have, with the reason."""
        return {
            figure: f"seed {place + 1}: {reason}"
            for place, card in enumerate(self.cards)
            for figure, reason in card.missing().items()
        }


def mean_replicates(
    drawn: Mapping[tuple[str, int, MetricKey], Floats],
    seeds: Mapping[str, int],
    resamples: Resamples,
) -> dict[tuple[str, MetricKey], Floats]:
    """Replicates per system out of those per model.

    Source:
        Field and Welsh 2007, resampling both levels; Rao and Wu 1988, the factor.
    """
    joined: dict[tuple[str, MetricKey], Floats] = {}
    for place, (name, count) in enumerate(seeds.items()):
        keys = [key for system, seed, key in drawn if system == name and not seed]
        rng = np.random.default_rng([resamples.seed, _OF_SEEDS, place])
        shares = rng.multinomial(count, np.full(count, 1 / count), resamples.n_replicates) / count
        for key in keys:
            parts = [drawn.get((name, seed, key)) for seed in range(count)]
            known = [part for part in parts if part is not None]
            if len(known) < count:
                continue
            if count == 1:
                joined[name, key] = known[0]
                continue
            values = np.stack(known, axis=1)  # (R, seeds)
            mean = values.mean(axis=1)
            factor = np.sqrt(count / (count - 1))
            joined[name, key] = mean + factor * ((shares * values).sum(axis=1) - mean)
    return joined


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
    seeds = {name: len(each) for name, each in cards.items()}
    drawn, drawn_held = _draw(cards, resamples, kept, advance)
    replicates = mean_replicates(drawn, seeds, resamples)
    held = mean_replicates(drawn_held, seeds, resamples)
    joined = {name: SeedMean(each) if len(each) > 1 else each[0] for name, each in cards.items()}
    figures = figures_of(target, joined, replicates, resamples, held=held, seeds=seeds, unit=unit)
    differences = {
        (first, second): {
            key: values - replicates[second, key]
            for (name, key), values in replicates.items()
            if name == first and (second, key) in replicates
        }
        for first, second in combinations(cards, 2)
    }
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
    seeds: Mapping[str, int] | None = None,
    unit: str = "image",
) -> Figures:
    """Put the estimates and replicates of all systems together.

    Args:
        target: Name of the target.
        cards: Of the systems, the reference first.
        replicates: By system and figure.
        resamples: What they are computed on.
        held: With thresholds held, where `replicates` are at refitted ones.
        seeds: How many each system has; left out: one.
        unit: ``image``, ``study`` or ``patient``.
    """
    at_held = held or {}
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
                held=at_held.get((name, key)),
                cards=[card],
            )
            for key, estimate in estimates[name].items()
        }
        systems[name] |= {
            key: maker.figure(key, None, None, reason) for key, reason in missing[name].items()
        }
    figures = Figures(target, unit, systems, {})
    differences: dict[tuple[str, str], dict[MetricKey, Figure]] = {}
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
                seeded=bool(several.intersection(pair)),
                held=_gap(at_held, pair, key),
                cards=[cards[name] for name in pair],
            )
            if figure.bounded and drawn is not None:
                figure = replace(figure, family=_family_ends(drawn, len(cards)))
            found[key] = figure
    return replace(figures, differences=differences)


def _gap(
    replicates: Mapping[tuple[str, MetricKey], Floats], pair: tuple[str, str], key: MetricKey
) -> Floats | None:
    """Replicates of a difference; `None` where a system has none."""
    one, other = (replicates.get((name, key)) for name in pair)
    return None if one is None or other is None else one - other


def _family_ends(drawn: Floats, n_systems: int) -> tuple[tuple[float, float], ...]:
    """Percentile intervals of a difference as one of 1, 2, 3, ... comparisons."""
    tails = [(1 - family_level(size)) / 2 for size in family_sizes(n_systems)]
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


def _is_chosen(policy: str) -> bool:
    """Whether validation chooses the threshold of a policy; a declared one is no choice."""
    return bool(policy) and check_policy(policy).kind != "threshold"


def _of_thresholds(key: MetricKey, *, refitted: bool) -> str:
    """What the method of an interval does with thresholds; nothing where none was chosen."""
    if not _is_chosen(key.policy):
        return ""
    return f", {REFITTED if refitted else HELD}"


def _chosen_on(policy: str, cards: Sequence[Scorecard | SeedMean]) -> int | None:
    """The fewest positives that any of the thresholds was chosen on; `None` where unknown."""
    if not _is_chosen(policy):
        return None
    models = [m for card in cards for m in (card.cards if isinstance(card, SeedMean) else [card])]
    known = [model.validation.n_positive for model in models if model.validation is not None]
    return min(known) if known and len(known) == len(models) else None


class _Maker:
    """Makes figures; counts of a figure's images are found once."""

    def __init__(self, judged: EvaluationSet, resamples: Resamples) -> None:
        self._judged, self._resamples = judged, resamples
        self._counts: dict[tuple[bytes, str], Counts] = {}

    def figure(
        self,
        key: MetricKey,
        estimate: float | None,
        drawn: Floats | None,
        note: str,
        *,
        seeded: bool = False,
        held: Floats | None = None,
        cards: Sequence[Scorecard | SeedMean] = (),
    ) -> Figure:
        """A figure of one system, or the difference of two; `held`: with thresholds held."""
        if estimate is None:
            return Figure(note=note, counts=self._counts_of(key))
        exact = None
        if len(cards) == 1 and isinstance(cards[0], Scorecard):
            exact = _exact_interval(cards[0], key, estimate)
        interval = self._interval(key, estimate, drawn, refitted=held is not None)
        beside = self._interval(key, estimate, held)
        method = self._resamples.method + (" of patients and training seeds" if seeded else "")
        method += _of_thresholds(key, refitted=held is not None)
        kind: IntervalKind = "bootstrap"
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
        return Figure(
            interval.estimate,
            interval.low,
            interval.high,
            "; ".join(part for part in (note, interval.note) if part),
            method=method if interval.bounded else "",
            kind=kind if interval.bounded else None,
            counts=self._counts_of(key),
            held=(beside.low, beside.high) if beside.bounded else None,
            n_chosen_on=_chosen_on(key.policy, cards),
            refitted=held is not None,
        )

    def _interval(
        self, key: MetricKey, estimate: float, drawn: Floats | None, *, refitted: bool = False
    ) -> Interval:
        if drawn is None:
            return Interval(estimate)
        if self._judged.n_patients < 2:
            return Interval(estimate, note=_ONE_PATIENT)
        found = percentile_interval(drawn, estimate=estimate)
        if refitted and not found.bounded and not found.unmoved:
            return replace(found, note=f"{found.note}; {_CHOICE_UNSURE}")
        if key.metric in family("calibration") and found.note.startswith(SHIFTED.split("(")[0]):
            return replace(found, note=f"{found.note}; {_CALIBRATION_INSTEAD}")
        return found

    def _counts_of(self, key: MetricKey) -> Counts:
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
            self._counts[cells] = Counts(
                n_images=int(chosen.sum()),
                n_patients=len(np.unique(judged.patients[chosen])),
                n_positive=int(of_classes["positive"].sum()),
                effective_patients=effective.get(of_class, min(effective.values())),
            )
        return self._counts[cells]
