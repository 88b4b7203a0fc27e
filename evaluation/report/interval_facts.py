"""Methods of the intervals and tests of a report."""

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
    """Methods by which the intervals and tests of a report were made."""

    methods: tuple[str, ...]
    single: frozenset[IntervalKind]
    paired: frozenset[IntervalKind]
    replicates: int | None
    refitted: bool
    fixed: tuple[str, ...]
    """Choices on validation images that are not made again in each resample."""
    tested: bool
    mcnemar: bool
    holm: bool

    @property
    def all(self) -> frozenset[IntervalKind]:
        """Kinds of all methods of intervals, single and paired."""
        return self.single | self.paired

    @classmethod
    def from_comparison(cls, comparison: Comparison) -> IntervalFacts:
        """Collect the methods from the figures and tests of a comparison.

        Args:
            comparison: Everything that was computed.

        Returns:
            The methods of figures on all images and of the tests.
        """
        figures = comparison.estimates
        single = _bounded(figures.systems)
        paired = _bounded(figures.differences)
        tests = comparison.tests
        figures_with_ends = [*single, *paired]
        return cls(
            methods=tuple(
                dict.fromkeys(
                    figure.method.partition(f", {FIXED_CHOICE}")[0] for figure in figures_with_ends
                )
            ),
            single=frozenset(figure.kind for figure in single if figure.kind is not None),
            paired=frozenset(figure.kind for figure in paired if figure.kind is not None),
            replicates=comparison.replicates,
            refitted=any(figure.refitted for figure in figures_with_ends),
            fixed=tuple(
                dict.fromkeys(name for figure in figures_with_ends for name in figure.fixed_choices)
            ),
            tested=len(tests) > 0,
            mcnemar=len(tests) > 0 and bool(tests["method"].str.startswith(MCNEMAR).any()),
            holm=len(tests) > 0 and len(comparison.systems) > 2,
        )


def _bounded(estimates: Mapping[Any, Mapping[MetricKey, Estimate]]) -> list[Estimate]:
    """Return the figures on all images together that have an interval."""
    return [
        figure
        for by_key in estimates.values()
        for key, figure in by_key.items()
        if key.subgroup == ALL and figure.kind is not None
    ]
