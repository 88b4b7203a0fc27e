"""Estimates, intervals and paired differences of all figures, and reasons for missing ones.

The intervals come from a bootstrap. Each resample draws test patients with replacement, the same
for all systems; the value of a figure on one resample is called a replicate. Each resample also
draws validation patients, and makes all choices again on them, such as a threshold or the score cut
of boxes. The interval of a figure that depends on such a choice therefore includes the uncertainty
of the choice. A second interval is computed with the choice fixed.

If systems have several training seeds, figures are means over the seeds. The intervals are then
those of Obuchowski and Rockette 1995, with the covariances of the replicates between all seeds of
all systems.

The steps are: `_draw_replicates` resamples patients; `Replicates` gives the replicates of one
figure, of a system or of a difference; `_EstimateMaker` makes the interval of one figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from cxr_compare.evaluation.compare.estimates import (
    OVER_SEEDS,
    THRESHOLDS,
    Differences,
    Estimate,
    Estimates,
    IntervalKind,
    SampleSize,
    choices_text,
    family_levels,
    is_chosen,
)
from cxr_compare.evaluation.compare.scorecard import Scorecard, Scorecards
from cxr_compare.evaluation.decisions.box_choice import BOX_CUT
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
_TOO_HIGH = "too high on average with so few positive images: AP50 by 0.04 with 18, by 0.02 with 60"
_FEW_POSITIVES_FOR_PRECISION = 100
_ONE_PATIENT = "one patient gives no interval"
_BIAS_CORRECTED = ", lower end bias-corrected"


def _is_resampled(key: MetricKey) -> bool:
    """Return False for counts, and for the ECE, which resampling alone raises."""
    return key.metric not in (*family("counts"), "ece")


class ResampledFigures(NamedTuple):
    """Figures of all systems with intervals, and the resampled values of their differences.

    Attributes:
        estimates: Figures of all systems and pairs of systems, with intervals.
        differences: Replicates of the paired differences (their values on the bootstrap resamples),
            from which tests are computed.
    """

    estimates: Estimates
    differences: Differences


def resampled_figures(
    target: str,
    scorecards: Scorecards,
    resamples: Resamples,
    *,
    unit: str = "image",
    kept: Callable[[MetricKey], bool] = _is_resampled,
    advance: Callable[[int], None] | None = None,
) -> ResampledFigures:
    """Estimate all figures and paired differences, with intervals from resampled patients.

    Args:
        target: Name of the finding, or group of findings, that is evaluated, such as
            ``lung_opacity``.
        scorecards: Scorecards by display name of the system, one for each training seed; a
            scorecard computes all figures of one trained model on the evaluated images.
        resamples: Bootstrap samples of the patients: number of patients, number of resamples and
            random seed.
        unit: What the scorecards evaluate: ``image``, ``study`` or ``patient``.
        kept: Function that takes the key of a figure (group of images, rule for the threshold,
            metric) and returns True if the interval of the figure is computed from resamples. The
            other figures have an estimate without an interval. By default, these are the numbers of
            true and false positives and negatives, and the ECE.
        advance: Function that is called after each step with the number of resamples in it, for a
            progress bar.

    Returns:
        Figures of all systems and pairs of systems with intervals, and the replicates of the
        differences: their values on the resamples.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet, no_boxes
        >>> n = np.arange(60)
        >>> evaluated = EvaluationSet(
        ...     pd.Index(n), n % 2 == 0, n, 60, np.zeros(60, dtype=bool), no_boxes())
        >>> scores = pd.Series((n * 7 % 10 + 3 * (n % 2 == 0)) / 20)
        >>> scorecards = {"A": [Scorecard(evaluated, scores, {})]}
        >>> auroc = resampled_figures("opacity", scorecards, Resamples(60, 200, 0)).estimates.get(
        ...     "A", "auroc")
        >>> auroc.low < auroc.estimate < auroc.high
        True
    """
    replicates = Replicates.draw(scorecards, resamples, kept=kept, advance=advance)
    return estimate_figures(target, replicates, resamples, unit=unit)


def estimate_figures(
    target: str, replicates: Replicates, resamples: Resamples, *, unit: str = "image"
) -> ResampledFigures:
    """Estimate all figures and paired differences from resampled values that exist already.

    Args:
        target: Name of the finding, or group of findings, that is evaluated, such as
            ``lung_opacity``.
        replicates: Replicates of the figures of all systems: their values on bootstrap resamples.
        resamples: Bootstrap samples of the patients that gave `replicates`: number of patients,
            number of resamples and random seed.
        unit: What the scorecards evaluate: ``image``, ``study`` or ``patient``.

    Returns:
        Figures of all systems and pairs of systems with intervals, and the replicates of the
        differences.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet, no_boxes
        >>> n = np.arange(60)
        >>> evaluated = EvaluationSet(
        ...     pd.Index(n), n % 2 == 0, n, 60, np.zeros(60, dtype=bool), no_boxes())
        >>> scorecards = {"A": [Scorecard(evaluated, pd.Series(n / 60), {})]}
        >>> resamples = Resamples(60, 200, 0)
        >>> replicates = Replicates.draw(scorecards, resamples)
        >>> estimates = estimate_figures("opacity", replicates, resamples).estimates
        >>> round(estimates.get("A", "auroc").estimate, 3)
        0.483
    """
    maker = _EstimateMaker(replicates, resamples)
    of_systems = {
        name: {
            **{key: maker.estimate([name], key) for key in system.values},
            **{key: maker.estimate([name], key) for key in system.reasons},
        }
        for name, system in replicates.systems.items()
    }
    estimates: dict[tuple[str, str], dict[MetricKey, Estimate]] = {}
    differences: dict[tuple[str, str], dict[MetricKey, Floats | ClusteredEstimate]] = {}
    for pair in combinations(replicates.systems, 2):
        estimates[pair] = {}
        differences[pair] = {}
        first = replicates.systems[pair[0]]
        for key in dict.fromkeys([*first.values, *first.reasons]):
            if key.metric in family("counts"):
                continue
            estimate = maker.estimate(pair, key)
            estimates[pair][key] = estimate
            drawn = replicates.difference(pair, key, estimate.effective_patients)
            if drawn is not None:
                differences[pair][key] = drawn
    return ResampledFigures(Estimates(target, unit, of_systems, estimates), differences)


@dataclass(frozen=True)
class SystemFigures:
    """Figures of one system on the evaluated images, without resampling.

    If the system has several training seeds, its figures are means over them.

    Attributes:
        scorecards: Objects that compute all figures of one trained model, one for each training
            seed, all on the same images.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet, no_boxes
        >>> n = np.arange(4)
        >>> evaluated = EvaluationSet(
        ...     pd.Index(n), n > 1, n, 4, np.zeros(4, dtype=bool), no_boxes())
        >>> figures = SystemFigures([Scorecard(evaluated, pd.Series(n / 4), {})])
        >>> figures.values[MetricKey("all", "", "auroc")]
        1.0
    """

    scorecards: Sequence[Scorecard]

    @cached_property
    def by_seed(self) -> list[dict[MetricKey, float | None]]:
        """Figures of the model of each training seed by key; `None` where one is undefined.

        A key has the group of images, the rule for the threshold and the metric.
        """
        return [scorecard.estimates() for scorecard in self.scorecards]

    @cached_property
    def values(self) -> dict[MetricKey, float | None]:
        """Mean of each figure over the training seeds by key; `None` where any seed has none."""
        means: dict[MetricKey, float | None] = {}
        for key in dict.fromkeys(key for figures in self.by_seed for key in figures):
            values = [figures.get(key) for figures in self.by_seed]
            known = [value for value in values if value is not None]
            means[key] = float(np.mean(known)) if len(known) == len(values) else None
        return means

    @cached_property
    def reasons(self) -> dict[MetricKey, str]:
        """Reason, by key, for each figure that at least one training seed of the system lacks.

        A key has the group of images, the rule for the threshold and the metric. A reason is a
        phrase.
        """
        if len(self.scorecards) == 1:
            return self.scorecards[0].missing()
        return {
            key: f"seed {seed}: {reason}"
            for seed, scorecard in enumerate(self.scorecards, start=1)
            for key, reason in scorecard.missing().items()
        }

    def why_undefined(self, key: MetricKey) -> str:
        """Return the reason why a figure of the system is undefined.

        Args:
            key: Key of the undefined figure: group of images, rule for the threshold and metric.

        Returns:
            The reason as a phrase for tables.
        """
        if key in self.reasons:
            return self.reasons[key]
        return why_undefined(key.metric) if key in self.values else _NOT_TUNED


_Drawn = Mapping[tuple[str, int, MetricKey, bool], Floats]
"""Replicates, shape ``(R,)``, by system, position of the seed, figure, and True for fixed choices.
"""


@dataclass(frozen=True)
class Replicates:
    """Replicates of the figures of all systems: their values on R bootstrap resamples.

    A figure that depends on a validation choice, such as a threshold, has two kinds of replicates:
    with the choice made again on each resample, and with the choice fixed.

    Attributes:
        systems: Figures of each system without resampling, by display name.
        drawn: Replicates, shape ``(R,)``, by name of the system, position of the training seed, key
            of the figure, and True for the replicates with validation choices fixed.
        fixed: True if the methods use the replicates with validation choices fixed.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet, no_boxes
        >>> n = np.arange(60)
        >>> evaluated = EvaluationSet(
        ...     pd.Index(n), n % 2 == 0, n, 60, np.zeros(60, dtype=bool), no_boxes())
        >>> scorecards = {"A": [Scorecard(evaluated, pd.Series(n / 60), {})]}
        >>> replicates = Replicates.draw(scorecards, Resamples(60, 200, 0))
        >>> replicates.mean(["A"], MetricKey("all", "", "auroc")).shape
        (200,)
    """

    systems: Mapping[str, SystemFigures]
    drawn: _Drawn
    fixed: bool = False

    @classmethod
    def draw(
        cls,
        scorecards: Scorecards,
        resamples: Resamples,
        *,
        kept: Callable[[MetricKey], bool] = _is_resampled,
        advance: Callable[[int], None] | None = None,
    ) -> Replicates:
        """Compute the figures of all systems on resampled patients.

        All systems share the same resamples.

        Args:
            scorecards: Scorecards by display name of the system, one for each training seed; a
                scorecard computes all figures of one trained model on the evaluated images.
            resamples: Bootstrap samples of the patients: number of patients, number of resamples
                and random seed.
            kept: Function that takes the key of a figure (group of images, rule for the threshold,
                metric) and returns True if the replicates of the figure are computed. By default,
                they are computed for all figures but the numbers of true and false positives and
                negatives and the ECE.
            advance: Function that is called after each step with the number of resamples in it, for
                a progress bar.

        Returns:
            Both kinds of replicates: with validation choices made again, and with these choices
            fixed.
        """
        systems = {name: SystemFigures(members) for name, members in scorecards.items()}
        return cls(systems, _draw_replicates(scorecards, resamples, kept, advance))

    @property
    def with_fixed_choices(self) -> Replicates:
        """A copy whose methods use the replicates with validation choices fixed.

        Only figures that depend on a validation choice have such replicates.
        """
        return replace(self, fixed=True)

    def by_seed(self, name: str, key: MetricKey) -> list[Floats] | None:
        """Return the replicates of one figure for each training seed of a system.

        Args:
            name: Display name of the system.
            key: Key of the figure: short name of its metric, such as ``recall``; rule that chose
                its threshold, such as ``max_f1``, or empty; and name of the images that it is
                computed on, such as ``all``.

        Returns:
            One array of shape ``(R,)`` for each seed; None if a seed has no replicates of the
            figure.
        """
        seeds = range(len(self.systems[name].scorecards))
        columns = [self.drawn.get((name, seed, key, self.fixed)) for seed in seeds]
        known = [column for column in columns if column is not None]
        return known if len(known) == len(columns) else None

    def mean(self, names: Sequence[str], key: MetricKey) -> Floats | None:
        """Return the replicates of a figure, or of the difference of two systems in it.

        If a system has several training seeds, its replicates are means over them.

        Args:
            names: Display name of one system, or of the two systems of a difference.
            key: Key of the figure: short name of its metric, such as ``recall``; rule that chose
                its threshold, such as ``max_f1``, or empty; and name of the images that it is
                computed on, such as ``all``.

        Returns:
            Replicates, shape ``(R,)``; `None` if a system has no replicates of the figure.
        """
        means = []
        for name in names:
            columns = self.by_seed(name, key)
            if columns is None:
                return None
            means.append(columns[0] if len(columns) == 1 else np.mean(columns, axis=0))
        return means[0] if len(means) == 1 else np.asarray(means[0] - means[1])

    def over_seeds(
        self, names: Sequence[str], key: MetricKey, effective_patients: float | None
    ) -> ClusteredEstimate | None:
        """Estimate a figure, or a difference of two systems, over several training seeds.

        The method is that of Obuchowski and Rockette, with the seeds as a random factor. The
        covariances between seeds are those of the replicates. If thresholds are chosen again in
        each resample, these covariances include the uncertainty of the choice; those of a jackknife
        of the test patients would not.

        Args:
            names: Display name of one system, or of the two systems of a difference.
            key: Key of the figure: short name of its metric, such as ``recall``; rule that chose
                its threshold, such as ``max_f1``, or empty; and name of the images that it is
                computed on, such as ``all``.
            effective_patients: Effective number of patients: how many patients with one image each
                would give as much information. `None` where it is unknown.

        Returns:
            The estimate with its standard error; `None` if no system has several seeds, or if a
            seed lacks the figure.

        Source:
            Obuchowski and Rockette 1995; Hillis 2007 for the degrees of freedom.
        """
        if all(len(self.systems[name].scorecards) == 1 for name in names):
            return None
        values = []
        columns: list[Floats] = []
        for name in names:
            by_seed = [figures.get(key) for figures in self.systems[name].by_seed]
            replicates = self.by_seed(name, key)
            if replicates is None or any(value is None for value in by_seed):
                return None
            values.append([value for value in by_seed if value is not None])
            columns += replicates
        table = np.column_stack(columns)
        table = table[~np.isnan(table).any(axis=1)]
        if len(table) < 2:
            return None
        metric = METRICS[key.metric]
        return estimate_over_seeds(
            values,
            np.cov(table.T),
            max((effective_patients or np.inf) - 1, 1.0),
            bounded=len(names) == 1 and metric.share_of is not None,
            span=np.inf if metric.unbounded else 1.0,
        )

    def difference(
        self, pair: Sequence[str], key: MetricKey, effective_patients: float | None
    ) -> Floats | ClusteredEstimate | None:
        """Return the values with which the difference of two systems in one figure is tested.

        Args:
            pair: Display names of the first and the second system.
            key: Key of the figure: short name of its metric, such as ``recall``; rule that chose
                its threshold, such as ``max_f1``, or empty; and name of the images that it is
                computed on, such as ``all``.
            effective_patients: Effective number of patients: how many patients with one image each
                would give as much information. `None` where it is unknown.

        Returns:
            The estimate over seeds if a system has several training seeds; otherwise the
            replicates, shape ``(R,)``, or `None` if there are none.
        """
        estimate = self.over_seeds(pair, key, effective_patients)
        return self.mean(pair, key) if estimate is None else estimate


def _draw_replicates(
    scorecards: Scorecards,
    resamples: Resamples,
    kept: Callable[[MetricKey], bool],
    advance: Callable[[int], None] | None,
) -> _Drawn:
    """Compute all figures on the resamples, with validation choices made again and fixed.

    Only figures that depend on such a choice are computed twice.
    """
    models = {
        (name, seed): scorecard
        for name, members in scorecards.items()
        for seed, scorecard in enumerate(members)
    }
    choices = {model: scorecard.choices for model, scorecard in models.items()}
    again = choose_again(choices, resamples)
    columns = [(model, choice) for model, chosen in again.items() for choice in chosen]
    chosen_values = [again[model][choice] for model, choice in columns]

    def statistic(weights: np.ndarray, chosen: Floats | None = None) -> _Drawn:
        by_model: dict[tuple[str, int], dict[str, Floats]] = {model: {} for model in models}
        if chosen is not None:
            for (model, choice), column in zip(columns, chosen.T, strict=True):
                by_model[model][choice] = column
        drawn: dict[tuple[str, int, MetricKey, bool], Floats] = {}
        for (name, seed), scorecard in models.items():
            replicates = scorecard.replicates(weights, by_model[name, seed])
            for key, values in replicates.figures.items():
                if kept(key):
                    drawn[name, seed, key, False] = values
            for key, values in replicates.fixed.items():
                if kept(key):
                    drawn[name, seed, key, True] = values
        return drawn

    beside = np.column_stack(chosen_values) if chosen_values else None
    return cluster_bootstrap(statistic, resamples, advance, beside)


@dataclass(frozen=True)
class _Figure:
    """One figure of a system or of a difference, with everything that its interval depends on."""

    names: Sequence[str]  # one system, or the two systems of a difference
    key: MetricKey
    value: float
    size: SampleSize
    models: Sequence[Scorecard]  # scorecards of all seeds of these systems

    @property
    def is_difference(self) -> bool:
        """True for the difference of two systems."""
        return len(self.names) == 2

    @property
    def has_seeds(self) -> bool:
        """True if a system has several training seeds."""
        return len(self.models) > len(self.names)

    @property
    def is_precision(self) -> bool:
        """True for the average precision of one system, which is biased upwards by few lesions."""
        precision = (*family("coco"), *family("coco_decided"))
        return not self.is_difference and self.key.metric in precision

    @property
    def is_bias_corrected(self) -> bool:
        """True if the lower half of the replicates is lowered to correct a bias."""
        return self.is_precision and not self.has_seeds

    @property
    def choices(self) -> dict[str, bool]:
        """Validation choices behind the figure: True if the resamples make them for all models."""
        by_model = [model.choices_of(self.key) for model in self.models]
        names = dict.fromkeys(name for choices in by_model for name in choices)
        return {name: all(choices.get(name, True) for choices in by_model) for name in names}

    @property
    def n_chosen_on(self) -> int | None:
        """Smallest number of validation positives on which a threshold or score cut was chosen."""
        if "box_cut" in METRICS[self.key.metric].needs:
            counts = [model.box_choice.n_positive for model in self.models if model.box_choice]
        elif is_chosen(self.key.policy):
            counts = [model.validation.n_positive for model in self.models if model.validation]
        else:
            return None
        return min(counts) if counts and len(counts) == len(self.models) else None

    @property
    def patients_of_choice(self) -> float | None:
        """Effective number of patients for which percentiles are expanded; `None` for none.

        It is the smaller one of validation and test, for a threshold that a required sensitivity or
        specificity, or a cost, has chosen. The intervals of differences need no expansion.
        """
        if self.is_difference or not is_chosen(self.key.policy):
            return None
        numbers = [
            model.validation.effective_patients(self.key.policy)
            for model in self.models
            if model.validation
        ]
        of_validation = min(numbers, default=math.inf)
        of_test = self.size.effective_patients
        if math.isinf(of_validation) or of_test is None:
            return None
        return min(of_validation, of_test)

    @property
    def too_few_misses(self) -> str:
        """Reason why resamples do not show how much the threshold varies; empty if they do."""
        if not is_chosen(self.key.policy):
            return ""
        for model in self.models:
            reason = model.validation.too_few_for(self.key.policy) if model.validation else ""
            if reason:
                return reason
        return ""


@dataclass(frozen=True)
class _BoundedFigure:
    """Interval of a figure with its method, and the interval with validation choices fixed."""

    interval: Interval
    fixed_interval: Interval
    method: str
    kind: IntervalKind = "bootstrap"


@dataclass
class _EstimateMaker:
    """Maker of the estimate of one system's figure, or of the difference of two systems."""

    replicates: Replicates
    resamples: Resamples
    _sizes: dict[tuple[int, bytes, str], SampleSize] = field(default_factory=dict)

    def estimate(self, names: Sequence[str], key: MetricKey) -> Estimate:
        """Estimate a figure with its interval; if it is undefined, the note says why.

        Args:
            names: Display name of one system, or of the two systems of a difference.
            key: Key of the figure: short name of its metric, such as ``recall``; rule that chose
                its threshold, such as ``max_f1``, or empty; and name of the images that it is
                computed on, such as ``all``.
        """
        systems = [self.replicates.systems[name] for name in names]
        values = [system.values.get(key) for system in systems]
        size = self._size(names[0], key)
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return Estimate(note=self._why_undefined(names, key), counts=size)
        value = known[0] if len(known) == 1 else known[0] - known[1]
        models = [scorecard for system in systems for scorecard in system.scorecards]
        figure = _Figure(names, key, value, size, models)
        return self._bound(figure)

    def _why_undefined(self, names: Sequence[str], key: MetricKey) -> str:
        if len(names) == 1:
            return self.replicates.systems[names[0]].why_undefined(key)
        reasons = [
            f"{name}: {self.replicates.systems[name].why_undefined(key)}"
            for name in names
            if self.replicates.systems[name].values.get(key) is None
        ]
        return "; ".join(reasons)

    def _bound(self, figure: _Figure) -> Estimate:
        """Compute the interval of a figure, in these steps.

        1. The interval is the percentiles of the replicates, which are expanded for few patients.
           If a threshold or score cut is chosen again in each resample, the replicates are wide
           enough without that. An exception are thresholds that a required sensitivity or
           specificity, or a cost, has chosen: they depend on the scores of few validation patients.
        2. If a system has several training seeds, the interval of Obuchowski and Rockette takes the
           place of the percentiles.
        3. If few positive images bias average precision, a note says so.
        4. A share of 0 or 1 that no resample changes gets the exact interval.
        5. A difference also gets its intervals as one of several comparisons.
        """
        drawn = self.replicates.mean(figure.names, figure.key)
        fixed_drawn = self.replicates.with_fixed_choices.mean(figure.names, figure.key)
        refitted = fixed_drawn is not None
        if drawn is not None and figure.is_bias_corrected:
            drawn = lower_for_bias(drawn, figure.value)
        rests_on_cut = any(name in figure.choices for name in (THRESHOLDS, BOX_CUT))
        patients = figure.size.effective_patients
        if refitted and rests_on_cut:
            patients = figure.patients_of_choice
        bounded = self._percentiles(figure, drawn, fixed_drawn, patients)
        over_seeds = None
        if figure.has_seeds:
            bounded, over_seeds = self._over_seeds(figure, bounded)
        bounded = _note_bias(figure, bounded)
        if not figure.is_difference and not figure.has_seeds:
            bounded = _with_exact_interval(figure, bounded)
        interval = bounded.interval
        family_ends: tuple[tuple[float, float], ...] = ()
        if figure.is_difference and interval.bounded:
            if over_seeds is not None:
                family_ends = over_seeds.intervals_at(family_levels(len(self.replicates.systems)))
            elif drawn is not None:
                family_ends = self._family_ends(drawn, patients)
        fixed = bounded.fixed_interval
        choices = figure.choices
        return Estimate(
            interval.estimate,
            interval.low,
            interval.high,
            interval.note,
            method=bounded.method if interval.bounded else "",
            kind=bounded.kind if interval.bounded else None,
            counts=figure.size,
            family=family_ends,
            fixed_choice_interval=(fixed.low, fixed.high) if fixed.bounded else None,
            n_chosen_on=figure.n_chosen_on,
            refitted=refitted,
            fixed_choices=tuple(name for name, made_again in choices.items() if not made_again),
            refitted_choices=tuple(name for name, made_again in choices.items() if made_again),
        )

    def _percentiles(
        self,
        figure: _Figure,
        drawn: Floats | None,
        fixed_drawn: Floats | None,
        patients: float | None,
    ) -> _BoundedFigure:
        refitted = fixed_drawn is not None
        interval = self._percentile_interval(figure, drawn, patients, refitted=refitted)
        if refitted and figure.too_few_misses:
            interval = Interval(figure.value, note=f"no interval: {figure.too_few_misses}")
        fixed = self._percentile_interval(figure, fixed_drawn, figure.size.effective_patients)
        method = self.resamples.method
        if figure.is_bias_corrected:
            method += _BIAS_CORRECTED
        return _BoundedFigure(interval, fixed, method + choices_text(figure.choices))

    def _percentile_interval(
        self,
        figure: _Figure,
        drawn: Floats | None,
        patients: float | None,
        *,
        refitted: bool = False,
    ) -> Interval:
        if drawn is None:
            return Interval(figure.value)
        if self.resamples.n_clusters < 2:
            return Interval(figure.value, note=_ONE_PATIENT)
        level = expanded_level(LEVEL, patients)
        interval = percentile_interval(drawn, level, estimate=figure.value)
        if refitted and not (interval.bounded or interval.unmoved):
            return replace(interval, note=f"{interval.note}; {_CHOICE_UNSURE}")
        return interval

    def _over_seeds(
        self, figure: _Figure, bounded: _BoundedFigure
    ) -> tuple[_BoundedFigure, ClusteredEstimate | None]:
        """Replace the percentile intervals by those over training seeds, where there are any."""
        interval, estimate = _interval_over_seeds(self.replicates, figure, bounded.interval)
        fixed_replicates = self.replicates.with_fixed_choices
        fixed, _ = _interval_over_seeds(fixed_replicates, figure, bounded.fixed_interval)
        method = f"{OVER_SEEDS}; covariances of {self.resamples.n_replicates} resamples"
        method += choices_text(figure.choices)
        return _BoundedFigure(interval, fixed, method, "seeds"), estimate

    def _family_ends(
        self, drawn: Floats, patients: float | None
    ) -> tuple[tuple[float, float], ...]:
        """Return the percentile intervals of a difference as one of 1, 2, 3, ... comparisons."""
        levels = family_levels(len(self.replicates.systems))
        tails = [(1 - expanded_level(level, patients)) / 2 for level in levels]
        known = drawn[~np.isnan(drawn)]
        ends = np.quantile(known, [*tails, *(1 - tail for tail in tails)])
        low = ends[: len(tails)].tolist()
        high = ends[len(tails) :].tolist()
        return tuple(zip(low, high, strict=True))

    def _size(self, name: str, key: MetricKey) -> SampleSize:
        """Return the sample size of a figure of a system."""
        evaluated = self.replicates.systems[name].scorecards[0].evaluated
        chosen = evaluated.population(key)
        share_of = METRICS[key.metric].share_of if key.metric in METRICS else None
        of_class = share_of if share_of in ("positive", "negative") else ""
        population = (id(evaluated), chosen.tobytes(), of_class)
        if population not in self._sizes:
            self._sizes[population] = SampleSize.from_images(evaluated, chosen, of_class)
        return self._sizes[population]


