"""How it was done: what validation chose, how figures were made, and the checklists."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.contracts.words import counted
from data_prep.store.dataset import DataSet
from evaluation.boxes.map_boxes import MapBoxRule, cell_words
from evaluation.compare.comparison import Comparison
from evaluation.compare.estimates import HELD, Estimate, IntervalKind
from evaluation.compare.paired_tests import MCNEMAR
from evaluation.decisions.thresholds import check_policy
from evaluation.metrics.metric import (
    ALL,
    DASH,
    VERSUS_NORMAL,
    MetricKey,
    Note,
    NoteKind,
    policy_words,
)
from evaluation.metrics.registry import METRICS, highlighted, in_reading_order
from evaluation.report.page import Row, Table, sentence
from evaluation.statistics.bootstrap import MOST_UNDEFINED


def methods(comparison: Comparison, dataset: DataSet) -> dict[str, Any]:
    """How it was done, by its names in the report's template."""
    title = "What validation images chose for each system"
    heads, rows = ("", *comparison.names), _decision_rows(comparison)
    return {
        "paragraph": _methods_paragraph(comparison, dataset),
        "decisions": Table.of(title, "", heads, rows, len(comparison.names)),
        "meanings": _meanings(comparison),
        "how": _MethodFacts.of(comparison),
    }


def _decision_rows(comparison: Comparison) -> list[Row]:
    """Return what validation chose for each system; no rows where none was tuned."""
    systems = comparison.provenance.get("systems", {})
    decisions = [systems.get(name, {}).get("decision") or {} for name in comparison.systems]
    if not any(decisions):
        return []
    described = (  # a row's title, its words, and those of a system that has nothing there
        ("Boxes", partial(sentence, "boxes"), "no boxes"),
        ("Image score", partial(sentence, "reduction"), DASH),
        ("Chosen on", partial(sentence, "chosen_on"), DASH),
        ("Settings tried", partial(sentence, "tried"), DASH),
        ("Full scale of maps", partial(sentence, "map_scale"), DASH),
        ("Boxes cut from maps", _map_box_words, DASH),
        ("Probability", partial(sentence, "probability"), DASH),
        ("Referred to a reader", partial(sentence, "referral"), "none"),
    )
    rows: list[Row] = []
    for title, describe, nothing in described:
        texts = [describe(decision) for decision in decisions]
        if any(texts):
            rows.append((title, *(text or nothing for text in texts)))
    return rows


def _map_box_words(decision: dict[str, Any]) -> str:
    level = decision.get("map_box_level")
    return "no maps" if level is None else MapBoxRule(level).words


@dataclass(frozen=True)
class _IntervalFacts:
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
    def of(cls, comparison: Comparison) -> _IntervalFacts:
        """Read them from the tables of a comparison."""
        figures = comparison.estimates
        single, paired = _bounded(figures.systems), _bounded(figures.differences)
        tests, every = comparison.tests, [*single, *paired]
        return cls(
            methods=tuple(dict.fromkeys(f.method.partition(f", {HELD}")[0] for f in every)),
            single=frozenset(figure.kind for figure in single if figure.kind is not None),
            paired=frozenset(figure.kind for figure in paired if figure.kind is not None),
            replicates=(comparison.provenance.get("bootstrap") or {}).get("replicates"),
            refitted=any(figure.refitted for figure in every),
            held=tuple(dict.fromkeys(name for figure in every for name in figure.held_choices)),
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


def _meanings(comparison: Comparison) -> list[tuple[str, str]]:
    """Return name and meaning of every metric in the report, and of the words around them."""
    present = {
        key.metric
        for _, key, figure in comparison.estimates
        if key.subgroup == ALL and figure.known
    }
    made = _IntervalFacts.of(comparison)
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
            for each in comparison.policies
        ),
    ]


@dataclass(frozen=True)
class _MethodFacts:
    """What the page's methods depend on."""

    made: _IntervalFacts
    most_undefined: int  # of resamples, per cent
    several_seeds: dict[str, int]
    single_seed: list[str]
    effective: float | None  # patients of the rarer class
    primary: str
    has_maps: bool
    maps: dict[str, str]  # the method behind each system's maps
    cells: dict[str, str]  # how many a map has, and how large
    version: str  # of this program

    @classmethod
    def of(cls, comparison: Comparison) -> _MethodFacts:
        """Read them from a comparison."""
        systems, seeds = comparison.systems, comparison.seeds
        maps = {n: s.maps for n, s in systems.items() if s.maps is not None and len(s.maps)}
        recorded = comparison.provenance.get("systems", {})
        return cls(
            made=_IntervalFacts.of(comparison),
            most_undefined=round(100 * MOST_UNDEFINED),
            several_seeds={name: runs for name, runs in seeds.items() if runs > 1},
            single_seed=[name for name, runs in seeds.items() if runs == 1],
            effective=comparison.effective_patients,
            primary=comparison.protocol.title if len(systems) > 1 else "",
            has_maps=bool(maps),
            maps={n: each["maps"]["method"] for n, each in recorded.items() if each.get("maps")},
            cells={name: cell_words(each) for name, each in maps.items()},
            version=(comparison.provenance.get("versions") or {}).get("cxr-compare", ""),
        )


