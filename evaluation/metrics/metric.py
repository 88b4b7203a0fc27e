"""What the registry knows of a metric, and how figures, thresholds and policies are written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cxr_compare.evaluation.statistics.figure_text import DASH as DASH
from cxr_compare.evaluation.statistics.figure_text import number as number
from cxr_compare.evaluation.statistics.figure_text import p_equation as p_equation
from cxr_compare.evaluation.statistics.figure_text import p_words as p_words
from cxr_compare.evaluation.statistics.figure_text import span_words as span_words

if TYPE_CHECKING:
    from cxr_compare.evaluation.statistics.bootstrap import Interval

Direction = Literal["higher", "lower", "ideal", "none"]
"""``ideal``: the nearer to a record's ``ideal`` the better; ``none``: neither end is better."""

Share = Literal["all", "positive", "negative", "called", "not_called"]
"""Of which images a metric is a share: all, by their label, or by the decision on them."""

Need = Literal["threshold", "boxes", "box_cut", "point", "cell", "probability", "triage"]
"""What a system must have for a metric."""

Part = Literal["first", "place", "rates", "further", "none"]
"""Table of the report: the opening one, localisation, sensitivities at single rates, all others."""

Test = Literal["obuchowski", "mcnemar", "bootstrap", "none"]
"""How a paired difference is tested."""

Highlight = Literal["abstract", "paper", "subgroups", "summary", "targets", "verdict"]
"""Shorter lists of the report that a metric stands in, too."""

NEEDS: dict[Need, str] = {
    "threshold": "the system has no threshold for the policy",
    "boxes": "the system gives no boxes, and no map cut on validation",
    "box_cut": "validation chose no score from which boxes are called",
    "point": "the system gives neither boxes nor maps",
    "cell": "no system points by an activation map, so there is no cell to tolerate",
    "probability": "validation gives no probability to evaluate",
    "triage": "the system was not tuned to rule images out or in",
}
"""Why a system lacks a metric, by what it needs."""


@dataclass(frozen=True)
class Counts:
    """True and false decisions, whole or weighted: numbers, or arrays of one shape."""

    tp: Any
    fp: Any
    tn: Any
    fn: Any

    @property
    def positive(self) -> Any:
        """Images with the finding."""
        return self.tp + self.fn

    @property
    def negative(self) -> Any:
        """Images without it."""
        return self.tn + self.fp

    @property
    def called(self) -> Any:
        """Images called positive."""
        return self.tp + self.fp

    @property
    def not_called(self) -> Any:
        """Images called negative."""
        return self.tn + self.fn


@dataclass(frozen=True)
class Metric:
    """Everything that is known of one metric."""

    name: str  # short name, as in ``metrics.csv``
    title: str  # column or row title
    meaning: str  # what it says
    family: str  # the function that computes it, see `evaluation.metrics.registry`
    # Why it can be undefined on a set of images; notes of the table say this.
    undefined: str = "undefined on these images"
    direction: Direction = "higher"  # which end is better
    ideal: float | None = None  # what it should be, where the direction is ``ideal``
    boxed: bool = False  # whether it is computed on images whose lesions are all boxed, else on all
    # Of which images it is a share; `None` where it is no share of images.
    share_of: Share | None = None
    needs: tuple[Need, ...] = ()  # what a system must have for it
    # Of a metric at a threshold: its value from counts.
    formula: Callable[[Counts], Any] | None = None
    test: Test = "bootstrap"  # how its paired difference is tested
    # Its table in the report and its rank there; equal ranks keep the registry's order.
    place: tuple[Part, int] = ("further", 0)
    also: tuple[Highlight, ...] = ()  # shorter lists that it stands in
    unbounded: bool = False  # whether it can leave [-1, 1], so that it is drawn on no common axis
    # Of one half of an operating point: the metrics of which each is the other half. Any system can
    # raise a half alone by calling more, or fewer, images positive.
    partners: tuple[str, ...] = ()

    @property
    def why_not_primary(self) -> str:
        """Why it cannot decide which system is better; empty where it can."""
        if self.direction == "ideal":
            return f"neither higher nor lower is better, {self.ideal:g} is ideal"
        return {
            "higher": "", "lower": "lower is better", "none": "neither higher nor lower is better",
        }[self.direction]  # fmt: skip

    @property
    def inside(self) -> str:
        """The title as it stands inside a sentence: names and abbreviations keep their capitals."""
        first = self.title.split()[0]
        proper = first != first.capitalize() or not first.isalpha() or first in _PROPER_NAMES
        return self.title if proper else self.title[:1].lower() + self.title[1:]


