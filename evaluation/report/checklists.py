"""STARD-AI and CLAIM, filled from the run: what it knows, and what only the authors can say."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.contracts.words import counted
from evaluation.metrics.evaluation_set import ALL, VERSUS_NORMAL, Note, NoteKind
from evaluation.metrics.registry import METRICS, highlighted
from evaluation.report.facts import IntervalFacts
from evaluation.report.table import Table
from evaluation.report.templates import sentence

if TYPE_CHECKING:
    import pandas as pd

    from data_prep.store.dataset import DataSet
    from evaluation.compare.comparison import Comparison


_ITEMS = Path(__file__).with_name("checklists.toml")
UNKNOWN = "Not known from the run: for the authors to say."
_LEAD = (
    "Items in our own short words and the order of the original; read the original before you "
    "submit. Whatever the run cannot know is marked so, never guessed."
)


def checklists(comparison: Comparison, dataset: DataSet) -> list[Table]:
    """Return both checklists."""
    run = _Run.of(comparison, dataset)
    heads = ("Item", "Asks for", "In this run")
    lists = tomllib.loads(_ITEMS.read_text(encoding="utf-8"))["checklist"]
    return [
        Table.of(
            each["title"],
            _LEAD,
            heads,
            tuple(
                (item, asks, _answer(topic, run) or UNKNOWN) for item, asks, topic in each["items"]
            ),
        )
        for each in lists
    ]


def _answer(topic: str, run: _Run) -> str:
    """One sentence on what this run knows of a topic; empty where it knows nothing."""
    return sentence(topic, run, template="checklists.txt.jinja") if topic else ""


@dataclass(frozen=True)
class _Run:
    """What the sentences of ``checklists.txt.jinja`` are made from.

    Attributes:
        comparison: What ``cxr compare`` found.
        data_name: Name of the data set.
        recorded: What provenance holds of each system.
        measures: Names of the main metrics that the report has.
        notes: The notes of each topic, joined.
        split: Name of the split.
        split_id: Its id.
        partitions: Who is on the images of each role.
        people: Who is on the judged images.
        positive: Judged images with the finding.
        negative: Judged images without it.
        made: How intervals and tests were made.
        has_subgroups: Whether there are figures of subgroups.
    """

    comparison: Comparison
    data_name: str
    recorded: dict[str, dict[str, Any]]
    measures: list[str]
    notes: dict[str, str]
    split: str
    split_id: str
    partitions: str
    people: str
    positive: int
    negative: int
    made: IntervalFacts
    has_subgroups: bool

    @classmethod
    def of(cls, comparison: Comparison, dataset: DataSet) -> _Run:
        provenance = comparison.provenance
        systems: dict[str, dict[str, Any]] = provenance.get("systems", {})
        data = provenance.get("data_set") or {}
        split = str(data.get("split", "unknown"))
        labels = comparison.decisions.drop_duplicates("image_id")["label"]
        return cls(
            comparison=comparison,
            data_name=data.get("name", dataset.name),
            recorded={name: systems.get(name) or {} for name in comparison.systems},
            measures=_measures(comparison),
            notes=_notes_by_topic(comparison.notes),
            split=split,
            split_id=(data.get("split_ids") or {}).get(split, "no id"),
            partitions=_partitions(dataset, split),
            people=people(dataset.images, comparison.decisions["image_id"].unique()),
            positive=int((labels >= 1).sum()),
            negative=int((labels < 1).sum()),
            made=IntervalFacts.of(comparison),
            has_subgroups=any(
                key.subgroup not in (ALL, VERSUS_NORMAL) for _, key, _ in comparison.estimates
            ),
        )


def methods_paragraph(comparison: Comparison, dataset: DataSet) -> str:
    """Return a methods paragraph to start a paper's from; it states only what the run knows."""
    run = _Run.of(comparison, dataset)
    topics = ("identification", "data", "partition", "people", "flow", "reference", "trained",
              "selection", "cutoffs", "uncertainty", "missing")  # fmt: skip
    return " ".join(filter(None, (_answer(topic, run) for topic in topics)))


def people(images: pd.DataFrame, image_ids: Any) -> str:
    """Say who is on the judged images: sex, age, view, as far as the tables know.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"image_id": list("abcd"), "patient_id": list("aabc"),
        ...     "sex": list("FFMM"), "age_years": [40.0, 41.0, 50.0, 70.0], "view": "PA"})
        >>> people(table, list("abcd"))
        '4 images of 3 patients; sex F 2, M 2; age median 46 (quartiles 41 to 55); view PA 4.'
    """
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
    if split not in dataset.ids.get("split_ids", {}):
        return ""
    roles = dataset.split(split)
    texts = [
        f"{role}: {people(dataset.images, roles.loc[roles['role'] == role, 'image_id'])}"
        for role in ("train", "val", "test")
        if (roles["role"] == role).any()
    ]
    return " ".join(texts)


def _measures(comparison: Comparison) -> list[str]:
    held = comparison.estimates.systems.values()
    known = {key.metric for each in held for key, figure in each.items() if figure.known}
    return [METRICS[each].inside for each in highlighted("abstract") if each in known]