def _interval_over_seeds(
    replicates: Replicates, figure: _Figure, interval: Interval
) -> tuple[Interval, ClusteredEstimate | None]:
    """Return the interval over training seeds, clipped to [0, 1] for a figure in that range.

    Without replicates, the given interval is returned unchanged.
    """
    drawn = replicates.mean(figure.names, figure.key)
    if drawn is None or not interval.bounded:
        return interval, None
    patients = figure.size.effective_patients
    estimate = replicates.over_seeds(figure.names, figure.key, patients)
    if estimate is None or estimate.interval is None:
        return replace(interval, low=np.nan, high=np.nan, note=NO_WIDTH), None
    low, high = estimate.interval
    if not figure.is_difference and np.nanmin(drawn) >= 0:
        low = max(low, 0.0)
        if np.nanmax(drawn) <= 1:
            high = min(high, 1.0)
    return replace(interval, low=low, high=high), estimate


def lower_for_bias(drawn: Floats, value: float) -> Floats:
    """Correct the replicates of an average precision for bias, for the lower end of its interval.

    With few lesions, an average precision is too high on average. The replicates (its values on
    bootstrap resamples) are too high by the same bias once more, so the bias is estimated by their
    mean minus the figure, and twice the bias is subtracted from the replicates below their median.
    The upper half of the replicates stays as it is, because the replicates do not always show the
    whole bias. The resulting interval contains both the usual percentile interval and the corrected
    one.

    Args:
        drawn: Replicates in [0, 1], shape ``(R,)``; NaN where the average precision is undefined.
        value: The average precision on the evaluated images, without resampling.

    Returns:
        The replicates, shape ``(R,)``, of which those below the median are lowered, but not to less
        than 0.

    Example:
        >>> lower_for_bias(np.array([0.25, 0.5, 0.75]), 0.25).tolist()
        [0.0, 0.5, 0.75]
    """
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return drawn
    bias = max(float(known.mean()) - value, 0.0)
    return np.where(drawn < np.median(known), np.maximum(drawn - 2 * bias, 0.0), drawn)