_PROPER_NAMES = frozenset({"Brier"})

ALL = "all"
VERSUS_NORMAL = "vs_normal"


NoteKind = Literal[
    "left_out", "training", "copies", "validation", "not_tuned", "seeds", "unit", "uses",
    "few_patients", "audit", "no_audit", "chance", "below_chance", "shortcut", "elsewhere",
    "synthetic", "readers", "reference", "by_image",
]  # fmt: skip
"""Images that are left out; training data that is unknown; test images that look like copies of
training images; what validation lacks; a system that was not tuned; several seeds; figures by study
or patient; earlier uses of the test images; few patients, or one with many images. Of cautions
beside these: an error of the audit, or no audit; an AUROC that may be chance, or is below it; a
guess without the lungs; training on other data; synthetic images. The verdicts by each reader's
labels, or opposite ones. Images whose patient is unknown."""


class Note(NamedTuple):
    """What a reader of a comparison must know."""

    kind: NoteKind
    text: str

    @property
    def caution(self) -> bool:
        """Whether it may make the answer wrong and stands right below it."""
        return self.kind in ("few_patients", "copies", "reference", "by_image")

    @property
    def of_decisions(self) -> bool:
        """Whether it says where a decision comes from, which no reader has to mind."""
        return self.kind == "not_tuned"


class MetricKey(NamedTuple):
    """The name of a figure: on which images, at which policy (``""``: none), which metric."""

    subgroup: str
    policy: str
    metric: str


_POLICIES = {
    "": "Without a threshold",
    "max_f1": "best F1",
    "youden": "best sensitivity + specificity",
}
_SIGNS = {">=": " ≥ ", "<=": " ≤ ", "&": " and ", ",prevalence=": " at prevalence ", "_": " "}
_COST = re.compile(r"cost:([\d.]+)/([\d.]+)(?:@([\d.]+))?")


def policy_words(policy: str) -> str:
    """Return the words for a threshold policy.

    Example:
        >>> policy_words("max_f1"), policy_words("sensitivity>=0.95")
        ('best F1', 'sensitivity ≥ 0.95')
        >>> policy_words("cost:10/1@0.05")
        'least cost, a miss to a false alarm as 10 to 1, at prevalence 0.05'
        >>> policy_words("threshold=0.3")
        'a declared score of 0.3'
        >>> policy_words("ppv>=0.3,prevalence=0.1&sensitivity>=0.8@0.90")
        'ppv ≥ 0.3 at prevalence 0.1 and sensitivity ≥ 0.8 with 90 % confidence'
    """
    if cost := _COST.fullmatch(policy):
        place = f"prevalence {cost[3]}" if cost[3] else "the prevalence of validation"
        return f"least cost, a miss to a false alarm as {cost[1]} to {cost[2]}, at {place}"
    if policy.startswith("threshold="):
        return f"a declared score of {policy.removeprefix('threshold=')}"
    claim, guaranteed, confidence = policy.partition("@")
    for sign, words in _SIGNS.items():
        claim = claim.replace(sign, words)
    sure = f" with {100 * float(confidence):g} % confidence" if guaranteed else ""
    return _POLICIES.get(policy, claim + sure)


def ends_words(interval: Interval) -> str:
    """Return both ends of an interval; nothing without one.

    Example:
        >>> from cxr_compare.evaluation.statistics.bootstrap import Interval
        >>> ends_words(Interval(0.0, -0.1, 0.1))
        '−0.100 to 0.100'
    """
    return span_words(interval.low, interval.high) if interval.bounded else ""


def score_words(value: float) -> str:
    """Return a score or threshold: three decimals, or three digits where it is small.

    Example:
        >>> score_words(0.71), score_words(0.00412)
        ('0.710', '0.00412')
    """
    return f"{value:.3f}" if value >= 0.1 else f"{value:.3g}"


def listing(words: list[str]) -> str:
    """Join words as prose does."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def inside_sentence(display_name: str) -> str:
    """Lower the first letter of a finding's name, except where it is an abbreviation.

    Example:
        >>> inside_sentence("Lung opacity"), inside_sentence("COVID-19")
        ('lung opacity', 'COVID-19')
    """
    keep = len(display_name) > 1 and display_name[1].isupper()
    return display_name if keep else display_name[:1].lower() + display_name[1:]
