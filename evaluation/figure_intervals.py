"""Figures and paired differences with intervals and p-values, from frames of replicates.

The AUROC, its differences and the figures at a threshold have closed intervals by patient; all
other intervals are percentiles of a column of a frame, or of the difference of two columns. If
systems have several training seeds, figures are means over the seeds, and the intervals are those
of Obuchowski and Rockette 1995, with the covariances of the patients' contributions or of the
columns between all seeds of both systems.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.box_choice import BOX_CUT
from cxr_compare.evaluation.evaluated_model import THRESHOLDS, EvaluatedModel, Models, images_of
from cxr_compare.evaluation.figures import (
    OVER_SEEDS,
    Figure,
    Figures,
    SampleSize,
    choices_text,
    image_blind_name,
)
from cxr_compare.evaluation.metrics.metric import ALL, VERSUS_NORMAL, MetricKey
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS, family, why_undefined
from cxr_compare.evaluation.replicates import Frames, is_resampled
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.clustered_auroc import (
    OBUCHOWSKI,
    AurocParts,
    auroc_over_seeds,
    auroc_parts,
)
from cxr_compare.evaluation.statistics.clustered_counts import CLUSTERED_COUNTS
from cxr_compare.evaluation.statistics.clustered_estimate import (
    ClusteredEstimate,
    smallest_detectable,
)
from cxr_compare.evaluation.statistics.intervals import (
    LEVEL,
    NO_WIDTH,
    Interval,
    expanded_level,
    percentile_interval,
)
from cxr_compare.evaluation.statistics.obuchowski_rockette import estimate_over_seeds
from cxr_compare.evaluation.statistics.rank_test import chance_p_value
from cxr_compare.evaluation.threshold_figures import closed_figure, is_closed
from cxr_compare.evaluation.thresholds import is_chosen

EXACT_METHOD = "exact (Clopper-Pearson), patients as trials"
EXACT_AUROC = "exact (Clopper-Pearson), pairs of patients as trials"
_NOT_TUNED = "not tuned for this"
_CHOICE_UNSURE = "choices were refitted: other validation patients would have chosen otherwise"
_TOO_HIGH = "too high on average with so few positive images: AP50 by 0.04 with 18, by 0.02 with 60"
_FEW_POSITIVES_FOR_PRECISION = 100
_ONE_PATIENT = "one patient gives no interval"
AS_STORED = "the boxes are as stored: no validation images decided which of them count"
_BIAS_CORRECTED = ", lower end bias-corrected"


def compute_figures(
    target: str, models: Models, frames: Frames, resamples: Resamples, *, unit: str = "image"
) -> Figures:
    """Compute all figures and paired differences of systems, with intervals and p-values.

    Args:
        target: Name of the finding, or group of findings, that is evaluated.
        models: Evaluated models of each system by its display name, one for each training seed.
        frames: Frames of these models, which `replicates` returned.
        resamples: Bootstrap samples of the patients that gave the frames.
        unit: What the models are evaluated by: ``image``, ``study`` or ``patient``.

    Returns:
        Figures of all systems and pairs of systems. The note of an undefined one says why.

    Source:
        Obuchowski 1997 (AUROC); Obuchowski and Rockette 1995, Hillis 2007 (training seeds);
        Efron and Tibshirani 1993 (percentiles); Hesterberg 2015 (few patients).

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.choices import Choices
        >>> from cxr_compare.evaluation.labelled_images import LabelledImages, no_boxes
        >>> from cxr_compare.evaluation.output import Output
        >>> from cxr_compare.evaluation.replicates import replicates
        >>> n = np.arange(60)
        >>> images = LabelledImages(
        ...     pd.Index(n), n % 2 == 0, n, 60, np.zeros(60, dtype=bool), no_boxes())
        >>> output = Output.from_scores(images.image_ids, (n * 7 % 10 + 3 * (n % 2 == 0)) / 20)
        >>> choices = Choices(target="opacity", chosen_on={})
        >>> models = {"A": [EvaluatedModel("A", images, output, choices)]}
        >>> resamples = Resamples(60, 200, 0)
        >>> figures = compute_figures("opacity", models, replicates(models, resamples), resamples)
        >>> round(figures.get("A", "auroc").estimate, 3)
        0.68
    """
    maker = _Maker(models, frames, resamples)
    of_systems = {
        name: {key: maker.figure((name,), key) for key in maker.keys(name)} for name in models
    }
    differences = {
        pair: {
            key: maker.figure(pair, key)
            for key in maker.keys(pair[0])
            if key.metric not in family("counts")
        }
        for pair in combinations(models, 2)
    }
    return Figures(target, unit, of_systems, differences)


def with_image_blind(
    figures: Figures,
    models: Models,
    frames: Frames,
    image_blind: Models,
    resamples: Resamples,
    no_claim: str = "",
) -> Figures:
    """Add the image-blind baselines of the systems, and each system's difference from its own.

    Args:
        figures: Figures of the systems, which `compute_figures` returned.
        models: Evaluated models of each system by its display name, one for each training seed.
        frames: Frames of the systems, and of the baselines under their `image_blind_name`.
        image_blind: Baselines by display name of their system.
        resamples: Bootstrap samples of the patients that gave the frames.
        no_claim: Reason why no claim may rest on the differences; empty if one may.

    Returns:
        The figures, with baselines in all localisation figures that a system has.
    """
    baselines = {image_blind_name(name): members for name, members in image_blind.items()}
    maker = _Maker({**models, **baselines}, frames, resamples, no_claim)
    alone: dict[str, dict[MetricKey, Figure]] = {}
    over: dict[str, dict[MetricKey, Figure]] = {}
    for name in image_blind:
        baseline = image_blind_name(name)
        keys = [
            key
            for key in maker.keys(baseline)
            if figures.systems[name].get(key, Figure()).known and METRICS[key.metric].boxed
        ]
        alone[name] = {key: maker.figure((baseline,), key) for key in keys}
        over[name] = {key: maker.figure((name, baseline), key) for key in keys}
    return replace(figures, image_blind=alone, over_image_blind=over)


def seed_parts(
    members: Sequence[EvaluatedModel], chosen: np.ndarray, *, by_image: bool = False
) -> list[AurocParts] | None:
    """Compute the contribution of each patient to the AUROC, for every training seed.

    The variance of the AUROC and the covariance between seeds and systems are computed from them.

    Args:
        members: Models of one system, one for each training seed.
        chosen: True for the images on which the AUROC is computed, shape ``(N,)``.
        by_image: If True, contributions of images instead of patients are computed, as if images
            were independent.

    Returns:
        The AUROC with its contributions, one item for each seed; `None` if all chosen images are of
        one class.
    """
    images = members[0].images
    clusters = images.patients[chosen]
    n_clusters = images.n_patients
    if by_image:
        n_clusters = int(chosen.sum())
        clusters = np.arange(n_clusters)
    y_true = images.y_true[chosen]
    parts = [auroc_parts(y_true, model.scores[chosen], clusters, n_clusters) for model in members]
    known = [part for part in parts if part is not None]
    return known if known and len(known) == len(parts) else None


def subgroups_of(models: Models) -> dict[str, np.ndarray]:
    """Return the images of each subgroup that has figures of its own, shape ``(N,)``."""
    images = images_of(models)
    subgroups = {ALL: np.ones(len(images.y_true), dtype=bool)}
    if images.versus_normal is not None:
        subgroups[VERSUS_NORMAL] = images.versus_normal
    return subgroups


@dataclass(frozen=True)
class _Question:
    """One figure of a system or of a difference, with everything that its interval depends on."""

    names: Sequence[str]  # one system, or the two systems of a difference
    key: MetricKey
    value: float
    size: SampleSize
    models: Sequence[EvaluatedModel]  # of all seeds of these systems

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

    @cached_property
    def choices(self) -> dict[str, bool]:
        """Validation choices behind the figure: True if the resamples make them for all models."""
        by_model = [model.choices_of(self.key) for model in self.models]
        names = dict.fromkeys(name for choices in by_model for name in choices)
        return {name: all(choices.get(name, True) for choices in by_model) for name in names}

    @cached_property
    def refitted(self) -> bool:
        """True if the resamples make a choice behind the figure again for every model."""
        return all(any(model.choices_of(self.key).values()) for model in self.models)

    @property
    def rests_on_cut(self) -> bool:
        """True if the figure rests on a threshold or score cut that resamples choose again."""
        return self.refitted and any(name in self.choices for name in (THRESHOLDS, BOX_CUT))

    @property
    def n_chosen_on(self) -> int | None:
        """Smallest number of validation positives on which a threshold or score cut was chosen."""
        counts = []
        if "box_cut" in METRICS[self.key.metric].needs:
            boxes = [model.choices.box_choice for model in self.models]
            counts = [choice.n_positive for choice in boxes if choice is not None]
        elif is_chosen(self.key.policy):
            scores = [model.choices.chosen_scores for model in self.models]
            counts = [each.n_positive for each in scores if each is not None]
        return min(counts) if counts and len(counts) == len(self.models) else None

    @property
    def patients(self) -> float | None:
        """Effective number of patients for which percentiles are expanded; None for none.

        If a threshold or score cut is chosen again in each resample, the replicates are wide
        enough without that.
        """
        return None if self.rests_on_cut else self.size.effective_patients

    @property
    def no_claim(self) -> str:
        """Reason why no claim may rest on a difference of boxes; empty if one may.

        Boxes as stored depend on an export setting, so only boxes that one rule decided on
        validation images are compared.
        """
        metric = METRICS[self.key.metric]
        if "boxes" not in metric.needs:
            return ""
        if metric.of_stored_boxes or not all(model.boxes_are_decided for model in self.models):
            return AS_STORED
        chosen_by = sorted({model.choices.options.boxes_by for model in self.models})
        if len(chosen_by) > 1:
            return f"the rules of boxes were chosen by different figures: {listing(chosen_by)}"
        return ""

    @property
    def too_few_misses(self) -> str:
        """Reason why resamples do not show how much the threshold varies; empty if they do."""
        if not self.refitted or not is_chosen(self.key.policy):
            return ""
        chosen_on = [model.choices.chosen_scores for model in self.models]
        reasons = [each.too_few_for(self.key.policy) for each in chosen_on if each]
        return next(filter(None, reasons), "")


@dataclass
class _Maker:
    """Maker of the figure of one system, or of the difference of two systems in it."""

    models: Models
    frames: Frames
    resamples: Resamples
    no_claim: str = ""  # reason why no claim may rest on any of its differences
    _sizes: dict[tuple[bytes, str], SampleSize] = field(default_factory=dict)

    @cached_property
    def _reasons(self) -> dict[str, dict[MetricKey, str]]:
        """Reason, by system and key, for each figure that at least one training seed lacks."""
        reasons: dict[str, dict[MetricKey, str]] = {}
        for name, members in self.models.items():
            reasons[name] = {
                key: reason if len(members) == 1 else f"seed {seed}: {reason}"
                for seed, model in enumerate(members, start=1)
                for key, reason in model.missing().items()
            }
        return reasons

    @cached_property
    def _auroc_parts(self) -> dict[str, dict[str, list[AurocParts] | None]]:
        """Contributions of the patients to each AUROC, by subgroup and system."""
        return {
            subgroup: {name: seed_parts(members, chosen) for name, members in self.models.items()}
            for subgroup, chosen in subgroups_of(self.models).items()
        }

    @cached_property
    def _columns(self) -> dict[str, list[dict[MetricKey, Floats]]]:
        """Columns of each seed's frame by key, shape ``(1 + R,)``."""
        return {
            name: [
                dict(zip(map(MetricKey._make, frame.columns), frame.to_numpy().T, strict=True))
                for frame in of_seeds
            ]
            for name, of_seeds in self.frames.items()
        }

    def keys(self, name: str) -> list[MetricKey]:
        """Return the keys of a system's figures, also of those that it cannot have."""
        keys = dict.fromkeys(key for columns in self._columns[name] for key in columns)
        return list(keys | dict.fromkeys(self._reasons[name]))

    def _by_seed(self, name: str, key: MetricKey) -> list[Floats] | None:
        columns = [columns.get(key) for columns in self._columns[name]]
        known = [column for column in columns if column is not None and not np.isnan(column[0])]
        return known if len(known) == len(columns) else None

    def _mean(self, name: str, key: MetricKey) -> Floats | None:
        columns = self._by_seed(name, key)
        if columns is None:
            return None
        return columns[0] if len(columns) == 1 else np.asarray(np.mean(columns, axis=0))

    def figure(self, names: Sequence[str], key: MetricKey) -> Figure:
        """Return a figure with its interval; if it is undefined, the note says why."""
        size = self._size(key)
        columns = [self._mean(name, key) for name in names]
        known = [column for column in columns if column is not None]
        if len(known) < len(names):
            return Figure(note=self._why_undefined(names, key), counts=size)
        column = known[0] if len(known) == 1 else known[0] - known[1]
        models = [model for name in names for model in self.models[name]]
        question = _Question(names, key, float(column[0]), size, models)
        if key.metric == "auroc":
            return self._auroc(question)
        if is_closed(key) and not question.is_difference:
            return self._closed(question)
        return self._from_replicates(question, column[1:])

    def _why_undefined(self, names: Sequence[str], key: MetricKey) -> str:
        reasons = {}
        for name in names:
            if self._mean(name, key) is None:
                known = any(key in columns for columns in self._columns[name])
                usual = why_undefined(key.metric) if known else _NOT_TUNED
                reasons[name] = self._reasons[name].get(key, usual)
        if len(names) == 1:
            return reasons[names[0]]
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())

    def _auroc(self, question: _Question) -> Figure:
        """Return an AUROC, or the difference of two, with its closed interval by patient."""
        of_system = self._auroc_parts[question.key.subgroup]
        parts = [part for name in question.names if (part := of_system[name]) is not None]
        estimate = auroc_over_seeds(*parts)
        figure = Figure(question.value, counts=question.size, note=estimate.note)
        if question.is_difference:
            figure = replace(
                figure,
                p_value=estimate.p_value,
                error=estimate.error,
                detectable=estimate.detectable,
            )
        elif question.key.subgroup == ALL:
            images = images_of(self.models)
            scores = [model.scores for model in question.models]
            p_value = chance_p_value(images.y_true, scores, images.patients, images.n_patients)
            figure = replace(figure, p_value=p_value)
        if not estimate.has_interval:
            return figure
        figure = replace(figure, ci_low=estimate.ci_low, ci_high=estimate.ci_high, note="")
        if estimate.exact:
            return replace(figure, method=EXACT_AUROC, kind="exact")
        method = OVER_SEEDS if question.has_seeds else OBUCHOWSKI
        return replace(
            figure,
            method=method if question.is_difference else f"{method} (on the logit)",
            kind="seeds" if question.has_seeds else "obuchowski",
            interval_at=_ends_of(estimate) if question.is_difference else None,
        )

    def _closed(self, question: _Question) -> Figure:
        """Return a figure at a threshold with the closed interval of this threshold."""
        (name,) = question.names
        chosen = images_of(self.models).population(question.key)
        found = closed_figure(self.models[name], question.key, question.value, chosen)
        figure = Figure(
            question.value,
            found.interval.ci_low,
            found.interval.ci_high,
            note=found.interval.note,
            counts=question.size,
            n_chosen_on=question.n_chosen_on,
        )
        if not figure.bounded:
            return figure
        if found.exact:
            return replace(figure, method=EXACT_METHOD, kind="exact")
        if question.has_seeds:
            return replace(figure, method=f"{OVER_SEEDS}; {CLUSTERED_COUNTS}", kind="seeds")
        return replace(figure, method=CLUSTERED_COUNTS, kind="counts")

    def _from_replicates(self, question: _Question, drawn: Floats) -> Figure:
        """Return a figure with the interval that its replicates give.

        1. The interval is the percentiles of the replicates, which are expanded for few patients.
        2. If a system has several training seeds, the interval of Obuchowski and Rockette takes the
           place of the percentiles.
        3. If few positive images bias average precision, a note says so.
        4. A share of 0 or 1, which no resample changes, gets the exact interval.
        """
        choices = question.choices
        figure = Figure(
            question.value,
            counts=question.size,
            n_chosen_on=question.n_chosen_on,
            refitted=question.refitted,
            fixed_choices=tuple(name for name, made_again in choices.items() if not made_again),
            refitted_choices=tuple(name for name, made_again in choices.items() if made_again),
            no_claim=self.no_claim or question.no_claim if question.is_difference else "",
        )
        if not is_resampled(question.key):
            return figure
        figure = self._with_percentiles(question, figure, drawn)
        over_seeds = self._over_seeds(question) if question.has_seeds and figure.bounded else None
        if question.has_seeds and figure.bounded:
            figure = self._with_seeds(question, figure, drawn, over_seeds)
        if question.is_precision and question.size.n_positive < _FEW_POSITIVES_FOR_PRECISION:
            notes = [note for note in (figure.note, _TOO_HIGH) if note]
            figure = replace(figure, note="; ".join(notes))
        if not question.is_difference and not question.has_seeds:
            figure = self._with_exact_interval(question, figure)
        if not figure.bounded:
            return replace(figure, method="", kind=None)
        if not question.is_difference or figure.no_claim:
            return figure
        if over_seeds is not None:
            return replace(
                figure,
                p_value=over_seeds.p_value,
                error=over_seeds.error,
                detectable=over_seeds.detectable,
                interval_at=_ends_of(over_seeds),
            )
        return _tested(question, figure, drawn)

    def _with_percentiles(self, question: _Question, figure: Figure, drawn: Floats) -> Figure:
        method = self.resamples.method
        if question.is_precision and not question.has_seeds:
            drawn = lower_for_bias(drawn, question.value)
            method += _BIAS_CORRECTED
        figure = replace(figure, method=method + choices_text(question.choices), kind="bootstrap")
        if self.resamples.n_clusters < 2:
            return replace(figure, note=_ONE_PATIENT)
        if question.too_few_misses:
            return replace(figure, note=f"no interval: {question.too_few_misses}")
        level = expanded_level(LEVEL, question.patients)
        found = percentile_interval(drawn, level, estimate=question.value)
        note = found.note
        if question.refitted and not (found.bounded or found.unmoved):
            note = f"{note}; {_CHOICE_UNSURE}"
        return replace(
            figure, ci_low=found.ci_low, ci_high=found.ci_high, note=note, unmoved=found.unmoved
        )

    def _over_seeds(self, question: _Question) -> ClusteredEstimate | None:
        """Estimate a figure, or a difference of two systems, over training seeds.

        The seeds are a random factor. The covariances between seeds are those of the replicates, so
        they include the uncertainty of thresholds that are chosen again; those of a jackknife of
        the test patients would not.
        """
        by_seed = [self._by_seed(name, question.key) or [] for name in question.names]
        table = np.column_stack([column[1:] for columns in by_seed for column in columns])
        table = table[~np.isnan(table).any(axis=1)]
        if len(table) < 2:
            return None
        metric = METRICS[question.key.metric]
        return estimate_over_seeds(
            [[float(column[0]) for column in columns] for columns in by_seed],
            np.cov(table.T),
            max((question.size.effective_patients or np.inf) - 1, 1.0),
            bounded=not question.is_difference and metric.share_of is not None,
            span=np.inf if metric.unbounded else 1.0,
        )

    def _with_seeds(
        self,
        question: _Question,
        figure: Figure,
        drawn: Floats,
        estimate: ClusteredEstimate | None,
    ) -> Figure:
        """Replace percentiles by the interval over training seeds; [0, 1] bounds a share."""
        method = f"{OVER_SEEDS}; covariances of {self.resamples.n_replicates} resamples"
        figure = replace(figure, method=method + choices_text(question.choices), kind="seeds")
        if estimate is None or not estimate.has_interval:
            return replace(figure, ci_low=np.nan, ci_high=np.nan, note=NO_WIDTH)
        low, high = estimate.ci_low, estimate.ci_high
        if not question.is_difference and np.nanmin(drawn) >= 0:
            low = max(low, 0.0)
            if np.nanmax(drawn) <= 1:
                high = min(high, 1.0)
        return replace(figure, ci_low=low, ci_high=high)

    def _with_exact_interval(self, question: _Question, figure: Figure) -> Figure:
        """Use the exact interval for a share of 0 or 1, which no resample of patients changes.

        All images of the share have the same result, so each patient is one trial, however many
        images the patient has. More trials than patients would make the interval too narrow.
        """
        share_of = METRICS[question.key.metric].share_of
        n_patients = _patients_of_share(question)
        if share_of is None or not figure.unmoved or question.value not in (0.0, 1.0):
            return figure
        if n_patients < 2:  # no method gives an interval for one patient
            return figure
        exact = Interval.from_share(question.value, n_patients)
        return replace(
            figure,
            ci_low=exact.ci_low,
            ci_high=exact.ci_high,
            note="",
            method=EXACT_METHOD,
            kind="exact",
        )

    def _size(self, key: MetricKey) -> SampleSize:
        """Return the sample size of a figure."""
        images = images_of(self.models)
        chosen = images.population(key)
        share_of = METRICS[key.metric].share_of
        of_class = share_of if share_of in ("positive", "negative") else ""
        population = (chosen.tobytes(), of_class)
        if population not in self._sizes:
            self._sizes[population] = SampleSize.from_images(images, chosen, of_class)
        return self._sizes[population]


def _ends_of(estimate: ClusteredEstimate) -> Callable[[float], tuple[float, float]]:
    """Return the ends of an estimate's interval as a function of its coverage."""
    return lambda level: estimate.interval_at(level) or (np.nan, np.nan)


def _tested(question: _Question, figure: Figure, drawn: Floats) -> Figure:
    """Add the p-value of a difference, and its interval at other coverages, from replicates."""
    known = drawn[~np.isnan(drawn)]
    patients = question.size.effective_patients
    error = float(np.std(known, ddof=1))

    def ends(level: float) -> tuple[float, float]:
        tail = (1 - expanded_level(level, question.patients)) / 2
        low, high = np.quantile(known, [tail, 1 - tail])
        return float(low), float(high)

    return replace(
        figure,
        p_value=bootstrap_p_value(drawn, None if question.refitted else patients),
        error=error,
        detectable=smallest_detectable(
            error, freedom=np.inf if patients is None else max(patients - 1, 1.0)
        ),
        interval_at=ends,
    )


def _patients_of_share(question: _Question) -> int:
    """Count the patients of the positive images on which a share without threshold is computed."""
    images = question.models[0].images
    counted = images.y_true & images.population(question.key)
    return len(np.unique(images.patients[counted]))


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
