"""What validation chose for each system, what each figure means, and how it was computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from evaluation.boxes.fusion import BoxRule
from evaluation.boxes.map_boxes import MapBoxRule, cell_words
from evaluation.compare.paired_tests import MCNEMAR
from evaluation.decisions.thresholds import check_policy
from evaluation.metrics.evaluation_set import ALL, MetricKey
from evaluation.metrics.registry import in_reading_order
from evaluation.metrics.words import DASH, policy_words
from evaluation.report.charts import policies_of
from evaluation.report.table import Row
from evaluation.report.templates import sentence
from evaluation.statistics.bootstrap import MOST_UNDEFINED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.compare.comparison import Comparison
    from evaluation.compare.estimates import Estimate, IntervalKind


def decision_rows(comparison: Comparison) -> list[Row]:
    """Return what validation chose for each system; no rows where none was tuned."""
    systems = comparison.provenance.get("systems", {})
    decisions = [systems.get(name, {}).get("decision") or {} for name in comparison.systems]
    if not any(decisions):
        return []
    described = (  # a row's title, its words, and those of a system that has nothing there
        ("Boxes", _box_words, "no boxes"),
        ("Image score", _reduction_words, DASH),
        ("Chosen on", partial(sentence, "chosen_on"), DASH),
        ("Settings tried", partial(sentence, "tried"), DASH),
        ("Rules for boxes", partial(sentence, "rules"), DASH),
        ("Search", partial(sentence, "search"), "not searched"),
        ("Full scale of maps", partial(sentence, "map_scale"), DASH),
        ("Boxes cut from maps", _map_box_words, DASH),
        ("Probability", partial(sentence, "probability"), DASH),
        ("Referred to a reader", partial(sentence, "referral"), "none"),
    )
    rows: list[Row] = []
    for title, describe, nothing in described:
        texts = [describe(each) for each in decisions]
        if any(texts):
            rows.append((title, *(text or nothing for text in texts)))
    return rows


def _box_words(decision: dict[str, Any]) -> str:
    """How boxes were fused and scaled, and from which score the RSNA score calls them."""
    return sentence("boxes", decision, BoxRule.from_json(decision.get("box_fusion")).words)


def _reduction_words(decision: dict[str, Any]) -> str:
    return sentence("reduction", decision)


def _map_box_words(decision: dict[str, Any]) -> str:
    level = decision.get("map_box_level")
    return "no maps" if level is None else MapBoxRule(level).words


@dataclass(frozen=True)
class IntervalFacts:
    """How the intervals and tests of a report were made.

    Attributes:
        methods: Every ``ci_method`` of the metrics table.
        single: Kinds of method behind the intervals of single systems.
        paired: The same of paired differences.
        replicates: Of the bootstrap; `None` where unknown.
        refitted: Whether resamples choose thresholds again.
        tested: Whether there are tests.
        mcnemar: Whether McNemar's are among them.
        holm: Whether they have p-values adjusted for several comparisons.
    """

    methods: tuple[str, ...]
    single: frozenset[IntervalKind]
    paired: frozenset[IntervalKind]
    replicates: int | None
    refitted: bool
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
        single, paired = _bounded(figures.systems), _bounded(figures.differences)
        tests = comparison.tests
        return cls(
            methods=tuple(dict.fromkeys(figure.method for figure in (*single, *paired))),
            single=frozenset(figure.kind for figure in single if figure.kind is not None),
            paired=frozenset(figure.kind for figure in paired if figure.kind is not None),
            replicates=(comparison.provenance.get("bootstrap") or {}).get("replicates"),
            refitted=any(figure.refitted for figure in (*single, *paired)),
            tested=len(tests) > 0,
            mcnemar=len(tests) > 0 and bool(tests["method"].str.startswith(MCNEMAR).any()),
            holm=len(tests) > 0 and len(comparison.systems) > 2,
        )


def _bounded(held: Mapping[Any, Mapping[MetricKey, Estimate]]) -> list[Estimate]:
    """The figures of all images that have an interval."""
    return [
        figure
        for each in held.values()
        for key, figure in each.items()
        if key.subgroup == ALL and figure.kind is not None
    ]


def meanings(comparison: Comparison) -> list[tuple[str, str]]:
    """Return name and meaning of every metric in the report, and of the words around them."""
    present = {
        key.metric
        for _, key, figure in comparison.estimates
        if key.subgroup == ALL and figure.known
    }
    made = IntervalFacts.of(comparison)
    metrics = [
        (metric.title, metric.meaning)
        for metric in in_reading_order()
        # Of the single rates the mean says what they are.
        if metric.name in present and metric.place[0] not in ("rates", "none")
    ]
    return [
        *metrics,
        ("95 % interval", sentence("interval_meaning", made)),
        ("Paired difference", sentence("difference_meaning", made)),
        *(
            (f"Threshold for {policy_words(each)}", sentence("policy_meaning", check_policy(each)))
            for each in policies_of(comparison)
        ),
    ]


@dataclass(frozen=True)
class MethodFacts:
    """What the page's methods depend on.

    Attributes:
        made: How intervals and tests were made.
        most_undefined: Resamples that may be undefined, in per cent.
        several_seeds: Training seeds of each system that has several.
        single_seed: Systems of one training seed.
        effective: Effective patients of the rarer class; `None` where unknown.
        primary: The primary figure in words; empty for one system.
        has_maps: Whether activation maps are drawn.
        maps: Per system the method behind its maps.
        cells: Per system with maps how many cells they have, and how large.
    """

    made: IntervalFacts
    most_undefined: int
    several_seeds: dict[str, int]
    single_seed: list[str]
    effective: float | None
    primary: str
    has_maps: bool
    maps: dict[str, str]
    cells: dict[str, str]

    @classmethod
    def of(cls, comparison: Comparison) -> MethodFacts:
        """Read them from a comparison."""
        systems, seeds = comparison.systems, comparison.seeds
        maps = {n: s.maps for n, s in systems.items() if s.maps is not None and len(s.maps)}
        recorded = comparison.provenance.get("systems", {})
        return cls(
            made=IntervalFacts.of(comparison),
            most_undefined=round(100 * MOST_UNDEFINED),
            several_seeds={name: runs for name, runs in seeds.items() if runs > 1},
            single_seed=[name for name, runs in seeds.items() if runs == 1],
            effective=comparison.effective_patients,
            primary=comparison.protocol.title if len(systems) > 1 else "",
            has_maps=bool(maps),
            maps={n: each["maps"]["method"] for n, each in recorded.items() if each.get("maps")},
            cells={name: cell_words(each) for name, each in maps.items()},
        )
