"""Guarantees of thresholds, and the figures that were observed for them on test images.

A guarantee such as `sensitivity>=0.90@0.90` says: over many validation sets that are drawn as this
one was, at least 90 % either give a threshold whose true sensitivity is 0.90 or more, or give no
threshold. `evaluation.decisions.guaranteed_threshold` chooses such thresholds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cxr_compare.data_prep.contracts.errors import InputError, counted

MAX_FALSE_POSITIVES = 5
"""Largest number of false positives of one image that is counted; more are counted as this number.

The test of a mean needs values that are bounded.
"""
FALSE_POSITIVES = "false_positives_per_image"
_TITLES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "localised_sensitivity": "localised sensitivity",
    "ppv": "positive predictive value",
    FALSE_POSITIVES: "false positives per image",
}
_SHARE = re.compile(r"(?P<figure>sensitivity|specificity|localised_sensitivity)>=(?P<bound>[\d.]+)")
_PPV = re.compile(r"(?P<figure>ppv)>=(?P<bound>[\d.]+),prevalence=(?P<prevalence>[\d.]+)")
_MEAN = re.compile(rf"(?P<figure>{FALSE_POSITIVES})<=(?P<bound>[\d.]+)")
_MOST_PARTS = 2


class GuaranteedRate(NamedTuple):
    """One guaranteed figure, such as the sensitivity, and its bound.

    Attributes:
        figure: ``sensitivity``, ``specificity``, ``localised_sensitivity`` (share of positive
            images that are called positive and on whose lesion the system points), ``ppv``
            (positive predictive value) or ``false_positives_per_image``.
        bound: Smallest guaranteed value of a share, or largest guaranteed number of false positives
            per image.
        prevalence: Prevalence at which a positive predictive value holds; `None` for other figures.

    Example:
        >>> GuaranteedRate("ppv", 0.5, 0.1).claim
        'positive predictive value >= 0.5 at prevalence 0.1'
    """

    figure: str
    bound: float
    prevalence: float | None = None

    @property
    def floor(self) -> float:
        """Smallest share of good images at which the figure fulfils its bound, in [0, 1].

        For a sensitivity, good images are the positive images that are called positive. For false
        positives per image, at most `MAX_FALSE_POSITIVES` (5) are counted on an image, and the
        share is that of the possible false positives that do not occur.
        """
        if self.figure == FALSE_POSITIVES:
            return 1 - self.bound / MAX_FALSE_POSITIVES
        return self.bound

    @property
    def title(self) -> str:
        """Name of the guaranteed figure for readers, such as "sensitivity"."""
        return _TITLES[self.figure]

    @property
    def count_key(self) -> str:
        """Key of the number of validation patients of this figure, in `Decision.validation`."""
        return f"patients_{self.figure}"

    @property
    def claim(self) -> str:
        """Figure, sign and bound as text, such as "sensitivity >= 0.9"."""
        sign = "<=" if self.figure == FALSE_POSITIVES else ">="
        at_prevalence = ""
        if self.prevalence is not None:
            at_prevalence = f" at prevalence {self.prevalence:g}"
        return f"{self.title} {sign} {self.bound:g}{at_prevalence}"


@dataclass(frozen=True)
class Guarantee:
    """One or two guaranteed figures, with one confidence that all their bounds hold at once.

    Attributes:
        parts: Guaranteed figures and their bounds.
        confidence: Probability, in (0, 1), with which the bounds hold at the chosen threshold.

    Example:
        >>> read_guarantee("sensitivity>=0.90@0.95").confidence
        0.95
    """

    parts: tuple[GuaranteedRate, ...]
    confidence: float

    @property
    def error(self) -> float:
        """Largest accepted probability that one guaranteed figure violates its bound.

        It is 1 minus the confidence, divided by the number of guaranteed figures.
        """
        return (1 - self.confidence) / len(self.parts)

    @property
    def confidence_text(self) -> str:
        """Confidence as text, such as "90 % confidence"."""
        text = f"{100 * self.confidence:g} % confidence"
        return f"{text} of both at once" if len(self.parts) > 1 else text


def read_guarantee(text: str) -> Guarantee | None:
    """Read a guarantee for the choice of a threshold from its text.

    Args:
        text: ``sensitivity>=F@C``, ``specificity>=F@C``, ``localised_sensitivity>=F@C``,
            ``ppv>=F,prevalence=P@C`` (positive predictive value) or
            ``false_positives_per_image<=F@C``, or two of them joined by ``&`` before the ``@C``. F,
            the prevalence P and the confidence C lie between 0 and 1; the number F of false
            positives lies between 0 and 5. An example is ``sensitivity>=0.90@0.95``: a sensitivity
            of at least 0.90 with 95 % confidence.

    Returns:
        The guarantee; `None` for the name of any other rule that chooses a threshold: one without
        ``@``, such as ``max_f1``, or one of costs, such as ``cost:10/1@0.05``.

    Raises:
        InputError: The text before the ``@`` is no figure with a bound, a number lies outside its
            limits, more than two figures are joined, or a figure appears twice.

    Example:
        >>> read_guarantee("sensitivity>=0.90&specificity>=0.70@0.90").parts[1]
        GuaranteedRate(figure='specificity', bound=0.7, prevalence=None)
        >>> read_guarantee("sensitivity>=0.90") is None
        True
    """
    claims, at_sign, confidence = text.rpartition("@")
    if not at_sign or text.startswith("cost:"):
        return None
    parts = tuple(_read_part(text, claim) for claim in claims.split("&"))
    n_figures = len({part.figure for part in parts})
    if n_figures < len(parts) or len(parts) > _MOST_PARTS:
        raise InputError(f"guarantee {text!r}: give one figure, or two different ones joined by &")
    return Guarantee(parts, _read_number(text, "the confidence after @", confidence))


def _read_part(text: str, claim: str) -> GuaranteedRate:
    match = _SHARE.fullmatch(claim) or _PPV.fullmatch(claim) or _MEAN.fullmatch(claim)
    if match is None:
        raise InputError(
            f"guarantee {text!r}: use sensitivity>=F@C, specificity>=F@C, "
            "localised_sensitivity>=F@C, ppv>=F,prevalence=P@C or "
            f"{FALSE_POSITIVES}<=F@C with a confidence C, or two joined by &"
        )
    figure = match["figure"]
    if figure == FALSE_POSITIVES:
        name = "the number of false positives per image"
        bound = _read_number(text, name, match["bound"], MAX_FALSE_POSITIVES)
        return GuaranteedRate(FALSE_POSITIVES, bound)
    bound = _read_number(text, f"the {_TITLES[figure]}", match["bound"])
    prevalence = match.groupdict().get("prevalence")
    if prevalence is None:
        return GuaranteedRate(figure, bound)
    return GuaranteedRate(figure, bound, _read_number(text, "the prevalence", prevalence))


def _read_number(text: str, name: str, value: str, upper: float = 1) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < upper:
        raise InputError(
            f"guarantee {text!r}: {name} must lie between 0 and {upper:g}, got {value!r}"
        )
    return number


class ObservedRate(NamedTuple):
    """A guaranteed figure as observed on test images, at the threshold chosen on validation.

    Attributes:
        figure: Name of the figure, such as ``sensitivity``; `GuaranteedRate` lists all.
        estimate: Observed value on the test images.
        ci_low: Lower end of the exact 95 % interval, in which the images of one patient do not
            count as independent.
        ci_high: Upper end of the 95 % interval.
        n_images: Number of test images that the figure counts, such as the positive images for a
            sensitivity.
        n_patients: Number of patients who have these images.

    Example:
        >>> ObservedRate("sensitivity", 0.8, 0.7, 0.88, 60, 50).n_patients
        50
    """

    figure: str
    estimate: float
    ci_low: float
    ci_high: float
    n_images: int
    n_patients: int

    def standing(self, part: GuaranteedRate) -> Literal["met", "missed", "open"]:
        """Compare the 95 % interval of the observed figure with the guaranteed bound.

        Args:
            part: Guaranteed figure and its bound.

        Returns:
            ``met`` if the whole interval lies on the better side of the bound, ``missed`` if it
            lies on the worse side, ``open`` if it contains the bound.

        Example:
            >>> part = GuaranteedRate("sensitivity", 0.9)
            >>> ObservedRate("sensitivity", 0.8, 0.7, 0.88, 60, 50).standing(part)
            'missed'
        """
        below = self.ci_high < part.bound
        above = self.ci_low > part.bound
        lower_is_better = part.figure == FALSE_POSITIVES
        if below if lower_is_better else above:
            return "met"
        if above if lower_is_better else below:
            return "missed"
        return "open"

    def text(self, digits: int) -> str:
        """Return the figure, its interval and the number of patients as text.

        Args:
            digits: Number of decimals.

        Returns:
            The text, such as "0.80 (0.70 to 0.88), 50 patients".

        Example:
            >>> ObservedRate("sensitivity", 0.8, 0.7, 0.88, 60, 50).text(2)
            '0.80 (0.70 to 0.88), 50 patients'
        """
        numbers = (self.estimate, self.ci_low, self.ci_high)
        value, low, high = (f"{number:.{digits}f}" for number in numbers)
        return f"{value} ({low} to {high}), {counted(self.n_patients, 'patient')}"