_ITEMS = Path(__file__).with_name("checklists.toml")
UNKNOWN = "Not known from the run: for the authors to say."
_LEAD = (
    "Items in our own short words and the order of the original; read the original before you "
    "submit. Whatever the run cannot know is marked so, never guessed."
)


def checklists(comparison: Comparison, dataset: DataSet) -> list[Table]:
    """Return both checklists."""
    run = _facts(comparison, dataset)
    heads = ("Item", "Asks for", "In this run")
    lists = tomllib.loads(_ITEMS.read_text(encoding="utf-8"))["checklist"]
    tables = []
    for each in lists:
        rows = [(item, asks, _answer(topic, run) or UNKNOWN) for item, asks, topic in each["items"]]
        tables.append(Table.of(each["title"], _LEAD, heads, rows))
    return tables


def _answer(topic: str, run: dict[str, Any]) -> str:
    """One sentence on what this run knows of a topic; empty where it knows nothing."""
    return sentence(topic, run, template="checklists.txt.jinja") if topic else ""


def _facts(comparison: Comparison, dataset: DataSet) -> dict[str, Any]:
    """What the sentences of ``checklists.txt.jinja`` are made from, by name."""
    provenance = comparison.provenance
    data = provenance.get("data_set") or {}
    split = str(data.get("split", "unknown"))
    labels = comparison.decisions.drop_duplicates("image_id")["label"]
    subgroups = {key.subgroup for _, key, _ in comparison.estimates}
    recorded = provenance.get("systems", {})
    return {
        "comparison": comparison,
        "data_name": data.get("name", dataset.name),
        "recorded": {name: recorded.get(name) or {} for name in comparison.systems},
        "measures": _measures(comparison),
        "notes": _notes_by_topic(comparison.notes),
        "split": split,
        "split_id": (data.get("split_ids") or {}).get(split, "no id"),
        "partitions": _partitions(dataset, split),
        "people": _people(dataset.images, comparison.decisions["image_id"].unique()),
        "positive": int((labels >= 1).sum()),
        "negative": int((labels < 1).sum()),
        "made": _IntervalFacts.of(comparison),
        "has_subgroups": bool(subgroups - {ALL, VERSUS_NORMAL}),
    }


def _methods_paragraph(comparison: Comparison, dataset: DataSet) -> str:
    """Return a methods paragraph to start a paper's from; it states only what the run knows."""
    run = _facts(comparison, dataset)
    topics = ("identification", "data", "partition", "people", "flow", "reference", "trained",
              "selection", "cutoffs", "uncertainty", "missing")  # fmt: skip
    return " ".join(filter(None, (_answer(topic, run) for topic in topics)))


def _people(images: pd.DataFrame, image_ids: Any) -> str:
    """Say who is on the judged images: sex, age, view, as far as the tables know."""
    chosen = images[images["image_id"].isin(image_ids)]
    words = [f"{counted(len(chosen), 'image')}"]
    if "patient_id" in chosen:
        words[0] += f" of {counted(chosen['patient_id'].nunique(), 'patient')}"
    for column in ("sex", "age_years", "view"):
        known = chosen[column].dropna() if column in chosen else None
        if known is None or known.empty:
            words.append(f"{column.removesuffix('_years')} unknown")
        elif column == "age_years":
            low, middle, high = known.quantile([0.25, 0.5, 0.75])
            words.append(f"age median {middle:.0f} (quartiles {low:.0f} to {high:.0f})")
        else:
            counts = known.value_counts().sort_index()
            shares = ", ".join(f"{value} {count:,}" for value, count in counts.items())
            unknown = len(chosen) - len(known)
            words.append(f"{column} {shares}" + (f", unknown {unknown:,}" if unknown else ""))
    return "; ".join(words) + "."


_TOPIC_OF_NOTE: dict[NoteKind, str] = {
    "left_out": "missing",
    "training": "trained",
    "validation": "cutoffs",
    "not_tuned": "selection",
    "seeds": "seeds",
}
"""The topic that a kind of note belongs to; one of another kind stands above the report only."""


def _notes_by_topic(notes: list[Note]) -> dict[str, str]:
    """The notes of each topic, joined; "" where there is none."""
    return {
        topic: " ".join(note.text for note in notes if note.kind == kind)
        for kind, topic in _TOPIC_OF_NOTE.items()
    }


def _partitions(dataset: DataSet, split: str) -> str:
    """Who is on the images of each role of a split."""
    if split not in dataset.ids["split_ids"]:
        return ""
    roles = dataset.split(split)
    texts = [
        f"{role}: {_people(dataset.images, roles.loc[roles['role'] == role, 'image_id'])}"
        for role in ("train", "val", "test")
        if (roles["role"] == role).any()
    ]
    return " ".join(texts)


def _measures(comparison: Comparison) -> list[str]:
    held = comparison.estimates.systems.values()
    known = {key.metric for item in held for key, figure in item.items() if figure.known}
    return [METRICS[each].inside for each in highlighted("abstract") if each in known]
