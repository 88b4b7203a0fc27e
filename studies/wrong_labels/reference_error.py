"""Figures corrected for a known error of the reference labels.

Labels of chest X-rays are mined from reports or read by people, so some are wrong. Where the
sensitivity and the specificity of the labels are known, and where a label is wrong independently of
what a system says, the figures against the true disease follow from the figures against the labels.

With a label ``Z``, a call ``T``, the labels' sensitivity ``Se`` and specificity ``Sp``, and means
over images:

- prevalence: ``(mean(Z) + Sp - 1) / (Se + Sp - 1)`` (Rogan and Gladen 1978);
- sensitivity: ``mean(T (Z - (1 - Sp))) / mean(Z - (1 - Sp))``;
- specificity: ``mean((1 - T) (Se - Z)) / mean(Se - Z)``;
- AUROC: ``0.5 + (AUROC against Z - 0.5) / (PPV + NPV - 1)``, with the predictive values of the
  labels, because images labelled positive are a mixture of diseased and healthy ones.

Standard errors are sums over patients by the delta method, as in `clustered_auroc`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats, Integers, check_truth_and_scores
from cxr_compare.evaluation.statistics.bootstrap import cluster_index
from cxr_compare.evaluation.statistics.clustered_auroc import AurocParts, auroc_parts
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import (
    effective_patients,
    satterthwaite_freedom,
    without_leverage,
)

METHOD = "corrected for the error of the reference (Rogan and Gladen 1978), clustered by patient"
_IMPOSSIBLE = (
    "none: the labels cannot have this error, because {share:.1%} of the images are labelled "
    "positive, and the stated error allows only {low:.1%} to {high:.1%}"
)


@dataclass(frozen=True)
class ReferenceAccuracy:
    """Sensitivity and specificity of a data set's labels against the true disease.

    The labels are the reference standard, against which models are evaluated, and may contain
    errors.

    Both are in (0, 1], of the diseased images whose label is positive and of the healthy images
    whose label is negative. Raises InputError for other values, or if the two add up to 1 or less,
    which is no better than chance.

    Example:
        >>> ReferenceAccuracy(sensitivity=0.95, specificity=0.98).youden
        0.93
    """

    sensitivity: float
    specificity: float

    def __post_init__(self) -> None:
        for name in ("sensitivity", "specificity"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise InputError(f"--error: {name}={value:g}; give a share in (0, 1]")
        if self.youden <= 0:
            raise InputError(
                f"--error: sensitivity {self.sensitivity:g} and specificity "
                f"{self.specificity:g} add up to 1 or less; such labels say nothing of the disease"
            )

    @classmethod
    def from_text(cls, text: str) -> ReferenceAccuracy:
        """Read the accuracy of the labels from a text.

        It is the share of wrong labels in either class, such as ``0.05``, or both values, such as
        ``sensitivity=0.95,specificity=0.98``. Raises InputError for another form, or an impossible
        value.

        Example:
            >>> ReferenceAccuracy.from_text("0.05")
            ReferenceAccuracy(sensitivity=0.95, specificity=0.95)
        """
        parts = dict(part.strip().split("=", 1) for part in text.split(",") if "=" in part)
        try:
            if set(parts) == {"sensitivity", "specificity"} and text.count("=") == 2:
                return cls(float(parts["sensitivity"]), float(parts["specificity"]))
            share = float(text)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"--error {text!r}: give the share of wrong labels, such as 0.05, or "
                "sensitivity=0.95,specificity=0.98"
            ) from None
        if not 0 <= share < 0.5:
            raise InputError(f"--error {text}: give a share of wrong labels in [0, 0.5)")
        return cls(round(1 - share, 12), round(1 - share, 12))

    @property
    def youden(self) -> float:
        """Youden's index of the labels: sensitivity + specificity - 1."""
        return round(self.sensitivity + self.specificity - 1, 12)

    def prevalence(self, labelled_positive: float) -> float:
        """Compute the true prevalence from the share of images that are labelled positive.

        It is outside [0, 1] if labels with this sensitivity and specificity cannot have this share
        of positives.

        Source:
            Rogan and Gladen 1978, Am J Epidemiol 107:71.

        Example:
            >>> round(ReferenceAccuracy(0.9, 0.8).prevalence(0.34), 3)
            0.2
        """
        return (labelled_positive + self.specificity - 1) / self.youden

    def discrimination(self, labelled_positive: float) -> float:
        """Compute how much of an AUROC above 0.5 remains when it is measured against these labels.

        The formula is ``PPV + NPV - 1``, with the predictive values of the labels for the true
        disease. A true AUROC of 0.9 and a result of 0.5 give a measured AUROC of 0.7.
        """
        z = labelled_positive
        gap = (z + self.specificity - 1) * (self.sensitivity - z)
        return gap / (self.youden * z * (1 - z))

    def impossible(self, labelled_positive: float) -> str:
        """Return the reason why labels with these errors cannot have a given share of positives.

        The reason is empty if the share, in [0, 1], is possible.
        """
        low, high = 1 - self.specificity, self.sensitivity
        if low < labelled_positive < high:
            return ""
        return _IMPOSSIBLE.format(share=labelled_positive, low=low, high=high)


