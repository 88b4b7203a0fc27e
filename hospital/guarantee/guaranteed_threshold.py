"""Choose a threshold whose figure holds for new patients with a stated confidence.

Images of one patient resemble each other, so every test treats patients as its units. Every figure
is written as a share of good images that must not be below a floor. For a sensitivity, the positive
images are counted, and those that are called positive are good. For a patient with n counted
images, h of them good, the value ``h - floor * n`` has a mean of at most 0 if the share lies below
the floor.

The guarantee is about images: among all images that the figure counts, at least the share ``floor``
is good. Where each patient has one image, the share is tested by the binomial distribution. Where
patients have several images, the binomial distribution of fewer, independent images is used, as
many as give the variance that is estimated by patient. A mean number of false positives with one
image per patient is tested by betting.

Thresholds are tested one after another, starting at the safe end, until one fails. Testing many of
them therefore costs no more error than testing one. A figure that only falls, or only rises, with
the threshold is tested at every validation score. The positive predictive value does neither: one
third of the patients is used to propose the order of the tests, and the others are used to test.

Source:
    Angelopoulos, Bates, Candes, Jordan and Lei 2025, Annals of Applied Statistics 19:1641 (learn
    then test, fixed sequence); Bates et al. 2021, J ACM 68:43 (monotone risks); Clopper and
    Pearson 1934; betting: `hospital.betting`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
from cxr_compare.evaluation.thresholds import midpoints
from cxr_compare.hospital.betting import mean_p_value
from cxr_compare.hospital.guarantee.clustered_share import share_below_p_values
from cxr_compare.hospital.guarantee.guarantees import (
    FALSE_POSITIVES,
    MAX_FALSE_POSITIVES,
    Guarantee,
    GuaranteedRate,
)

_FALLING = ("sensitivity", "localised_sensitivity")
"""Figures that fall as the threshold rises. All other figures except `ppv` rise with it."""
_PROPOSING = 3
"""One patient in this many is used to propose the order in which predictive values are tested."""
_SEED = 20240101
_FEWEST_ROWS = 32
_MOST_ROWS = 256
"""Largest number of thresholds that are tested at once."""
_MOST_PATIENTS = 5_000
"""Largest number of patients that a message says are needed."""


class FalseBoxes(NamedTuple):
    """Predicted boxes on which there is no lesion (false positives), on all images.

    Attributes:
        image: Index of the image of each box, from 0, shape ``(B,)``.
        shown_up_to: Highest threshold of the image score at which each box is still shown to a
            reader, shape ``(B,)``.
    """

    image: Integers
    shown_up_to: Floats


class Localisation(NamedTuple):
    """Points at which a system sees the lesion on N images, compared with the true lesions.

    The point of an image is the centre of its most confident box, or the peak of its activation
    map.

    Attributes:
        boxed: True if all lesions of an image have a true box, so that points can be compared with
            them, shape ``(N,)``.
        on_lesion: True if the point of an image lies on a lesion, shape ``(N,)``; `None` for a
            system without points.
        false_boxes: Predicted boxes that overlap no lesion; `None` for a system that predicts no
            boxes.
    """

    boxed: npt.NDArray[np.bool_]
    on_lesion: npt.NDArray[np.bool_] | None = None
    false_boxes: FalseBoxes | None = None


class GuaranteedChoice(NamedTuple):
    """A threshold with a guarantee, from which scores are positive, or the reason for none."""

    threshold: float | None
    reason: str | None


class ImageCount(NamedTuple):
    """Number of images that a figure counts, and number of patients who have these images."""

    n_images: int
    n_patients: int


def share_p_values(
    good: npt.ArrayLike,
    images: npt.ArrayLike,
    floor: npt.ArrayLike,
    error: float,
    *,
    whole: bool = True,
) -> Floats:
    """Compute p-values, ``(R,)``, of the hypothesis that a share of images is below a floor.

    The share is that of the good images among the counted ones. For a sensitivity, the positive
    images are counted, and those called positive are good. Images of one patient are not treated
    as independent.

    If patients have unequal numbers of images, a sample may lack the few patients who have many,
    and who often differ from the others. Only a part of the error is then used: the effective
    number of patients divided by their number, which is 1 for equal numbers of images.

    `good` has the numbers of P patients in R sets of counts, such as one for each threshold, which
    are tested separately, ``(R, P)``; `images` those of counted images, at least 1, ``(P,)``. The
    floor, in (0, 1), is one for all rows or ``(R,)``. `error` is the significance level that the
    p-values will be compared with; the corrections and bets that they rest on are chosen for it.
    `whole` is False if an image can be partly good, as with false positives per image, so that a
    single image is no binomial trial.

    Example:
        >>> share_p_values([[1, 1, 1, 0], [1, 1, 1, 1]], [1, 1, 1, 1], 0.5, 0.1).tolist()
        [0.3125, 0.0625]
    """
    sums = np.atleast_2d(np.asarray(good, dtype=np.float64))
    sizes = np.asarray(images)
    floors = np.asarray(floor, dtype=np.float64).reshape(-1, 1)
    if not whole and (sizes == 1).all():
        return mean_p_value(sums, floors[:, 0], error=error)
    used = effective_patients(sizes) / len(sizes)
    p_values = share_below_p_values(sums, sizes.astype(np.float64), floors[:, 0], used * error)
    return np.minimum(p_values / used, 1.0)


def threshold_candidates(scores: Floats) -> Floats:
    """Return the thresholds to choose from: the midpoints between adjacent distinct scores, rising.

    Infinite scores are ignored.

    Example:
        >>> threshold_candidates(np.array([0.5, 0.25, 0.5, 1.0])).tolist()
        [0.375, 0.75]
    """
    distinct = np.unique(scores[np.isfinite(scores)])
    return midpoints(distinct[:-1], distinct[1:])


@dataclass(frozen=True)
class _Share:
    """A figure as a share of good images, tested by patient.

    Attributes:
        counts: True for the images that the figure counts, shape ``(N,)``.
        patients: Patient of every image, shape ``(N,)``.
        change_scores: Scores at which the share changes.
        good: Function of thresholds, shape ``(R,)``, that returns how good each image is, from 0 to
            1, shape ``(R, N)``.
        falling: True if a higher threshold lowers the share.
        whole: True if an image is either good or not.
    """

    counts: npt.NDArray[np.bool_]
    patients: npt.NDArray[np.str_]
    change_scores: Floats
    good: Callable[[Floats], Floats]
    falling: bool = False
    whole: bool = True

    @cached_property
    def _by_patient(self) -> tuple[Integers, Integers]:
        """Indices of the counted images, sorted by patient, and their number for each patient."""
        image = np.flatnonzero(self.counts)
        _, owner, sizes = np.unique(self.patients[image], return_inverse=True, return_counts=True)
        return image[np.argsort(owner, kind="stable")], sizes

    @property
    def sizes(self) -> Integers:
        """Number of counted images of each patient, shape ``(P,)``."""
        return self._by_patient[1]

    def good_by_patient(self, thresholds: Floats) -> Floats:
        """Return the number of good images of each patient, shape ``(R, P)``."""
        image, sizes = self._by_patient
        first = np.cumsum(sizes) - sizes
        return np.asarray(np.add.reduceat(self.good(thresholds)[:, image], first, axis=1))

    def values(self, thresholds: Floats) -> Floats:
        """Return the share at each threshold, shape ``(R,)``."""
        return np.asarray(self.good_by_patient(thresholds).sum(axis=1) / self.sizes.sum())

    def p_values(self, thresholds: Floats, floor: npt.ArrayLike, error: float) -> Floats:
        good = self.good_by_patient(thresholds)
        return share_p_values(good, self.sizes, floor, error, whole=self.whole)

    def patients_needed(self, thresholds: Floats, floor: float, error: float) -> float:
        good = self.good_by_patient(thresholds[:1])[0]
        return patients_needed(good, self.sizes, floor, error, whole=self.whole)


@dataclass(frozen=True)
class GuaranteeImages:
    """Labels, scores and patients of images, for thresholds with a guarantee.

    The rows are images, or studies or patients if these are evaluated instead of images.

    Attributes:
        y_true: True for positive images, shape ``(N,)``; `scores` and `patients` have this shape.
        localisation: Points that the system gives on the images, compared with the lesions; `None`
            if this is unknown, as for studies and patients.
        error_share: Share of the guarantee's error (1 minus its confidence) that may be used for
            the choice of a threshold, in (0, 1]. It is below 1 if the same images also chose the
            rule by which the boxes of an image become its score.

    Example:
        >>> truth, scores = np.array([False, True, True]), np.array([0.1, 0.4, 0.9])
        >>> images = GuaranteeImages(truth, scores, np.array(["p", "q", "q"]))
        >>> images.count("sensitivity")
        ImageCount(n_images=2, n_patients=1)
    """

    y_true: npt.NDArray[np.bool_]
    scores: Floats
    patients: npt.NDArray[np.str_]
    localisation: Localisation | None = None
    error_share: float = 1.0

    def choose(self, guarantee: Guarantee) -> GuaranteedChoice:
        """Choose a threshold that fulfils a guarantee, by tests on these images.

        It is the highest threshold that was shown to fulfil the guarantee if a sensitivity is
        guaranteed, else the lowest such threshold.

        Example:
            >>> from cxr_compare.hospital.guarantee.guarantees import read_guarantee
            >>> truth, scores = np.arange(25) >= 3, np.arange(25.0)
            >>> images = GuaranteeImages(truth, scores, np.arange(25).astype(str))
            >>> images.choose(read_guarantee("sensitivity>=0.90@0.90")).threshold
            2.5
        """
        if len(np.unique(self.scores)) < 2:
            return GuaranteedChoice(None, "all validation images have the same score")
        low = -np.inf
        high = np.inf
        predictive = None
        for part in guarantee.parts:
            if reason := self._why_undefined(part.figure):
                return GuaranteedChoice(None, reason)
            if part.figure == "ppv":
                predictive, reason = self._predictive_thresholds(part, guarantee)
            else:
                last, reason = self._last_threshold(part, guarantee)
                if part.figure in _FALLING:
                    high = min(high, last)
                else:
                    low = max(low, last)
            if reason:
                return GuaranteedChoice(None, reason)
        if predictive is None:
            thresholds = np.array([high if np.isfinite(high) else low])
        else:
            thresholds = predictive
        thresholds = thresholds[(thresholds >= low) & (thresholds <= high)]
        if not len(thresholds):
            claims = " and ".join(part.claim for part in guarantee.parts)
            text = f"no threshold was shown to satisfy {claims} with {guarantee.confidence_text}"
            return GuaranteedChoice(None, text)
        chosen = thresholds.max() if np.isfinite(high) else thresholds.min()
        return GuaranteedChoice(float(chosen), None)

    def why_undefined(self, guarantee: Guarantee) -> str:
        """Return the reason why a guarantee is not defined on these images; empty if it is."""
        reasons = (self._why_undefined(part.figure) for part in guarantee.parts)
        return next((reason for reason in reasons if reason), "")

    def count(self, figure: str) -> ImageCount:
        """Count the images that a figure of `GuaranteedRate` is computed on, and their patients.

        A positive predictive value (``ppv``) counts all images.

        Example:
            >>> truth, scores = np.array([False, True, True]), np.array([0.1, 0.4, 0.9])
            >>> images = GuaranteeImages(truth, scores, np.array(["p", "q", "q"]))
            >>> images.count("ppv")
            ImageCount(n_images=3, n_patients=2)
        """
        if figure == "ppv":
            counts = np.ones(len(self.scores), dtype=bool)
        else:
            counts = self._share(figure).counts
        return ImageCount(int(counts.sum()), len(np.unique(self.patients[counts])))

    def _why_undefined(self, figure: str) -> str:
        """Return the reason why a figure is not defined on these images; empty if it is defined."""
        localisation = self.localisation
        if figure in (FALSE_POSITIVES, "localised_sensitivity"):
            if localisation is None:
                return "localisation is guaranteed by image, not by study or patient"
            if figure == FALSE_POSITIVES and localisation.false_boxes is None:
                return "the system gives no boxes of its own, so it has no false positive boxes"
            if figure != FALSE_POSITIVES and localisation.on_lesion is None:
                return "the system gives neither boxes nor maps, so it localises nothing"
        needed = ("sensitivity", "specificity") if figure == "ppv" else (figure,)
        kinds = {
            "sensitivity": "positive image",
            "specificity": "negative image",
            "localised_sensitivity": "positive image whose lesions are boxed",
            FALSE_POSITIVES: "image whose lesions are all boxed",
        }
        for name in needed:
            if not self._share(name).counts.any():
                return f"validation has no {kinds[name]}"
        return ""

    def _share(self, figure: str) -> _Share:
        localisation = self.localisation
        if figure == FALSE_POSITIVES and localisation and localisation.false_boxes:
            return self._false_positive_share(localisation.boxed, localisation.false_boxes)
        if figure == "specificity":
            negative = ~self.y_true
            below = _compare_rows(self.scores, np.less)
            return _Share(negative, self.patients, self.scores[negative], below)
        scores = self.scores
        counts = self.y_true
        on_lesion = None if localisation is None else localisation.on_lesion
        if figure == "localised_sensitivity" and localisation and on_lesion is not None:
            scores = np.where(on_lesion, scores, -np.inf)
            counts = self.y_true & localisation.boxed
        reached = _compare_rows(scores, np.greater_equal)
        return _Share(counts, self.patients, scores[counts], reached, falling=True)

    def _false_positive_share(
        self, boxed: npt.NDArray[np.bool_], false_boxes: FalseBoxes
    ) -> _Share:
        """Return the share of `MAX_FALSE_POSITIVES` possible false positives that do not occur."""
        image, shown_up_to = false_boxes
        n_images = len(self.scores)

        def not_made(thresholds: Floats) -> Floats:
            shown = [image[shown_up_to >= threshold] for threshold in thresholds]
            counts = np.array([np.bincount(images, minlength=n_images) for images in shown])
            return 1 - np.minimum(counts, MAX_FALSE_POSITIVES) / MAX_FALSE_POSITIVES

        return _Share(boxed, self.patients, shown_up_to, not_made, whole=False)

    def _last_threshold(self, part: GuaranteedRate, guarantee: Guarantee) -> tuple[float, str]:
        """Find the threshold farthest from the safe end that satisfies a figure.

        The safe end is the one at which the figure is best. All thresholds from there to the
        returned one pass their test. The second value is the reason why no threshold passes, or
        empty.
        """
        share = self._share(part.figure)
        error = guarantee.error * self.error_share
        thresholds = threshold_candidates(np.concatenate([self.scores, share.change_scores]))
        if not share.falling:
            thresholds = thresholds[::-1]
        # Of thresholds between which the share does not change, only the last one is tested.
        rank = np.searchsorted(np.sort(share.change_scores), thresholds)
        thresholds = thresholds[np.append(rank[1:] != rank[:-1], True)]

        def p_values(rows: slice) -> Floats:
            return share.p_values(thresholds[rows], part.floor, error)

        n_passed = _count_passed(len(thresholds), p_values, error)
        if n_passed:
            return float(thresholds[n_passed - 1]), ""
        value = float(share.values(thresholds[:1])[0])
        if part.figure == FALSE_POSITIVES:
            value = (1 - value) * MAX_FALSE_POSITIVES
        needed = share.patients_needed(thresholds, part.floor, error)
        return np.nan, _why_not_shown(part, guarantee, len(share.sizes), value, needed)

    def _predictive_thresholds(
        self, part: GuaranteedRate, guarantee: Guarantee
    ) -> tuple[Floats | None, str]:
        """Return thresholds that satisfy a positive predictive value, or the reason why none does.

        The thresholds fall. The predictive value is reached if, for some s, the sensitivity is at
        least s and the share of negatives that are called positive is at most s divided by a ratio.
        One part of the patients proposes s and the order of the tests; the other part is used to
        test.
        """
        names = np.unique(self.patients)
        order = np.random.default_rng(_SEED).permutation(len(names))
        n_proposing = math.ceil(len(names) / _PROPOSING)
        proposing = np.isin(self.patients, names[order[:n_proposing]])
        proposers = self._select(proposing)
        testers = self._select(~proposing)
        reason = proposers._why_undefined("ppv") or testers._why_undefined("ppv")
        if reason:
            return None, f"{reason} in a part of its patients"
        prevalence = part.prevalence or 0.0
        error = guarantee.error * self.error_share
        ratio = (1 - prevalence) * part.bound / (prevalence * (1 - part.bound))
        thresholds, sensitivity = _propose_thresholds(proposers, ratio)
        shares = [testers._share("sensitivity"), testers._share("specificity")]
        floors = [sensitivity, np.maximum(1 - sensitivity / ratio, 0.0)]

        def p_values(rows: slice) -> Floats:
            found, spared = (
                share.p_values(thresholds[rows], floor[rows], error)
                for share, floor in zip(shares, floors, strict=True)
            )
            return np.maximum(found, spared)

        n_passed = _count_passed(len(thresholds), p_values, error)
        if n_passed:
            return thresholds[:n_passed], ""
        value = _predictive_value(shares, thresholds[:1], prevalence)
        factors = [
            share.patients_needed(thresholds, floor[0], error) / len(share.sizes)
            for share, floor in zip(shares, floors, strict=True)
        ]
        needed = np.max(factors) * len(names)
        return None, _why_not_shown(part, guarantee, len(names), value, needed)

    def _select(self, rows: npt.NDArray[np.bool_]) -> GuaranteeImages:
        return GuaranteeImages(self.y_true[rows], self.scores[rows], self.patients[rows])


def _predictive_value(shares: Sequence[_Share], threshold: Floats, prevalence: float) -> float:
    """Compute the positive predictive value at one threshold, shape ``(1,)``, by Bayes' rule."""
    sensitivity, specificity = (float(share.values(threshold)[0]) for share in shares)
    if not sensitivity:
        return 0.0
    false_alarms = (1 - prevalence) * (1 - specificity)
    return prevalence * sensitivity / (prevalence * sensitivity + false_alarms)


