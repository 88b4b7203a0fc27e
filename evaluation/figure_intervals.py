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
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.box_choice import BOX_CUT
from cxr_compare.evaluation.evaluated_model import (
    PLACES,
    THRESHOLDS,
    EvaluatedModel,
    Models,
    images_of,
)
from cxr_compare.evaluation.figures import (
    OVER_SEEDS,
    Figure,
    Figures,
    choices_text,
    image_blind_name,
)
from cxr_compare.evaluation.labelled_images import LabelledImages
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
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
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
BIAS_CORRECTED = ", lower end bias-corrected"
"""End of the name of the method of an average precision, whose lower end allows for its bias."""


def compute_figures(
    target: str,
    models: Models,
    frames: Frames,
    resamples: Resamples,
    *,
    unit: str = "image",
    image_blind: Models | None = None,
    no_claim: str = "",
) -> Figures:
    """Compute all figures and paired differences of systems, with intervals and p-values.

    `frames` has those of the models, which `replicates` returned for the same resamples, and those
    of the image-blind baselines under their `image_blind_name`. `image_blind` has the baselines by
    display name of their system; they get the localisation figures that the system has, and the
    system its differences from them. `no_claim` is the reason why no claim may rest on these
    differences; empty if one may. The note of an undefined figure says why it is undefined.

    Source:
        Obuchowski 1997 (AUROC); Obuchowski and Rockette 1995, Hillis 2007 (training seeds);
        Efron and Tibshirani 1993 (percentiles); Hesterberg 2015 (few patients).
    """
    blind = {image_blind_name(name): members for name, members in (image_blind or {}).items()}
    inputs = _Inputs({**models, **blind}, frames, resamples)
    rows: dict[tuple[str, str], dict[MetricKey, Figure]] = {}
    for name in models:
        rows[name, ""] = {key: _figure(inputs, (name,), key) for key in inputs.keys(name)}
    for pair in combinations(models, 2):
        keys = [key for key in inputs.keys(pair[0]) if key.metric not in family("counts")]
        rows[pair] = {key: _figure(inputs, pair, key) for key in keys}
    for name in image_blind or {}:
        baseline = image_blind_name(name)
        keys = [
            key
            for key in inputs.keys(baseline)
            if METRICS[key.metric].boxed and rows[name, ""].get(key, Figure()).known
        ]
        rows[baseline, ""] = {key: _figure(inputs, (baseline,), key) for key in keys}
        rows[name, baseline] = {
            key: _figure(inputs, (name, baseline), key, no_claim) for key in keys
        }
    return Figures(target, unit, tuple(models), rows)


def seed_parts(
    members: Sequence[EvaluatedModel], chosen: np.ndarray, *, by_image: bool = False
) -> list[AurocParts] | None:
    """Compute the contribution of each patient to a system's AUROC, for every training seed.

    The variance of the AUROC and the covariance between seeds and systems are computed from them.
    `chosen` is True for the images that count, shape ``(N,)``. With `by_image`, contributions of
    images are computed, as if images were independent. The result is `None` if all chosen images
    are of one class, or if the system has no scores.
    """
    if not all(model.output.has_scores for model in members):
        return None
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
    effective_patients: float | None
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
        precision = (*family("coco"), *family("coco_decided"), *family("vinbigdata"))
        return not self.is_difference and self.key.metric in precision

    @cached_property
    def choices(self) -> dict[str, bool]:
        """Validation choices behind the figure: True if the resamples make them for all models."""
        by_model = [model.choices_of(self.key) for model in self.models]
        names = dict.fromkeys(name for choices in by_model for name in choices)
        return {name: all(choices.get(name, True) for choices in by_model) for name in names}

    @cached_property
    def refitted(self) -> bool:
        """True if the resamples make a choice behind the figure again for every model.

        Relearned positions of an image-blind baseline are no choice of a system, and boxes without
        scores leave none.
        """
        choosing = [model for model in self.models if model.output.has_scores]
        by_model = [model.choices_of(self.key) for model in choosing]
        return bool(by_model) and all(
            any(choices.get(name) for name in choices if name != PLACES) for choices in by_model
        )

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
        return None if self.rests_on_cut else self.effective_patients

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
class _Inputs:
    """Models and their frames, with what several figures need."""

    models: Models  # systems and image-blind baselines
    frames: Frames
    resamples: Resamples
    _sizes: dict[tuple[bytes, str], dict[str, Any]] = field(default_factory=dict)
    _parts: dict[tuple[str, str], list[AurocParts]] = field(default_factory=dict)

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

    def auroc_parts(self, name: str, subgroup: str) -> list[AurocParts]:
        """Return the contributions of the patients to a system's AUROC, for every seed."""
        if (name, subgroup) not in self._parts:
            chosen = subgroups_of(self.models)[subgroup]
            self._parts[name, subgroup] = seed_parts(self.models[name], chosen) or []
        return self._parts[name, subgroup]

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

    def by_seed(self, name: str, key: MetricKey) -> list[Floats] | None:
        """Return a figure's column of each seed; None if a seed lacks the figure."""
        columns = [columns.get(key) for columns in self._columns[name]]
        known = [column for column in columns if column is not None and not np.isnan(column[0])]
        return known if len(known) == len(columns) else None

    def mean(self, name: str, key: MetricKey) -> Floats | None:
        """Return the mean of a figure's columns over the seeds; None if a seed lacks it."""
        columns = self.by_seed(name, key)
        if columns is None:
            return None
        return columns[0] if len(columns) == 1 else np.asarray(np.mean(columns, axis=0))

    def why_undefined(self, names: Sequence[str], key: MetricKey) -> str:
        """Return why a figure, or the difference of two, is undefined."""
        reasons = {}
        size = self.size(key)
        for name in names:
            if self.mean(name, key) is None:
                usual = _NOT_TUNED
                if any(key in columns for columns in self._columns[name]):
                    usual = why_undefined(key.metric, size["n_positive"], size["n_images"])
                reasons[name] = self._reasons[name].get(key, usual)
        if len(names) == 1:
            return reasons[names[0]]
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())

    def size(self, key: MetricKey) -> dict[str, Any]:
        """Return how many images and patients a figure rests on, by field of `Figure`."""
        images = images_of(self.models)
        chosen = images.population(key)
        share_of = METRICS[key.metric].share_of
        of_class = share_of if share_of in ("positive", "negative") else ""
        population = (chosen.tobytes(), of_class)
        if population not in self._sizes:
            self._sizes[population] = _size(images, chosen, of_class)
        return self._sizes[population]


