"""Parts of a verdict: statements, conclusions, and limits of the answer."""

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
"""``decided``: a difference was shown. ``open``: a difference was not shown. ``single``: there is
one system alone. ``unknown``: there is no figure or no interval."""

ConclusionKind = Literal["primary", "margin", "pair", "operating_point"]
"""``primary``: the primary figure of a pair. ``margin``: the same, compared with a margin.
``pair``: another figure of a pair. ``operating_point``: all figures of a pair at one threshold."""


@dataclass(frozen=True)
class Statement:
    """A sentence as its kind and values; `evaluation.compare.sentences` has its template.

    Example:
        >>> Statement("chance", {"systems": ["A"]}).text
        'A was not shown to be better than chance by AUROC'
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The sentence."""
        return sentence(self.kind, **self.values)


@dataclass(frozen=True)
class Conclusion:
    """A statement about one pair of systems.

    Attributes:
        statement: The statement.
        kind: Subject of the statement.
        claims: The differences in it, each with the interval that decides it.
        decided: True if it says that something was shown.
        secondary: True if a protocol did not fix it, so that it confirms nothing.
    """

    statement: Statement
    kind: ConclusionKind
    claims: tuple[Claim, ...]
    decided: bool
    secondary: bool = False

    @property
    def text(self) -> str:
        """The sentence, marked if it is secondary."""
        if self.secondary:
            return f"{sentence('secondary_start')} {self.statement.text}"
        return self.statement.text


@dataclass(frozen=True)
class ScopePart:
    """One limit of the answer: a few words that sum it up, and the statements."""

    brief: Statement
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Verdict:
    """Opening of a report.

    Attributes:
        opening: The images that were evaluated, as an answer begins.
        main: The answer.
        kind: Kind of the answer.
        scope_parts: Limits of the answer.
        conclusions: Further comparisons.
        claims: Differences of the primary figure between all pairs, decided as one family.
        cautions: What may make the answer wrong, the most harmful first; shown below the headline.
        better_than_chance: Statement that no system was shown to be better than chance; `None` if
            one was.
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
        """The images that were evaluated, as an answer begins."""
        return self.opening.text

    @property
    def answer(self) -> str:
        """The answer without its opening."""
        return self.main.text

    @property
    def chance(self) -> str:
        """Sentence that no system was shown to be better than chance; empty if one was."""
        return "" if self.better_than_chance is None else self.better_than_chance.text

    @property
    def headline(self) -> str:
        """The answer in one sentence; if no system beats chance, this comes first."""
        parts = [part for part in (self.chance, self.answer) if part]
        return f"{self.where}, {'; '.join(parts)}."

    @property
    def scope(self) -> dict[str, str]:
        """Limits of the answer: sentences by the few words that sum them up."""
        return {
            part.brief.text: " ".join(statement.text for statement in part.statements)
            for part in self.scope_parts
        }

    @property
    def further_claims(self) -> tuple[Claim, ...]:
        """Differences of the sentences below the answer, decided as another family."""
        claims: list[Claim] = []
        for conclusion in self.conclusions:
            if conclusion.kind in ("pair", "operating_point"):
                claims += conclusion.claims
        return tuple(claims)

    def decides(self, first: str, second: str, metric: str, policy: str) -> bool | None:
        """Return True if the verdict shows a difference; None if it does not mention it."""
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
        seeds: Number of training runs of each system, where known.
        same_training: Name of the first system of the same training, by the others of it.
        unequal: Training conditions that are not equal in all systems, with the value of each
            system, as `unequal_conditions` finds them.
        n_synthetic: Number of evaluated images that are synthetic.
        cautions: What may make the answer wrong, the most harmful first.
        uses_before: Number of test-set uses before the protocol was first used; `None`: unknown.
        goals: Results of the protocol's goals.
    """

    seeds: Mapping[str, int] = field(default_factory=dict)
    same_training: Mapping[str, str] = field(default_factory=dict)
    unequal: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    n_synthetic: int = 0
    cautions: tuple[Note, ...] = ()
    uses_before: int | None = None
    goals: Sequence[GoalResult] = ()
