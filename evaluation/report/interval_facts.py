"""How the intervals and tests of a report were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.estimates import FIXED_CHOICE, Estimate, IntervalKind
from cxr_compare.evaluation.compare.paired_tests import MCNEMAR
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey


@dataclass(frozen=True)
class IntervalFacts:
    """How the intervals and tests of a report were made."""

    methods: tuple[str, ...]
    single: frozenset[IntervalKind]
    paired: frozenset[IntervalKind]
    replicates: int | None
    refitted: bool
    held: tuple[str, ...]  # choices on validation that no resample makes again
    tested: bool
    mcnemar: bool
    holm: bool

    @property
    def all(self) -> frozenset[IntervalKind]:
        """Kinds of method behind any interval."""
        return self.single | self.paired

    @classmethod
    def of(cls, comparison: Comparison) -> IntervalFacts:
        """Read them from the tables of a comparison."""
        figures = comparison.estimates
        single = _bounded(figures.systems)
        paired = _bounded(figures.differences)
        tests = comparison.tests
        every = [*single, *paired]
        return cls(
            methods=tuple(dict.fromkeys(f.method.partition(f", {FIXED_CHOICE}")[0] for f in every)),
            single=frozenset(figure.kind for figure in single if figure.kind is not None),
            paired=frozenset(figure.kind for figure in paired if figure.kind is not None),
            replicates=comparison.replicates,
            refitted=any(figure.refitted for figure in every),
            held=tuple(dict.fromkeys(name for figure in every for name in figure.fixed_choices)),
            tested=len(tests) > 0,
            mcnemar=len(tests) > 0 and bool(tests["method"].str.startswith(MCNEMAR).any()),
            holm=len(tests) > 0 and len(comparison.systems) > 2,
        )


def _bounded(held: Mapping[Any, Mapping[MetricKey, Estimate]]) -> list[Estimate]:
    """The figures of all images that have an interval."""
    return [
        figure
        for item in held.values()
        for key, figure in item.items()
        if key.subgroup == ALL and figure.kind is not None
    ]