def _size(
    images: LabelledImages, chosen: npt.NDArray[np.bool_], of_class: str
) -> dict[str, int | float]:
    classes = {"positive": chosen & images.y_true, "negative": chosen & ~images.y_true}
    effective = {
        name: effective_patients(np.bincount(images.patients[of_one]))
        for name, of_one in classes.items()
    }
    return {
        "n_images": int(chosen.sum()),
        "n_patients": len(np.unique(images.patients[chosen])),
        "n_positive": int(classes["positive"].sum()),
        "effective_patients": effective.get(of_class, min(effective.values())),
    }


def _figure(inputs: _Inputs, names: Sequence[str], key: MetricKey, no_claim: str = "") -> Figure:
    """Return a figure of one system, or the difference of two, by the method of its metric.

    If it is undefined, the note says why.
    """
    size = inputs.size(key)
    columns = [inputs.mean(name, key) for name in names]
    known = [column for column in columns if column is not None]
    if len(known) < len(names):
        return Figure(note=inputs.why_undefined(names, key), **size)
    column = known[0] if len(known) == 1 else known[0] - known[1]
    models = [model for name in names for model in inputs.models[name]]
    question = _Question(names, key, float(column[0]), size["effective_patients"], models)
    if key.metric == "auroc":
        figure = _by_obuchowski(inputs, question)
    elif is_closed(key) and not question.is_difference:
        figure = _by_counts(inputs, question)
    else:
        figure = _by_bootstrap(inputs, question, column[1:], no_claim)
    return replace(figure, **size)


def _by_obuchowski(inputs: _Inputs, question: _Question) -> Figure:
    """Return an AUROC, or the difference of two, with its closed interval by patient."""
    subgroup = question.key.subgroup
    estimate = auroc_over_seeds(*(inputs.auroc_parts(name, subgroup) for name in question.names))
    figure = Figure(question.value, note=estimate.note, error=estimate.error)
    if question.is_difference:
        figure = replace(figure, p_value=estimate.p_value, detectable=estimate.detectable)
    elif question.key.subgroup == ALL:
        images = images_of(inputs.models)
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
        interval_at=ends_of(estimate) if question.is_difference else None,
    )


def _by_counts(inputs: _Inputs, question: _Question) -> Figure:
    """Return a figure at a threshold with the closed interval of this threshold."""
    (name,) = question.names
    chosen = images_of(inputs.models).population(question.key)
    found = closed_figure(inputs.models[name], question.key, question.value, chosen)
    figure = Figure(
        question.value,
        found.interval.ci_low,
        found.interval.ci_high,
        note=found.interval.note,
        n_chosen_on=question.n_chosen_on,
    )
    if not figure.bounded:
        return figure
    if found.exact:
        return replace(figure, method=EXACT_METHOD, kind="exact")
    if question.has_seeds:
        return replace(figure, method=f"{OVER_SEEDS}; {CLUSTERED_COUNTS}", kind="seeds")
    return replace(figure, method=CLUSTERED_COUNTS, kind="counts")


