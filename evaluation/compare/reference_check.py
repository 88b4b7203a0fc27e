"""Errors of the test labels: corrected figures, and wrong labels that would change the headline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.compare.claims import Claim
from cxr_compare.evaluation.compare.estimates import CORRECTED, Estimate, Estimates
from cxr_compare.evaluation.compare.scorecard import Scorecard, Scorecards
from cxr_compare.evaluation.compare.sentences import sentence
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.reference_error import (
    ReferenceAccuracy,
    corrected_auroc,
    corrected_auroc_difference,
    corrected_rates,
)
from cxr_compare.evaluation.statistics.wrong_labels import WrongLabels, wrong_labels

_AUROC = MetricKey(ALL, "", "auroc")
_SEVERAL_SEEDS = "none: the correction is of one model, and this system has several training seeds"
_ONE_CLASS = "none: a class is absent"


@dataclass(frozen=True)
class LabelledScores:
    """Labels of the test images, and the scores that all systems gave them.

    If the comparison is decided by study or patient, there is one label and score for each study or
    patient instead.

    Attributes:
        names: Id of each image (study, patient), shape ``(N,)``.
        y_true: Label of each image, True for positive, shape ``(N,)``.
        patients: Patient of each image as a whole number from 0, shape ``(N,)``.
        scores: By display name of the system, a list with one array of shape ``(N,)`` for each
            training seed: the score of each image.
    """

    names: Sequence[str]
    y_true: npt.NDArray[np.bool_]
    patients: npt.NDArray[np.int64]
    scores: Mapping[str, list[Floats]]

    @classmethod
    def from_scorecards(cls, scorecards: Scorecards) -> LabelledScores:
        """Collect the labels and scores of a comparison from the objects that hold them.

        Args:
            scorecards: Scorecards by display name of the system, one for each training seed; a
                scorecard computes all figures of one trained model on the evaluated images, which
                are the same for all scorecards.

        Returns:
            The labels of the evaluated images, and the scores of all systems.
        """
        evaluated = next(iter(scorecards.values()))[0].evaluated
        scores = {name: [card.scores for card in cards] for name, cards in scorecards.items()}
        names = [str(name) for name in evaluated.image_ids]
        return cls(names, evaluated.y_true, evaluated.patients, scores)


@dataclass(frozen=True)
class HeadlineLabels:
    """Number of wrong test labels with which a difference in AUROC is no longer shown.

    The difference is that of the main sentence (headline) of a report.

    Attributes:
        claim: The difference with its interval. If the headline states several differences, it is
            the one whose interval is nearest to 0.
        unit: What the labels belong to, as a plural: ``images``, ``studies`` or ``patients``.
        names: Ids of the images (studies, patients), in the order of the rows in `found`.
        found: Number of labels that must be wrong, if the most harmful ones are and if random ones
            are.
    """

    claim: Claim
    unit: str
    names: Sequence[str]
    found: WrongLabels

    @property
    def text(self) -> str:
        """Sentences for the report with the number of wrong labels."""
        return sentence(
            "wrong_labels",
            systems=[self.claim.first, self.claim.second],
            n_labels=self.found.n_images,
            unit=self.unit,
            fewest=self.found.fewest,
            share=self.found.fewest_share,
            at_random=self.found.at_random,
            most_tried=max(errors.share for errors in self.found.curve),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary for ``metrics.json``; an unknown number is None.

        Its keys are ``first``, ``second``, ``metric`` and ``level`` of the difference,
        ``n_labels``, ``fewest`` and ``fewest_share`` (fewest wrong labels, as a number and as a
        share), ``most_harmful`` (ids of the images with these labels), ``share_at_random`` (share
        of labels, if random ones are wrong), ``at_random`` (results at each share that was tried)
        and ``text``.
        """
        rows = self.found.most_harmful
        return {
            "first": self.claim.first,
            "second": self.claim.second,
            "metric": self.claim.metric,
            "level": self.claim.level,
            "n_labels": self.found.n_images,
            "fewest": self.found.fewest,
            "fewest_share": self.found.fewest_share,
            "most_harmful": None if rows is None else [self.names[row] for row in rows],
            "share_at_random": self.found.at_random,
            "at_random": [
                {
                    "share": errors.share,
                    "first": errors.first[0],
                    "second": errors.second[0],
                    "overturned": errors.overturned,
                }
                for errors in self.found.curve
            ],
            "text": self.text,
        }


def headline_labels(
    labelled: LabelledScores, claims: Sequence[Claim], unit: str
) -> HeadlineLabels | None:
    """Find how many test labels must be wrong until a difference in AUROC is not shown.

    The difference is that of the main sentence (headline) of a report: a shown difference in AUROC
    that involves the system with the highest AUROC. If there are several, the one whose interval is
    nearest to 0 is taken.

    Args:
        labelled: Labels and scores from which the differences were computed.
        claims: Differences in the primary figure with intervals, for all pairs of systems.
        unit: What the labels belong to, as a plural: ``images``, ``studies`` or ``patients``.

    Returns:
        The numbers of wrong labels; `None` if the headline states no difference in AUROC, or if the
        number cannot be computed.
    """
    claim = _weakest_claim(claims)
    if claim is None:
        return None
    found = wrong_labels(
        labelled.y_true,
        labelled.scores[claim.first],
        labelled.scores[claim.second],
        labelled.patients,
        level=claim.level,
    )
    if found is None or not found.shown or not found.curve:
        return None
    return HeadlineLabels(claim, unit, labelled.names, found)


