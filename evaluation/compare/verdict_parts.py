"""Parts of a verdict: statements, conclusions, limits of the answer, and the verdict itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cxr_compare.evaluation.compare.claims import Claim
from cxr_compare.evaluation.compare.sentences import sentence
from cxr_compare.evaluation.metrics.notes import Note

if TYPE_CHECKING:
    from cxr_compare.evaluation.compare.goals import GoalResult

HeadlineKind = Literal["decided", "open", "single", "unknown"]
"""Kind of a headline.

``decided``: a difference was shown. ``open``: no difference was shown, or not for every pair.
``single``: there is only one system. ``unknown``: a figure or an interval is missing.
"""

ConclusionKind = Literal["primary", "margin", "pair", "operating_point"]
"""Subject of a conclusion about a pair of systems.

``primary``: the primary figure. ``margin``: the primary figure, compared with a margin. ``pair``:
another figure. ``operating_point``: the figures at one threshold, such as sensitivity and
specificity.
"""


@dataclass(frozen=True)
class Statement:
    """Sentence that is stored as its kind and its values.

    Attributes:
        kind: Name of the template in `evaluation.compare.sentences`.
        values: Values to fill into the template, by name of its arguments, such as ``system="A"``.

    Example:
        >>> Statement("chance", {"systems": ["A"]}).text
        'A was not shown to be better than chance by AUROC'
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Sentence that the template gives with these values."""
        return sentence(self.kind, **self.values)


@dataclass(frozen=True)
class Conclusion:
    """Statement about one pair of systems, with the differences that it is about.

    Attributes:
        statement: The statement.
        kind: Subject of the statement, see `ConclusionKind`.
        claims: Differences in the statement, each with the interval that decides it.
        decided: True if the statement says that something was shown.
        secondary: True if a protocol was declared and does not mention this comparison, so that the
            statement confirms nothing.
    """

    statement: Statement
    kind: ConclusionKind
    claims: tuple[Claim, ...]
    decided: bool
    secondary: bool = False

    @property
    def text(self) -> str:
        """Sentence of the statement; if it is secondary, its beginning says so."""
        if self.secondary:
            return f"{sentence('secondary_start')} {self.statement.text}"
        return self.statement.text


@dataclass(frozen=True)
class ScopePart:
    """One limit of the answer.

    Attributes:
        brief: Short form of the limit, in a few words.
        statements: Full statements about the limit.
    """

    brief: Statement
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Verdict:
    """Answer of a comparison with its limits, further conclusions and cautions.

    Attributes:
        opening: Statement on the images that were evaluated, with which the headline begins.
        main: Statement of the answer.
        kind: Kind of the answer, see `HeadlineKind`.
        scope_parts: Limits of the answer.
        conclusions: Further comparisons of pairs of systems.
        claims: Differences in the primary figure between all pairs of systems, with intervals that
            hold together.
        cautions: Notes on what may make the answer wrong, the most harmful first.
        better_than_chance: Statement that no system was shown to be better than chance; `None` if
            one was, or if it is unknown.

    Example:
        >>> opening = {"n_images": 200, "unit": "images", "n_synthetic": 0, "all_synthetic": False,
        ...     "seeds": {}, "same_seeds": None}
        >>> main = Statement("chance", {"systems": ["A"]})
        >>> verdict = Verdict(Statement("opening", opening), main, "single", [], [])
        >>> verdict.headline
        'On these 200 test images, A was not shown to be better than chance by AUROC.'
    """

    opening: Statement
    main: Statement
    kind: HeadlineKind
    scope_parts: Sequence[ScopePart]
    conclusions: list[Conclusion]
    claims: tuple[Claim, ...] = ()
    cautions: tuple[Note, ...] = ()
    better_than_chance: Statement | None = None

    @property
    def where(self) -> str:
        """Phrase on the images that were evaluated, with which the headline begins."""
        return self.opening.text

    @property
    def answer(self) -> str:
        """Sentence of the answer without its opening."""
        return self.main.text

    @property
    def chance(self) -> str:
        """Sentence that no system was shown to be better than chance; empty if it does not hold."""
        return "" if self.better_than_chance is None else self.better_than_chance.text

    @property
    def headline(self) -> str:
        """Answer in one sentence, which first says so if no system was shown to beat chance."""
        parts = [part for part in (self.chance, self.answer) if part]
        return f"{self.where}, {'; '.join(parts)}."

    @property
    def scope(self) -> dict[str, str]:
        """Limits of the answer: the full sentences of each limit by its short form."""
        return {
            part.brief.text: " ".join(statement.text for statement in part.statements)
            for part in self.scope_parts
        }

    @property
    def further_claims(self) -> tuple[Claim, ...]:
        """Differences in the sentences below the answer, whose intervals hold together."""
        claims: list[Claim] = []
        for conclusion in self.conclusions:
            if conclusion.kind in ("pair", "operating_point"):
                claims += conclusion.claims
        return tuple(claims)

    def decides(self, first: str, second: str, metric: str, policy: str) -> bool | None:
        """Say if the verdict shows a difference of two systems in one figure.

        Args:
            first: Display name of the first system.
            second: Display name of the second system.
            metric: Short name of the metric.
            policy: Rule by which the threshold was chosen, such as ``max_f1``; empty for a figure
                without a threshold, such as ``auroc``.

        Returns:
            True if the verdict shows a difference, False if it shows none; None if the verdict does
            not mention the two systems in this order with this figure.
        """
        claims = list(self.claims)
        for conclusion in self.conclusions:
            claims += conclusion.claims
        for claim in claims:
            if (claim.first, claim.second, *claim.key) == (first, second, metric, policy):
                return claim.decided
        return None


@dataclass(frozen=True)
class AnswerContext:
    """Facts about a comparison that the verdict mentions, apart from its figures.

    Attributes:
        seeds: Number of training runs of each system, for the systems of which it is known.
        same_training: Systems that use the same training as an earlier one, such as a run and its
            export: name of the earlier system by the name of the later one.
        unequal: Training conditions that are not equal in all systems: for each condition, its
            value by system, as `unequal_conditions` finds them.
        n_synthetic: Number of evaluated images that are synthetic.
        cautions: Notes on what may make the answer wrong, the most harmful first.
        uses_before: Number of uses of the test set before the protocol was first used; `None` if it
            is unknown.
        goals: Results of the protocol's goals.

    Example:
        >>> AnswerContext(seeds={"A": 3}).seeds["A"]
        3
    """

    seeds: Mapping[str, int] = field(default_factory=dict)
    same_training: Mapping[str, str] = field(default_factory=dict)
    unequal: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    n_synthetic: int = 0
    cautions: tuple[Note, ...] = ()
    uses_before: int | None = None
    goals: Sequence[GoalResult] = ()