def _compare_rows(scores: Floats, compare: Callable[..., Any]) -> Callable[[Floats], Floats]:
    """Return a function of thresholds ``(R,)`` that gives 0 or 1 for each score, ``(R, N)``."""
    return lambda thresholds: np.asarray(compare(scores, thresholds[:, None]), dtype=np.float64)


def _count_passed(count: int, p_values: Callable[[slice], Floats], error: float) -> int:
    """Count how many of the thresholds pass their test before the first one fails."""
    begin = 0
    n_rows = _FEWEST_ROWS
    while begin < count:
        failed = p_values(slice(begin, begin + n_rows)) > error
        if failed.any():
            return begin + int(failed.argmax())
        begin += n_rows
        n_rows = min(4 * n_rows, _MOST_ROWS)
    return count


def _propose_thresholds(images: GuaranteeImages, ratio: float) -> tuple[Floats, Floats]:
    """Propose thresholds in the order of their tests, with the sensitivity to test at each of them.

    The first threshold is the one at which the predictive value exceeds its bound by the most
    standard errors; lower thresholds follow. The sensitivity to test divides this surplus equally
    between the test of the sensitivity and the test of the specificity.
    """
    thresholds = threshold_candidates(images.scores)
    found = images._share("sensitivity")
    spared = images._share("specificity")
    n_positive = found.counts.sum()
    n_negative = spared.counts.sum()
    sensitivity = (found.good_by_patient(thresholds).sum(axis=1) + 0.5) / (n_positive + 1)
    false_share = 1 - (spared.good_by_patient(thresholds).sum(axis=1) + 0.5) / (n_negative + 1)
    error_found = np.sqrt(sensitivity * (1 - sensitivity) / n_positive)
    error_false = np.sqrt(false_share * (1 - false_share) / n_negative)
    weighted = sensitivity / error_found + false_share / error_false
    tested = weighted / (1 / error_found + 1 / (ratio * error_false))
    first = int(np.argmax((sensitivity - tested) / error_found))
    return thresholds[first::-1], np.clip(tested[first::-1], 1e-9, 1 - 1e-9)