def _weakest_claim(claims: Sequence[Claim]) -> Claim | None:
    """Return the claim of the headline whose interval is nearest to 0; None if there is none.

    Only differences in AUROC that are shown, and that involve a system with the highest AUROC, are
    considered.
    """
    of_auroc = [claim for claim in claims if claim.metric == "auroc"]
    if not of_auroc or len(of_auroc) < len(claims):
        return None  # the headline is about another figure
    highest = max(max(claim.values) for claim in of_auroc)
    shown = [claim for claim in of_auroc if claim.decided and max(claim.values) == highest]
    return min(
        shown,
        key=lambda claim: min(abs(claim.difference.low), abs(claim.difference.high)),
        default=None,
    )


def with_corrected_figures(
    estimates: Estimates, scorecards: Scorecards, reference: ReferenceAccuracy
) -> Estimates:
    """Add AUROC, sensitivity and specificity that are corrected for a stated error of the labels.

    The corrected figures are estimates against the true disease instead of the labels, on the same
    images. They are added as the group of images ``all_corrected``. Thresholds are fixed. A figure
    that cannot be corrected is undefined, and its note gives the reason.

    Args:
        estimates: Figures of all systems and paired differences by image, against the labels.
        scorecards: Scorecards by display name of the system, one for each training seed; a
            scorecard computes all figures of one trained model on the evaluated images.
        reference: Sensitivity and specificity of the labels against the true disease.

    Returns:
        The estimates, with the corrected figures and the corrected differences in AUROC in
        addition.
    """
    systems = {
        name: {
            key: _as_estimate(corrected, estimates.systems[name].get(key, Estimate()))
            for key, corrected in _corrected_of(cards, reference).items()
        }
        for name, cards in scorecards.items()
    }
    differences = {
        pair: {
            _AUROC: _as_estimate(
                _corrected_difference(scorecards[pair[0]], scorecards[pair[1]], reference),
                by_labels.get(_AUROC, Estimate()),
            )
        }
        for pair, by_labels in estimates.differences.items()
    }
    corrected = replace(estimates, systems=systems, differences=differences)
    return estimates.merged(corrected, CORRECTED)


def _corrected_of(
    cards: Sequence[Scorecard], reference: ReferenceAccuracy
) -> dict[MetricKey, ClusteredEstimate | str]:
    """Return the corrected figures of a system by metric.

    If a figure cannot be corrected, a text with the reason takes its place.
    """
    card = cards[0]
    evaluated = card.evaluated
    corrected: dict[MetricKey, ClusteredEstimate | str] = {}
    if len(cards) > 1:
        corrected[_AUROC] = _SEVERAL_SEEDS
    else:
        auroc = corrected_auroc(evaluated.y_true, card.scores, reference, evaluated.patients)
        corrected[_AUROC] = _ONE_CLASS if auroc is None else auroc
    for policy in card.thresholds:
        called = card.called(policy)
        if called is None:
            continue
        rates = corrected_rates(evaluated.y_true, called, reference, evaluated.patients)
        for metric, rate in rates.items():
            key = MetricKey(ALL, policy, metric)
            corrected[key] = _SEVERAL_SEEDS if len(cards) > 1 else rate
    return corrected


def _corrected_difference(
    first: Sequence[Scorecard], second: Sequence[Scorecard], reference: ReferenceAccuracy
) -> ClusteredEstimate | str:
    if len(first) > 1 or len(second) > 1:
        return _SEVERAL_SEEDS
    evaluated = first[0].evaluated
    found = corrected_auroc_difference(
        evaluated.y_true, first[0].scores, second[0].scores, reference, evaluated.patients
    )
    return _ONE_CLASS if found is None else found


def _as_estimate(corrected: ClusteredEstimate | str, as_labelled: Estimate) -> Estimate:
    """Return a corrected figure with the counts of images of the uncorrected one."""
    if isinstance(corrected, str):
        return Estimate(note=corrected, counts=as_labelled.counts)
    limits = (0.0, 1.0) if corrected.bounded else (-1.0, 1.0)
    if np.isfinite(corrected.value) and not limits[0] <= corrected.value <= limits[1]:
        note = sentence("corrected_outside", value=corrected.value)
        return Estimate(note=note, counts=as_labelled.counts)
    low, high = corrected.interval or (np.nan, np.nan)
    return Estimate(
        corrected.value,
        low,
        high,
        note=corrected.note,
        method=corrected.method if corrected.interval else "",
        counts=as_labelled.counts,
    )