def corrected_auroc(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    reference: ReferenceAccuracy,
    patients: npt.ArrayLike | None = None,
) -> ClusteredEstimate | None:
    """Compute the AUROC against the true disease from labels with a known error.

    Labels, which may contain errors, are 0 or 1, ``(N,)``; scores ``(N,)`` are higher for disease.
    The accuracy of the labels is taken as known exactly. Without `patients`, images are taken as
    independent. If there is no 95 % interval, ``note`` gives the reason. The result is None if all
    labels are equal. Raises InputError if a label is neither 0 nor 1, a score is not finite, or the
    lengths differ.

    Source:
        The mixture of Rogan and Gladen 1978 in both classes; the variance of Obuchowski 1997.

    Example:
        >>> y_true, y_score = [0, 0, 0, 0, 1, 1, 1, 1], [1, 2, 3, 6, 4, 5, 7, 8]
        >>> corrected_auroc(y_true, y_score, ReferenceAccuracy(0.95, 0.95)).estimate
        0.9166...
    """
    truth, parts, patient, n_patients = _parts(y_true, y_score, patients)
    if parts is None:
        return None
    return _corrected_parts(parts, _label_deviations(truth, patient, n_patients), reference)


def corrected_auroc_difference(
    y_true: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    reference: ReferenceAccuracy,
    patients: npt.ArrayLike | None = None,
) -> ClusteredEstimate | None:
    """Compute the difference of two models' AUROCs against the true disease, on the same images.

    Each AUROC is corrected for the known error of the labels, as in `corrected_auroc`.

    It is first minus second; the arguments and errors are those of `corrected_auroc`.

    Example:
        >>> y_true, y_score = [0, 0, 0, 0, 1, 1, 1, 1], np.array([1, 2, 3, 6, 4, 5, 7, 8])
        >>> reference = ReferenceAccuracy(0.95, 0.95)
        >>> corrected_auroc_difference(y_true, y_score, -y_score, reference).estimate
        0.8333...
    """
    truth, one, patient, n_patients = _parts(y_true, first, patients)
    _, other, _, _ = _parts(y_true, second, patients)
    if one is None or other is None:
        return None
    labels = _label_deviations(truth, patient, n_patients)
    return _corrected_parts(one - other, labels, reference)


def corrected_rates(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    reference: ReferenceAccuracy,
    patients: npt.ArrayLike | None = None,
) -> dict[str, ClusteredEstimate]:
    """Compute a model's sensitivity and specificity against the true disease, from faulty labels.

    Labels, which may contain errors, and decisions at a fixed threshold are 0 or 1, ``(N,)``.
    Without `patients`, images are taken as independent. The rates are ``recall`` (sensitivity) and
    ``specificity``, each with its 95 % interval; NaN with a note if labels with this error cannot
    have the observed share of positives. Raises InputError if a label or decision is neither 0 nor
    1, or the lengths differ.

    Source:
        Rogan and Gladen 1978, Am J Epidemiol 107:71, applied to the decisions of each class.

    Example:
        >>> y_true, y_pred = [1] * 10 + [0] * 10, [1] * 8 + [0] * 2 + [1] * 2 + [0] * 8
        >>> rates = corrected_rates(y_true, y_pred, ReferenceAccuracy(0.95, 0.95))
        >>> round(rates["recall"].estimate, 3), round(rates["specificity"].estimate, 3)
        (0.833, 0.833)
    """
    truth, pred = check_truth_and_scores(y_true, y_pred)
    called = pred.astype(np.float64)
    patient, n_patients = _patient_index(patients, len(truth))
    diseased = truth.astype(np.float64) - (1 - reference.specificity)
    healthy = reference.sensitivity - truth.astype(np.float64)
    impossible = reference.impossible(float(truth.mean()))
    return {
        "recall": _ratio(called * diseased, diseased, patient, n_patients, impossible),
        "specificity": _ratio((1 - called) * healthy, healthy, patient, n_patients, impossible),
    }


