"""Estimates, intervals and paired differences of every figure, and why one is missing.

By image, once more by study or patient on the same resamples of patients, and once more with
failures counted as wrong.

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
import pandas as pd
from scipy.stats import beta  # type: ignore[attr-defined]

from data_prep.contracts.errors import InputError
from evaluation.compare.figures import (
    FAILURES_WRONG,
    Counts,
    Figure,
    Figures,
    IntervalKind,
    family_level,
    family_sizes,
)
from evaluation.compare.judged_model import ComparisonTask, JudgedModel
from evaluation.compare.paired_tests import clustered_auroc, resampled_tests, with_clustered_auroc
from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.system_output import SystemOutput
from evaluation.decisions.tuning import tune
from evaluation.decisions.units import Unit, Units, group_images, judged_units
from evaluation.metrics.evaluation_set import ALL, EvaluationSet, MetricKey, Note
from evaluation.metrics.registry import METRICS, family, why_undefined
from evaluation.statistics.auroc_variance import effective_patients
from evaluation.statistics.bootstrap import (
    LEVEL,
    Interval,
    Resamples,
    cluster_bootstrap,
    percentile_interval,
)
from evaluation.statistics.ranking import Floats
from evaluation.systems.eligibility import attempted_images, describe_images

_OF_SEEDS = 7919
"""Makes the draws of seeds others than those of patients."""
_KEPT = ("auroc", "accuracy", "recall", "specificity", "f1")
NONE_FAILED = "no image failed"
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
    figures = Figures(target, unit, systems, {})
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
            if figure.bounded:
                figure = replace(figure, family=_family_ends(known[0] - known[1], len(cards)))
            found[key] = figure
    return replace(figures, differences=differences)


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
            if interval.unmoved and isinstance(card, Scorecard):
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


class UnitComparison(NamedTuple):
    """Figures by study or patient, notes on them, and the bootstrap's tests of the differences."""

    figures: Figures | None
    notes: list[Note]
    tests: pd.DataFrame | None


def compare_units(
    models: Mapping[str, Sequence[JudgedModel]],
    judged: EvaluationSet,
    task: ComparisonTask,
    unit: Unit,
    resamples: Resamples,
) -> UnitComparison:
    """Every image-level figure by study or patient."""
    if unit == "image":
        return UnitComparison(None, [], None)
    dataset = task.dataset
    labels = dataset.labels(task.target).reindex(dataset.image_ids("test", task.split))
    units = group_images(dataset.images, labels, judged.image_ids, unit)
    whole = judged_units(judged, units)
    note = _note(units, whole, judged, unit)
    cards = {
        name: [_unit_card(model, units, whole, task, unit) for model in each]
        for name, each in models.items()
    }
    drawn = resampled_figures(task.target.name, cards, resamples, unit=unit)
    figures = _of_units(drawn.figures, cards)
    tests = resampled_tests(figures, drawn.differences)
    return UnitComparison(_with_thresholds(figures, cards), [note], tests)


def _unit_card(
    model: JudgedModel, units: Units, whole: EvaluationSet, task: ComparisonTask, unit: Unit
) -> Scorecard:
    chosen, output = model.decision, model.output
    rule = tune(
        model.predictions,
        task.dataset,
        task.target,
        split=task.split,
        policies=list(chosen.thresholds),
        search=chosen.searched,
        options=chosen.options,
        unit=unit,
    )
    scores = pd.Series(units.highest(output.scores(chosen.reduction)), units.names)
    spread = output.spread() if rule.referral else None
    return Scorecard(
        whole,
        scores,
        rule.thresholds,
        validation=rule.chosen_scores,
        probability=rule.probability(scores),
        referrals=rule.referral,
        spread=None if spread is None else units.highest(spread),
    )


def _of_units(figures: Figures, cards: Mapping[str, Sequence[Scorecard]]) -> Figures:
    """Without figures that need a place: they have no row by unit, not even one that says why."""
    each = [card for members in cards.values() for card in members]
    kept = {key.metric for card in each for key in card.estimates()}
    kept |= {
        key.metric
        for card in each
        for key in card.missing()
        if key.policy and not METRICS[key.metric].boxed
    }

    def chosen(held: Mapping[MetricKey, Figure]) -> dict[MetricKey, Figure]:
        return {key: figure for key, figure in held.items() if key.metric in kept}

    return replace(
        figures,
        systems={name: chosen(held) for name, held in figures.systems.items()},
        differences={pair: chosen(held) for pair, held in figures.differences.items()},
    )