def patients_needed(
    good: Floats, images: Integers, floor: float, error: float, *, whole: bool = True
) -> float:
    """Estimate how many patients are needed to show that a share of images is above a floor.

    The share, the floor, the error and `whole` are as for `share_p_values`. The patients are
    assumed to be like the P at hand, with the same numbers of good and counted images, ``(P,)``
    each. The number is infinity if more than about 5,000 are needed, and NaN if the share of these
    patients is not above the floor.

    Example:
        >>> patients_needed(np.ones(3), np.ones(3, dtype=int), 0.9, 0.1)
        22.0
    """
    if good.sum() <= floor * images.sum():
        return np.nan

    def is_shown(count: int) -> bool:
        repeated = np.resize(good, count)
        sizes = np.resize(images, count)
        return bool(share_p_values(repeated, sizes, floor, error, whole=whole)[0] <= error)

    few = 0
    many = 1
    while not is_shown(many):
        few = many
        many = 2 * many
        if many > _MOST_PATIENTS:
            return np.inf
    while many - few > max(1, many // 100):
        middle = (few + many) // 2
        if is_shown(middle):
            many = middle
        else:
            few = middle
    return float(many)


def _why_not_shown(
    part: GuaranteedRate, guarantee: Guarantee, n_patients: int, value: float, needed: float
) -> str:
    """Explain why no threshold satisfies a figure, and how many patients would suffice."""
    beyond_bound = value < part.bound if part.figure == FALSE_POSITIVES else value > part.bound
    if needed <= _MOST_PATIENTS:
        outlook = f"; about {math.ceil(needed):,} patients like these would suffice"
    elif needed > _MOST_PATIENTS:
        outlook = f"; more than {_MOST_PATIENTS:,} patients like these would be needed"
    elif beyond_bound:
        # A predictive value may exceed its bound although one of the two tested shares lies below
        # its floor.
        outlook = "; from these patients it cannot be said how many would suffice"
    else:
        outlook = ", which no number of patients like these would show"
    return (
        f"{part.claim} was not shown with {guarantee.confidence_text} on "
        f"{counted(n_patients, 'patient')}; at the safest threshold it is {value:.3g}{outlook}"
    )