def _by_bootstrap(inputs: _Inputs, question: _Question, drawn: Floats, no_claim: str) -> Figure:
    """Return a figure with the interval that its replicates give.

    1. The interval is the percentiles of the replicates, which are expanded for few patients.
    2. If a system has several training seeds, the interval of Obuchowski and Rockette takes the
       place of the percentiles.
    3. If few positive images bias average precision, a note says so.
    4. A share of 0 or 1, which no resample changes, gets the exact interval.
    """
    figure = Figure(
        question.value,
        n_chosen_on=question.n_chosen_on,
        refitted=question.refitted,
        choices=question.choices,
        no_claim=no_claim or question.no_claim if question.is_difference else "",
    )
    if not is_resampled(question.key):
        return figure
    figure = _with_percentiles(question, figure, drawn, inputs.resamples)
    over_seeds = _over_seeds(inputs, question) if question.has_seeds and figure.bounded else None
    if question.has_seeds and figure.bounded:
        figure = _with_seeds(question, figure, drawn, over_seeds, inputs.resamples)
    n_positive = inputs.size(question.key)["n_positive"]
    if question.is_precision and n_positive < _FEW_POSITIVES_FOR_PRECISION:
        notes = [note for note in (figure.note, _TOO_HIGH) if note]
        figure = replace(figure, note="; ".join(notes))
    if not question.is_difference and not question.has_seeds:
        figure = _with_exact_interval(question, figure)
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
            interval_at=ends_of(over_seeds),
        )
    return _tested(question, figure, drawn)


def _with_percentiles(
    question: _Question, figure: Figure, drawn: Floats, resamples: Resamples
) -> Figure:
    method = resamples.method
    if question.is_precision and not question.has_seeds:
        drawn = lower_for_bias(drawn, question.value)
        method += BIAS_CORRECTED
    figure = replace(figure, method=method + choices_text(question.choices), kind="bootstrap")
    if resamples.n_clusters < 2:
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


def _over_seeds(inputs: _Inputs, question: _Question) -> ClusteredEstimate | None:
    """Estimate a figure, or a difference of two systems, over training seeds.

    The seeds are a random factor. The covariances between seeds are those of the replicates, so
    they include the uncertainty of thresholds that are chosen again; those of a jackknife of the
    test patients would not.
    """
    by_seed = [inputs.by_seed(name, question.key) or [] for name in question.names]
    table = np.column_stack([column[1:] for columns in by_seed for column in columns])
    table = table[~np.isnan(table).any(axis=1)]
    if len(table) < 2:
        return None
    metric = METRICS[question.key.metric]
    return estimate_over_seeds(
        [[float(column[0]) for column in columns] for columns in by_seed],
        np.cov(table.T),
        max((question.effective_patients or np.inf) - 1, 1.0),
        bounded=not question.is_difference and metric.share_of is not None,
        span=np.inf if metric.unbounded else 1.0,
    )


def _with_seeds(
    question: _Question,
    figure: Figure,
    drawn: Floats,
    estimate: ClusteredEstimate | None,
    resamples: Resamples,
) -> Figure:
    """Replace percentiles by the interval over training seeds; [0, 1] bounds a share."""
    method = f"{OVER_SEEDS}; covariances of {resamples.n_replicates} resamples"
    figure = replace(figure, method=method + choices_text(question.choices), kind="seeds")
    if estimate is None or not estimate.has_interval:
        return replace(figure, ci_low=np.nan, ci_high=np.nan, note=NO_WIDTH)
    low, high = estimate.ci_low, estimate.ci_high
    if not question.is_difference and np.nanmin(drawn) >= 0:
        low = max(low, 0.0)
        if np.nanmax(drawn) <= 1:
            high = min(high, 1.0)
    return replace(figure, ci_low=low, ci_high=high)


def _with_exact_interval(question: _Question, figure: Figure) -> Figure:
    """Use the exact interval for a share of 0 or 1, which no resample of patients changes.

    All images of the share have the same result, so each patient is one trial, however many images
    the patient has. More trials than patients would make the interval too narrow.
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


def ends_of(estimate: ClusteredEstimate) -> Callable[[float], tuple[float, float]]:
    """Return the ends of an estimate's interval as a function of its coverage."""
    return lambda level: estimate.interval_at(level) or (np.nan, np.nan)


def _tested(question: _Question, figure: Figure, drawn: Floats) -> Figure:
    """Add the p-value of a difference, and its interval at other coverages, from replicates."""
    known = drawn[~np.isnan(drawn)]
    patients = question.effective_patients
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
    mean minus the figure, and twice the bias is subtracted from the replicates below their median,
    but none becomes lower than 0. The upper half of the replicates stays as it is, because the
    replicates do not always show the whole bias. The resulting interval contains both the usual
    percentile interval and the corrected one.

    The replicates `drawn` are in [0, 1], shape ``(R,)``, and NaN where the average precision is
    undefined; `value` is the average precision on the evaluated images.

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
    """Compute the two-sided p-value of a difference of 0 from its R bootstrap replicates.

    The p-value is twice the share of replicates on that side of 0 which has fewer; replicates of
    exactly 0 count on both sides. 1 is added to both counts, so that the p-value is never 0. If the
    effective number of `patients` is given, the p-value is enlarged so that it agrees with a
    percentile interval that is widened for few patients by `expanded_level`. Replicates of NaN are
    left out; without any other the p-value is None.

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