def _with_thresholds(figures: Figures, cards: Mapping[str, Sequence[Scorecard]]) -> Figures:
    """With the thresholds, which are not those by image; of several seeds the first's."""
    counts = next(iter(next(iter(figures.systems.values())).values())).counts
    thresholds = {
        name: {
            MetricKey(ALL, policy, "threshold"): Figure(choice.threshold, counts=counts)
            for policy, choice in members[0].thresholds.items()
            if choice.threshold is not None
        }
        for name, members in cards.items()
    }
    systems = {name: {**held, **thresholds[name]} for name, held in figures.systems.items()}
    return replace(figures, systems=systems)


def _note(units: Units, whole: EvaluationSet, judged: EvaluationSet, unit: Unit) -> Note:
    plural = {"study": "studies", "patient": "patients"}[unit]
    text = (
        f"By {unit}: {len(units.names):,} {plural} of {len(judged.image_ids):,} images, "
        f"{int(whole.y_true.sum()):,} positive (where any image is); the score is the highest of "
        f"its images, and thresholds are chosen again on validation {plural}."
    )
    if units.n_left_out:
        text += f" {units.n_left_out:,} {plural} with an image of unknown label are left out."
    return Note("unit", text)


def failures_as_wrong(
    figures: Figures,
    models: Mapping[str, Sequence[JudgedModel]],
    task: ComparisonTask,
    resamples: Resamples,
) -> Figures:
    """Judge the systems on every image that any of them should have run on.

    An image that a model has no result for counts as wrong: a positive one is ranked below every
    image and called negative, a negative one above every image and called positive.
    """
    predictions = {model.name: model.predictions for each in models.values() for model in each}
    expected = attempted_images(predictions, task.dataset, task.target, task.split)
    missing = {
        name: [len(expected.difference(model.predictions.images_run)) for model in each]
        for name, each in models.items()
    }
    if not any(count for counts in missing.values() for count in counts):
        return _renamed(figures, lambda figure, names: _of_all(figure))
    dataset, target = task.dataset, task.target
    judged = describe_images(dataset, target, expected, dataset.labels(target))
    cards = {
        name: [_failure_card(model, judged, task) for model in each]
        for name, each in models.items()
    }
    found = resampled_figures(
        target.name,
        cards,
        replace(resamples, n_clusters=judged.n_patients),
        kept=lambda key: key.metric in _KEPT and key.subgroup == ALL,
    ).figures
    found = with_clustered_auroc(found, clustered_auroc(cards), cards)

    def counted(figure: Figure, names: tuple[str, ...]) -> Figure:
        words = _words({name: missing[name] for name in names})
        return replace(figure, note=f"{figure.note}; {words}" if figure.note else words)

    return _renamed(found, counted)


def _of_all(figure: Figure) -> Figure:
    """A figure as it is on all images; a note on one without a value says why, and stays."""
    return figure if figure.note else replace(figure, note=NONE_FAILED, of_all=True)


def _renamed(figures: Figures, noted: Callable[[Figure, tuple[str, ...]], Figure]) -> Figures:
    """The kept figures of all images under the subgroup's name, with other notes."""

    def renamed(held: Mapping[MetricKey, Figure], *names: str) -> dict[MetricKey, Figure]:
        return {
            key._replace(subgroup=FAILURES_WRONG): noted(figure, names)
            for key, figure in held.items()
            if key.subgroup == ALL and key.metric in _KEPT
        }

    return replace(
        figures,
        systems={name: renamed(held, name) for name, held in figures.systems.items()},
        differences={pair: renamed(held, *pair) for pair, held in figures.differences.items()},
    )


def _failure_card(model: JudgedModel, judged: EvaluationSet, task: ComparisonTask) -> Scorecard:
    system, decision = model.predictions, model.decision
    ran = judged.image_ids[judged.image_ids.isin(system.images_run)]
    output = SystemOutput(system, task.target, ran, decision.boxes, task.dataset.images)
    known = output.scores(decision.reduction)
    scores = known.reindex(judged.image_ids)
    failed = scores.isna().to_numpy()
    lowest, highest = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    thresholds = [c.threshold for c in decision.thresholds.values() if c.threshold is not None]
    if decision.chosen_scores is not None:  # between these every refitted threshold lies
        thresholds += decision.chosen_scores.scores.tolist()
    wrong = np.where(
        judged.y_true, min([lowest, *thresholds]) - 1.0, max([highest, *thresholds]) + 1.0
    )
    scores = scores.where(~failed, pd.Series(wrong, index=scores.index))
    return Scorecard(judged, scores, decision.thresholds, validation=decision.chosen_scores)


def _words(missing: Mapping[str, Sequence[int]]) -> str:
    """How many images count as wrong, of a system or of both in a difference."""
    counts = [
        f"{name}: {' and '.join(map(str, each))} images without a result"
        for name, each in missing.items()
    ]
    return ", ".join(counts) + ", counted as wrong"