def _note_bias(figure: _Figure, bounded: _BoundedFigure) -> _BoundedFigure:
    if not figure.is_precision or figure.size.n_positive >= _FEW_POSITIVES_FOR_PRECISION:
        return bounded
    notes = [note for note in (bounded.interval.note, _TOO_HIGH) if note]
    return replace(bounded, interval=replace(bounded.interval, note="; ".join(notes)))


def _with_exact_interval(figure: _Figure, bounded: _BoundedFigure) -> _BoundedFigure:
    """Use the exact interval for a share of 0 or 1 that no resample of test patients changes."""
    exact = _exact_interval(figure.models[0], figure.key, figure.value)
    if exact is None:
        return bounded
    if bounded.interval.unmoved:
        fixed = exact if bounded.fixed_interval.unmoved else bounded.fixed_interval
        return _BoundedFigure(exact, fixed, EXACT_METHOD, "exact")
    if not bounded.fixed_interval.unmoved:
        return bounded
    interval = bounded.interval
    if not interval.bounded:
        return replace(bounded, fixed_interval=exact)
    # Only the choice of the threshold changed the figure in the resamples, so their interval is too
    # narrow and is joined with the exact one.
    hull = replace(interval, low=min(interval.low, exact.low), high=max(interval.high, exact.high))
    return _BoundedFigure(hull, exact, f"{bounded.method}; {EXACT_METHOD}", bounded.kind)


def _exact_interval(scorecard: Scorecard, key: MetricKey, value: float) -> Interval | None:
    """Return the exact interval of a share of images that is 0 or 1; None for any other figure.

    All images of which it is a share have the same result, so each patient is one trial, however
    many images the patient has. More trials than patients would make the interval too narrow.
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
    if len(patients) < 2:  # no method gives an interval for one patient
        return None
    return Interval.from_share(value, len(patients))