@dataclass(frozen=True)
class _LabelDeviations:
    """Share of images that are labelled positive, and each patient's contribution to its error."""

    positive_share: float
    per_patient: Floats  # (patients,), sums to 0
    images: Floats  # (patients,)


def _label_deviations(
    truth: npt.NDArray[np.bool_], patient: Integers, n_patients: int
) -> _LabelDeviations:
    share = float(truth.mean())
    added = _sum_by_patient((truth - share) / len(truth), patient, n_patients)
    images = _sum_by_patient(np.ones(len(truth)), patient, n_patients)
    return _LabelDeviations(share, added, images)


def _sum_by_patient(values: Floats, patient: Integers, n_patients: int) -> Floats:
    return np.asarray(np.bincount(patient, weights=values, minlength=n_patients), np.float64)


def _patient_index(patients: npt.ArrayLike | None, n_images: int) -> tuple[Integers, int]:
    return cluster_index(np.arange(n_images) if patients is None else patients)


def _parts(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, patients: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.bool_], AurocParts | None, Integers, int]:
    truth, scores = check_truth_and_scores(y_true, y_score)
    patient, n_patients = _patient_index(patients, len(truth))
    return truth, auroc_parts(truth, scores, patient, n_patients), patient, n_patients


def _corrected_parts(
    parts: AurocParts, labels: _LabelDeviations, reference: ReferenceAccuracy
) -> ClusteredEstimate:
    """Correct an AUROC, or a difference of two, and the standard error of its estimate."""
    share = labels.positive_share
    if impossible := reference.impossible(share):
        return ClusteredEstimate(np.nan, None, bounded=parts.bounded, note=impossible)
    kept = reference.discrimination(share)
    excess = parts.value - (0.5 if parts.bounded else 0.0)
    value = excess / kept + (0.5 if parts.bounded else 0.0)
    contributions = parts.contributions
    estimate = ClusteredEstimate(value, None, bounded=parts.bounded, method=METHOD)
    if contributions is None:
        return parts.estimate()
    # The logarithmic derivative of `discrimination` with respect to the share of positive labels.
    slope = (
        1 / (share + reference.specificity - 1)
        - 1 / (reference.sensitivity - share)
        - 1 / share
        + 1 / (1 - share)
    )
    of_labels = without_leverage(labels.per_patient, labels.images)
    return _with_error(
        estimate, (contributions - excess * slope * of_labels) / kept, parts.effective_patients
    )


def _ratio(
    numerator: Floats, denominator: Floats, patient: Integers, n_patients: int, impossible: str
) -> ClusteredEstimate:
    """Estimate a ratio of two means over images, with the variance by patient."""
    total = denominator.sum()
    if impossible or total <= 0:
        return ClusteredEstimate(np.nan, None, bounded=True, note=impossible)
    value = float(numerator.sum() / total)
    residuals = (numerator - value * denominator) / total
    added = _sum_by_patient(residuals, patient, n_patients)
    images = _sum_by_patient(np.ones(len(patient)), patient, n_patients)
    weight = _sum_by_patient(np.abs(denominator), patient, n_patients)
    estimate = ClusteredEstimate(value, None, bounded=True, method=METHOD)
    return _with_error(estimate, without_leverage(added, images), effective_patients(weight))


def _with_error(
    estimate: ClusteredEstimate, contributions: Floats, patients: float
) -> ClusteredEstimate:
    """Add the standard error that follows from the patients' contributions."""
    variance = float((contributions**2).sum())
    if variance < 1e-24:
        return estimate
    return ClusteredEstimate(
        estimate.estimate,
        float(np.sqrt(variance)),
        freedom=satterthwaite_freedom(contributions),
        bounded=estimate.bounded,
        effective_patients=patients,
        method=METHOD,
    )
