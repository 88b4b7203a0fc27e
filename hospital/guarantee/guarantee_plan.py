"""Plan of a guarantee as a command gives it; `guarantee_size` computes the numbers of patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.notebook import ShownAsText
from cxr_compare.hospital.guarantee.guarantee_size import MOST_SIMULATED, GuaranteedShare
from cxr_compare.hospital.guarantee.guaranteed_threshold import GuaranteeImages, share_p_values
from cxr_compare.hospital.guarantee.guarantees import (
    FALSE_POSITIVES,
    MAX_FALSE_POSITIVES,
    Guarantee,
    GuaranteedRate,
    read_guarantee,
)

_COUNTED_PATIENTS = {
    "sensitivity": "with the finding",
    "specificity": "without the finding",
    "localised_sensitivity": "with boxed lesions",
    "ppv": "with and without the finding",
    FALSE_POSITIVES: "whose lesions are all boxed",
}
"""Description of the patients whose images each figure counts."""
LEAST_PATIENTS = 100
"""Fewest validation patients that may give a guarantee.

With 60 real patients, ``specificity>=0.80@0.90`` was violated on 20.7 % of 150 validation sets.
"""
_USUAL_CORRELATION = 0.5
_USUAL_POWER = 0.8
_PPV_SETS = 200
"""Number of simulated validation sets; a threshold is chosen on each of them."""


@dataclass(frozen=True, repr=False)
class GuaranteePlan(ShownAsText):
    """Number of validation patients that are needed to find a threshold with a guarantee.

    The more validation patients there are, the likelier it is that a threshold can be shown to
    fulfil the guarantee; see `hospital.guarantee.guarantees`.

    Attributes:
        guarantee: Guarantee as text, such as ``sensitivity>=0.90@0.90``.
        power: Probability with which a threshold shall be found, in (0, 1): the share of validation
            sets of the planned size on which one can be found.
        shares: Cases that are planned, one for each guaranteed figure and number of images of a
            patient. The key describes the patients to count, such as "patients with the finding, 1
            image, if the sensitivity is 0.95". The value holds the guaranteed bound and the
            expected true value of the figure, from which the number of patients is computed.
        figures: Paths of the image files in which the plan was drawn; empty if it was not drawn.

    Example:
        >>> plan = GuaranteePlan.from_text("sensitivity>=0.90@0.90", [0.95])
        >>> plan.rows[0]["patients"]
        152
    """

    guarantee: str
    power: float
    shares: dict[str, GuaranteedShare]
    figures: tuple[Path, ...] = ()

    @classmethod
    def from_text(
        cls,
        guarantee: str,
        expected: Sequence[float],
        images: Sequence[int | str] = (),
        *,
        correlation: float | None = None,
        power: float | None = None,
        positive: float | None = None,
    ) -> GuaranteePlan:
        """Make the plan for a guarantee of one or two figures, in a form of `read_guarantee`.

        `expected` has the true value that is expected of each figure at the threshold, in the order
        of the guarantee; that of a positive predictive value is followed by the expected
        sensitivity. An expected value that does not fulfil the guarantee is refused. `images` are
        numbers of images of one patient for which to plan, such as ``[1, 3]``, or names of data
        sets in `evaluation.statistics.patient_images.IMAGES_PER_PATIENT`, whose numbers are used;
        by default one.

        `correlation` is that of the scores of two images of one patient, in [0, 1), by default 0.5.
        `power` is 0.8 by default. `positive` is the share of validation patients with the finding,
        in (0, 1), which a positive predictive value alone needs.
        """
        read = read_guarantee(guarantee)
        _check_assumptions(read, expected, images, correlation, positive)
        if correlation is None:
            correlation = _USUAL_CORRELATION
        shares: dict[str, GuaranteedShare] = {}
        for assumption in _assumptions(read, expected):
            part = assumption.part
            condition = f"if the {part.title} is {assumption.true:g}"
            chance = None
            if part.prevalence and positive:
                condition += (
                    f" and the sensitivity {assumption.sensitivity:g}, {positive:.0%} with the "
                    "finding"
                )
                chance = partial(
                    _chance_of_ppv,
                    guarantee=Guarantee((part,), 1 - read.error),
                    prevalence=positive,
                    called=assumption.called,
                )
            is_mean = part.figure == FALSE_POSITIVES
            for count in images or [1]:
                each = _images_text(count)
                who = _COUNTED_PATIENTS[part.figure]
                shares[f"patients {who}, {each}, {condition}"] = GuaranteedShare(
                    part.floor,
                    read.error,
                    assumption.true,
                    count,
                    correlation,
                    partial(share_p_values, whole=not is_mean),
                    MAX_FALSE_POSITIVES if is_mean else 0,
                    chance,
                )
        return cls(guarantee, power or _USUAL_POWER, shares)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Number of patients of each case: each guaranteed figure and number of images.

        Each row is a dictionary with ``plan`` (the case in words), ``patients`` (number of
        patients, None if it is too large to be simulated), ``floor`` (guaranteed share),
        ``expected`` (its expected true value), ``images`` (number of images of a patient, or name
        of a data set) and ``within`` (correlation of the scores of a patient's images).

        A guarantee of two figures must hold for both figures at once, so each figure is planned
        with the square root of the power.
        """
        n_figures = 1 + self.guarantee.count("&")
        power_each = self.power ** (1 / n_figures)
        return [
            {
                "plan": name,
                "patients": share.fewest(power_each),
                "floor": share.floor,
                "expected": share.expected,
                "images": share.images,
                "within": share.within,
            }
            for name, share in self.shares.items()
        ]

    def __str__(self) -> str:
        return "\n".join([*self.sentences(), *(f"Figure: {path}" for path in self.figures)])

    def sentences(self) -> list[str]:
        """Return the planned guarantee and the needed numbers of patients as text.

        There is one line with the guarantee and the power, one for each row of `rows`, and one that
        names the fewest patients that are accepted if a row has fewer.

        Example:
            >>> GuaranteePlan.from_text("sensitivity>=0.90@0.90", [0.95]).sentences()[1]
            '152 patients with the finding, 1 image, if the sensitivity is 0.95'
        """
        read = read_guarantee(self.guarantee)
        claims = " and ".join(part.words for part in read.parts)
        lines = [
            f"The guarantee of {claims} with {read.confidence_text} gets a threshold in "
            f"{self.power:.0%} of validation sets with"
        ]
        for row in self.rows:
            patients = row["patients"]
            count = f"{patients:,}" if patients else f"more than {MOST_SIMULATED:,}"
            lines.append(f"{count} {row['plan']}")
        if any(row["patients"] and row["patients"] < LEAST_PATIENTS for row in self.rows):
            lines.append(f"A guarantee needs at least {LEAST_PATIENTS} patients in any case.")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as the file ``plan.json`` of the command ``cxr guarantee`` holds it.

        Its keys are ``guarantee``, ``power``, ``answer`` (the lines of `sentences`) and ``studies``
        (the dictionaries of `rows`).
        """
        return {
            "guarantee": self.guarantee,
            "power": self.power,
            "answer": self.sentences(),
            "studies": self.rows,
        }


@dataclass(frozen=True)
class _Assumption:
    """Expected true value of one figure of a guarantee."""

    part: GuaranteedRate
    true: float
    sensitivity: float = 0.5  # sensitivity at the threshold, for a predictive value

    @property
    def called(self) -> tuple[float, float]:
        """Shares of images with and without the finding that are called positive."""
        prevalence = self.part.prevalence or 0.0
        false_share = self.sensitivity * prevalence / (1 - prevalence) * (1 / self.true - 1)
        return self.sensitivity, false_share

    def check(self) -> None:
        """Check that the expected figure does not violate the guarantee."""
        lower = max(self.part.bound, self.part.prevalence or 0.0)
        upper = 1.0
        if self.part.figure == FALSE_POSITIVES:
            lower = 0.0
            upper = self.part.bound
        for value, low, high in ((self.true, lower, upper), (self.sensitivity, 0.0, 1.0)):
            if not low < value < high:
                raise InputError(f"guarantee --expect {value:g}: is not from {low:g} to {high:g}")


def _assumptions(guarantee: Guarantee, expected: Sequence[float]) -> Iterator[_Assumption]:
    figures = iter(expected)
    for part in guarantee.parts:
        assumption = _Assumption(part, next(figures))
        if part.prevalence:
            assumption = _Assumption(part, assumption.true, next(figures))
        assumption.check()
        yield assumption


def _check_assumptions(
    guarantee: Guarantee,
    expected: Sequence[float],
    images: Sequence[int | str],
    correlation: float | None,
    positive: float | None,
) -> None:
    predictive = any(part.figure == "ppv" for part in guarantee.parts)
    if len(expected) != len(guarantee.parts) + predictive:
        raise InputError(
            "guarantee --expect: give the expected figure; for a guarantee of two figures give "
            "both; for a ppv give it and the sensitivity at its threshold, such as 0.5,0.7"
        )
    if predictive and (positive is None or not 0 < positive < 1 or list(images or [1]) != [1]):
        raise InputError(
            "guarantee --plan: a ppv needs --prevalence, the share of validation patients with "
            "the finding, between 0 and 1, and is planned with one image of each (no --images)"
        )
    if positive and not predictive:
        raise InputError("guarantee --prevalence: is for the guarantee of a ppv; leave it out")
    if correlation is not None and not 0 <= correlation < 1:
        raise InputError(f"guarantee --within {correlation:g}: is not from 0 to below 1")


def _images_text(count: int | str) -> str:
    if isinstance(count, str):
        return f"images as in {count.upper()}"
    return counted(count, "image")


def _chance_of_ppv(
    patients: int, guarantee: Guarantee, prevalence: float, called: tuple[float, float]
) -> float:
    """Simulate how often validation gives a threshold that is not too high.

    A threshold counts if at least the shares of images in `called` are called positive at it.
    """
    rng = np.random.default_rng(0)
    names = np.arange(patients).astype(str)
    truth = np.arange(patients) < prevalence * patients
    shift_positive, shift_negative = (NormalDist().inv_cdf(share) for share in called)
    n_sets = 0
    for _ in range(_PPV_SETS):
        scores = rng.standard_normal(patients) + np.where(truth, shift_positive, shift_negative)
        # The scores are binormal and shifted such that the shares in `called` lie above 0. They
        # are rounded to tenths, since thousands of thresholds would take long.
        images = GuaranteeImages(truth, np.floor(10 * scores), names)
        threshold = images.choose(guarantee).threshold
        n_sets += (threshold or 0.0) < 0
    return n_sets / _PPV_SETS
