"""Parts of a verdict: conclusions, and the verdict itself with the limits of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.verdict.claims import Claim

HeadlineKind = Literal["decided", "open", "single", "unknown"]
"""Kind of a headline.

``decided``: a difference was shown. ``open``: no difference was shown, or not for every pair.
``single``: there is only one system. ``unknown``: a figure or an interval is missing.
"""

ConclusionKind = Literal["primary", "margin", "pair", "operating_point", "joint", "image_blind"]
"""Subject of a conclusion about a pair of systems.

``primary``: the primary figure. ``margin``: the primary figure, compared with a margin. ``pair``:
another figure. ``operating_point``: the figures at one threshold, such as sensitivity and
specificity. ``joint``: a joint system, compared with each of its members. ``image_blind``: a
system, compared with its image-blind baseline.
"""


class JointSystem(NamedTuple):
    """A compared system that joins the output of other compared systems.

    ``boxes_of`` is the member whose boxes it has unchanged; empty if it changes them or has none.
    """

    name: str
    members: tuple[str, ...]
    boxes_of: str = ""


@dataclass(frozen=True)
class Conclusion:
    """Sentence of a report about one pair of systems, with the differences that it is about.

    Attributes:
        text: The sentence; if `secondary` is True, it begins by saying that it confirms nothing.
        claims: Differences that the sentence is about, each with the interval that decides if it is
            shown.
        decided: True if the sentence says that something was shown.
        secondary: True if the question was declared in a protocol file that does not mention this
            comparison, so that the sentence confirms nothing.
        in_headline: True if the sentence belongs to the main one, because the primary figure is a
            localisation figure and this is its image-blind baseline.
        tested: False if nothing was tested, because a joint system has the figure of a member by
            construction, or a difference has no interval.
    """

    text: str
    kind: ConclusionKind
    claims: tuple[Claim, ...]
    decided: bool
    secondary: bool = False
    in_headline: bool = False
    tested: bool = True


@dataclass(frozen=True)
class Verdict:
    """Result of a comparison in sentences: the main one, its limits, and further results.

    Attributes:
        where: Phrase on the evaluated images, with which the main sentence (headline) begins.
        answer: Main sentence without this phrase.
        scope: Limits of what the comparison shows: full sentences by the short form of each limit.
        conclusions: Further comparisons of pairs of systems.
        claims: Differences in the primary figure between all pairs of systems, with intervals that
            are widened for the number of these differences by Holm's method.
        cautions: Notes on what may make the result wrong, the most harmful first.
        chance: Sentence that no system was shown to be better than chance; empty if a system was
            shown to be better, or if this is unknown.
        ranking: Sentence that names the systems which the main sentence only counts; empty with at
            most four systems.
        joint_errors: Sentence on the errors of a joint system and of its members at the threshold;
            empty without a joint system or without a threshold.

    Example:
        >>> verdict = Verdict("On 200 test images", "the AUROC of A was 0.8", "single", {}, [])
        >>> verdict.headline
        'On 200 test images, the AUROC of A was 0.8.'
    """

    where: str
    answer: str
    kind: HeadlineKind
    scope: Mapping[str, str]
    conclusions: list[Conclusion]
    claims: tuple[Claim, ...] = ()
    cautions: tuple[Note, ...] = ()
    chance: str = ""
    ranking: str = ""
    joint_errors: str = ""

    @property
    def headline(self) -> str:
        """Main result in one sentence.

        If no system was shown to be better than chance, the sentence begins with this.
        """
        parts = [part for part in (self.chance, self.answer) if part]
        image_blind = [each.text for each in self.conclusions if each.in_headline]
        answer = f"{self.where}, {'; '.join(parts)}."
        sentences = [answer, self.joint, self.joint_errors, *image_blind]
        return " ".join(text for text in sentences if text)

    @property
    def joint(self) -> str:
        """Sentence on whether a joint system was shown to be better than each of its members.

        Empty without a joint system.
        """
        texts = [conclusion.text for conclusion in self.conclusions if conclusion.kind == "joint"]
        return texts[0] if texts else ""

    @property
    def joint_families(self) -> tuple[list[Conclusion], list[Conclusion]]:
        """Tested conclusions about a joint system: in the primary figure, and in further ones.

        Each is one comparison, of the joint system with all of its members. The further ones are
        corrected for their number by Holm's method.
        """
        joint = [conclusion for conclusion in self.conclusions if conclusion.kind == "joint"]
        primary, further = joint[:1], joint[1:]
        return [each for each in primary if each.tested], [each for each in further if each.tested]

    @property
    def further_claims(self) -> tuple[Claim, ...]:
        """Differences of systems in the sentences below the main one.

        Their intervals are widened for the number of these differences by Holm's method.
        """
        claims: list[Claim] = []
        for conclusion in self.conclusions:
            if conclusion.kind in ("pair", "operating_point", "image_blind"):
                claims += conclusion.claims
        return tuple(claims)

    def decides(self, first: str, second: str, metric: str, policy: str) -> bool | None:
        """Say if the verdict shows a difference of two systems in one figure.

        The result is None if the verdict does not mention the two systems in this order with this
        figure.
        """
        claims = list(self.claims)
        for conclusion in self.conclusions:
            claims += conclusion.claims
        for conclusion in self.conclusions:
            for claim in conclusion.claims if conclusion.kind == "joint" else ():
                if {claim.first, claim.second} == {first, second} and claim.key == (metric, policy):
                    return conclusion.decided
        for claim in claims:
            if (claim.first, claim.second, *claim.key) == (first, second, metric, policy):
                return claim.decided
        return None


@dataclass(frozen=True)
class AnswerContext:
    """Facts about a comparison that its verdict mentions, apart from the figures.

    Attributes:
        seeds: Number of training runs of each system, for the systems of which it is known.
        same_training: Systems that use the same training as an earlier one, such as a training run
            and a model exported from it: name of the earlier system by the name of the later one.
        unequal: Training conditions that are not equal in all systems: for each condition, its
            value by system, such as ``{"input size": {"A": "128 px", "B": "96 px"}}``.
        n_synthetic: Number of evaluated images that were drawn by a program and are no radiographs.
        all_synthetic: True if all evaluated images are such.
    """

    seeds: Mapping[str, int] = field(default_factory=dict)
    same_training: Mapping[str, str] = field(default_factory=dict)
    unequal: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    n_synthetic: int = 0
    all_synthetic: bool = False
    cautions: tuple[Note, ...] = ()
