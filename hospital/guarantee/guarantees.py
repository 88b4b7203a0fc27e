"""Guarantees of thresholds: their text, figures, bounds and confidence.

A guarantee such as `sensitivity>=0.90@0.90` says: over many validation sets that are drawn as this
one was, at least 90 % either give a threshold whose true sensitivity is 0.90 or more, or give no
threshold. `hospital.guarantee.guaranteed_threshold` chooses such thresholds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cxr_compare.data_prep.contracts.errors import InputError

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
    def claim(self) -> str:
        """Figure, sign and bound as text, such as "sensitivity >= 0.9"."""
        sign = "<=" if self.figure == FALSE_POSITIVES else ">="
        at_prevalence = ""
        if self.prevalence is not None:
            at_prevalence = f" at prevalence {self.prevalence:g}"
        return f"{self.title} {sign} {self.bound:g}{at_prevalence}"

    @property
    def words(self) -> str:
        """Figure and bound in words, such as "sensitivity at least 0.90"."""
        relation = "at most" if self.figure == FALSE_POSITIVES else "at least"
        digits = max(2, len(f"{self.bound:g}"[2:]))
        at_prevalence = "" if self.prevalence is None else f" at prevalence {self.prevalence:g}"
        return f"{self.title} {relation} {self.bound:.{digits}f}{at_prevalence}"


@dataclass(frozen=True)
class Guarantee:
    """One or two guaranteed figures, with one confidence, in (0, 1), that all bounds hold."""

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

    def sentence(self, patients: Sequence[int]) -> str:
        """Return the guarantee in words, with the validation patients of each figure.

        Example:
            >>> read_guarantee("sensitivity>=0.90@0.90").sentence([140])
            'guaranteed: sensitivity at least 0.90 with 90 % confidence, on 140 validation patients'
        """
        claims = " and ".join(part.words for part in self.parts)
        counts = " and ".join(f"{count:,}" for count in dict.fromkeys(patients))
        return f"guaranteed: {claims} with {self.confidence_text}, on {counts} validation patients"


def read_guarantee(text: str) -> Guarantee:
    """Read a guarantee for the choice of a threshold from its text.

    The text is ``sensitivity>=F@C``, ``specificity>=F@C``, ``localised_sensitivity>=F@C``,
    ``ppv>=F,prevalence=P@C`` (positive predictive value) or ``false_positives_per_image<=F@C``, or
    two different ones of them joined by ``&`` before the ``@C``. F, the prevalence P and the
    confidence C lie between 0 and 1; the number F of false positives lies between 0 and 5. An
    example is ``sensitivity>=0.90@0.95``: a sensitivity of at least 0.90 with 95 % confidence.

    Example:
        >>> read_guarantee("sensitivity>=0.90&specificity>=0.70@0.90").parts[1]
        GuaranteedRate(figure='specificity', bound=0.7, prevalence=None)
    """
    claims, at_sign, confidence = text.rpartition("@")
    if not at_sign:
        raise InputError(
            f"guarantee {text!r}: write its confidence after @, such as sensitivity>=0.90@0.90"
        )
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
