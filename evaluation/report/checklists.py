"""STARD-AI and CLAIM, filled from the run: what it knows, and what only the authors can say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.compare.intervals import ALL
from evaluation.metrics.evaluation_set import Note, NoteKind
from evaluation.metrics.registry import METRICS, highlighted
from evaluation.metrics.words import listing, number, policy_words
from evaluation.report.facts import IntervalFacts
from evaluation.report.grids import Grid
from evaluation.report.templates import sentence

if TYPE_CHECKING:
    import pandas as pd

    from data_prep.store.dataset import DataSet
    from evaluation.compare.comparison import Comparison


STARD = (
    ("1", "Title or abstract: a study of diagnostic accuracy, with its measures", "identification"),
    ("2", "Structured summary", "verdict"),
    ("3", "Background, intended use and role of the test", ""),
    ("4", "Objectives and hypotheses", ""),
    ("5", "Prospective or retrospective", "retrospective"),
    ("6", "Eligibility of participants", ""),
    ("7", "How they were identified", ""),
    ("8", "Where and when", ""),
    ("9", "Consecutive, random or convenience series", ""),
    ("10a", "The index test, so that it can be repeated", "index"),
    ("10b", "The reference standard, so that it can be repeated", "reference"),
    ("11", "Why this reference standard", ""),
    ("12a", "Cut-offs of the index test, pre-specified or not", "cutoffs"),
    ("12b", "Cut-offs of the reference standard", "reference"),
    ("13a", "What those who ran the index test knew", "blind"),
    ("13b", "What those who set the reference knew", ""),
    ("14", "Methods of estimating and comparing accuracy", "uncertainty"),
    ("15, 16", "Indeterminate results and missing data", "missing"),
    ("17", "Analyses of variability, pre-specified or exploratory", "subgroups"),
    ("18", "Intended sample size", ""),
    ("19", "Flow of participants", "flow"),
    ("20", "Who the participants are", "people"),
    ("21", "Severity of disease, other diagnoses", ""),
    ("22", "Time between index test and reference standard", ""),
    ("23", "Cross tabulation", "crosstab"),
    ("24", "Estimates with their precision", "estimates"),
    ("25", "Adverse events", ""),
    ("26", "Limitations", "limits"),
    ("27", "Implications for practice", ""),
    ("28–30", "Registration, protocol, funding", ""),
    ("AI", "Source and making of the data", "data"),
    ("AI", "How data were divided, and that patients do not leak", "partition"),
    ("AI", "What each system was trained on", "trained"),
    ("AI", "Version, software and hardware of the systems", "software"),
    ("AI", "Errors, and where the systems fail", "failure"),
    ("AI", "Fairness: performance in groups of people", "subgroups"),
    ("AI", "Availability of code, and how to run this again", "command"),
    ("AI", "Interests of those who made the systems", ""),
)

CLAIM = (
    ("1, 2", "AI methodology in the title; structured summary", "identification"),
    ("3, 4", "Background, intended use, objectives", ""),
    ("5", "Prospective or retrospective", "retrospective"),
    ("6", "Goal of the study", "identification"),
    ("7", "Sources of the data", "data"),
    ("8", "Eligibility", ""),
    ("9", "Steps of preprocessing", ""),
    ("10", "Selection of subsets", "subset"),
    ("11", "Definitions of the data's elements", "reference"),
    ("12", "De-identification", ""),
    ("13", "Missing data", "missing"),
    ("14", "Definition of the ground truth", "reference"),
    ("15–18", "Its rationale, annotators, tools, variability between readers", ""),
    ("19", "Sample size and how it was set", ""),
    ("20, 21", "Partitions, and the level at which they are disjoint", "partition"),
    ("22", "The models", "index"),
    ("23", "Software", "software"),
    ("24, 25", "How parameters start, training", "trained"),
    ("26", "How the final model was chosen", "selection"),
    ("27", "Ensembling", "ensemble"),
    ("28", "Metrics", "metrics"),
    ("29", "Significance and uncertainty", "uncertainty"),
    ("30", "Robustness", "seeds"),
    ("31", "Explainability", "explain"),
    ("32", "Validation on external data", ""),
    ("33", "Flow of participants", "flow"),
    ("34", "Demography of each partition", "partitions"),
    ("35, 36", "Performance, with its precision", "estimates"),
    ("37", "Analysis of failures", "failure"),
    ("38", "Limitations", "limits"),
    ("39", "Implications for practice", ""),
    ("40–42", "Registration, protocol, funding", ""),
)


UNKNOWN = "Not known from the run: for the authors to say."
_LEAD = (
    "Items in our own short words and the order of the original; read the original before you "
    "submit. Whatever the run cannot know is marked so, never guessed."
)


def checklists(comparison: Comparison, dataset: DataSet) -> list[Grid]:
    """Return both checklists.

    Args:
        comparison: What ``cxr compare`` found.
        dataset: For who the patients are.
    """
    facts = run_facts(comparison, dataset)
    heads = ("Item", "Asks for", "In this run")
    stard = [(number, asks, facts.get(key, UNKNOWN)) for number, asks, key in STARD]
    claim = [(number, asks, facts.get(key, UNKNOWN)) for number, asks, key in CLAIM]
    return [
        Grid("STARD 2015, with what STARD-AI (2025) adds", _LEAD, heads, tuple(stard)),
        Grid("CLAIM (2020 numbering; the 2024 update renumbers)", _LEAD, heads, tuple(claim)),
    ]


def run_facts(comparison: Comparison, dataset: DataSet) -> dict[str, str]:
    """Return, by topic, one sentence on what this run knows; a topic that is absent is unknown.

    Args:
        comparison: What ``cxr compare`` found.
        dataset: For who the patients are.
    """
    provenance = comparison.provenance
    systems: dict[str, dict[str, Any]] = provenance.get("systems", {})
    told = {name: systems.get(name) or {} for name in comparison.systems}
    decided = [each.get("decision") or {} for each in told.values()]
    data, notes = provenance.get("data_set") or {}, _notes_by_topic(comparison.notes)
    split = str(data.get("split", "unknown"))
    split_id = (data.get("split_ids") or {}).get(split, "no id")
    target, name = comparison.target, comparison.target.display_name
    facts = {
        "identification": f"{listing(list(told))}, judged by {_measures(comparison)} on {name}.",
        "verdict": comparison.verdict,
        "retrospective": "Retrospective: images and labels existed before the systems were run.",
        "index": "; ".join(f"{system}: {_kind(each)}" for system, each in told.items()) + ".",
        "reference": f"{name}: positive where the reference reader has any of "
        f"{listing(list(target.any_of))} present, negative where all are absent; unknown left out.",
        "cutoffs": f"Score ≥ threshold. {_thresholds(comparison)} All chosen on validation images "
        f"only, or declared. {notes['cutoffs']}",
        "blind": "cxr predict gives a system pixels only; what an imported system or a reader knew "
        "is not known from the run.",
        "missing": notes["missing"] or "No test image was left out, and no system failed on one.",
        "subset": f"The test images of split “{split}” with a known label. {notes['missing']}",
        "partition": f"Split “{split}” ({split_id}): each patient has one role; a system that is "
        "known to have seen a test patient is refused.",
        "partitions": _partitions(dataset, split),
        "data": f"Data set {data.get('name', dataset.name)}, ids in the provenance.",
        "people": people(dataset.images, comparison.decisions["image_id"].unique()),
        "flow": _flow(comparison),
        "crosstab": "See “Confusion matrices”, for every threshold and system.",
        "estimates": "See “Side by side”: every figure and difference with its 95 % interval.",
        "uncertainty": sentence("uncertainty", IntervalFacts.of(comparison)),
        "metrics": _measures(comparison) + "; each defined under “How to read the numbers”.",
        "failure": "See “Where each fails” and “Cases”, chosen by rule and not by hand.",
        "explain": "Boxes, activation maps on one fixed scale, localised sensitivity."
        if any(each.points for each in comparison.systems.values())
        else "No system points at a place.",
        "limits": "See “Methods and limits”"
        + (" and “Before you rely on this”." if comparison.notes else "."),
        "subgroups": "See “Where each fails”: intervals by subgroup, without tests."
        if (~comparison.metrics["subgroup"].fillna("").isin(["", ALL, "vs_normal"])).any()
        else "Not computed in this run.",
        "seeds": f"{_by_system(told, 'seed', 'training seeds')} {notes['seeds']}",
        "trained": f"{_by_system(told, 'trained_on', 'trained on')} {notes['trained']}",
        "selection": "; ".join(
            f"{system}: settings tried on validation: {sentence('tried', each)}"
            for system, each in zip(told, decided, strict=True)
        )
        + f". {notes['selection']}",
        "software": ", ".join(f"{k} {v}" for k, v in (provenance.get("versions") or {}).items()),
        "hardware": _hardware(comparison, provenance),
        "command": str(provenance.get("command") or ""),
        "ensemble": "; ".join(
            f"{system}: {each.cost.get('made_of') or 'one model'}"
            for system, each in comparison.systems.items()
        )
        + ".",
    }
    return {topic: words.strip() for topic, words in facts.items() if words.strip(" .;")}


def methods_paragraph(comparison: Comparison, dataset: DataSet) -> str:
    """Return the methods as a paragraph to start a paper's from; it states only what the run knows.

    Args:
        comparison: What ``cxr compare`` found.
        dataset: For who the patients are.
    """
    facts = run_facts(comparison, dataset)
    topics = ("identification", "data", "partition", "people", "flow", "reference", "trained",
              "selection", "cutoffs", "uncertainty", "missing")  # fmt: skip
    return " ".join(facts[topic] for topic in topics if topic in facts)


def people(images: pd.DataFrame, image_ids: Any) -> str:
    """Say who is on the judged images: sex, age, view, as far as the tables know.

    Args:
        images: The images table.
        image_ids: The judged ones.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"image_id": list("abcd"), "patient_id": list("aabc"),
        ...     "sex": list("FFMM"), "age_years": [40.0, 41.0, 50.0, 70.0], "view": "PA"})
        >>> people(table, list("abcd"))
        '4 images of 3 patients; sex F 2, M 2; age median 46 (quartiles 41 to 55); view PA 4.'
    """
    mine = images[images["image_id"].isin(image_ids)]
    words = [f"{len(mine):,} images"]
    if "patient_id" in mine:
        words[0] += f" of {mine['patient_id'].nunique():,} patients"
    for column in ("sex", "age_years", "view"):
        known = mine[column].dropna() if column in mine else None
        if known is None or known.empty:
            words.append(f"{column.removesuffix('_years')} unknown")
        elif column == "age_years":
            low, middle, high = known.quantile([0.25, 0.5, 0.75])
            words.append(f"age median {middle:.0f} (quartiles {low:.0f} to {high:.0f})")
        else:
            counts = known.value_counts().sort_index()
            shares = ", ".join(f"{value} {count:,}" for value, count in counts.items())
            lost = len(mine) - len(known)
            words.append(f"{column} {shares}" + (f", unknown {lost:,}" if lost else ""))
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
    told = [
        f"{role}: {people(dataset.images, roles.loc[roles['role'] == role, 'image_id'])}"
        for role in ("train", "val", "test")
        if (roles["role"] == role).any()
    ]
    return " ".join(told)


def _measures(comparison: Comparison) -> str:
    rows = comparison.metrics.dropna(subset=["estimate"])
    known = set(rows.loc[rows["system"].isin(comparison.names), "metric"])
    return listing([METRICS[each].inside for each in highlighted("abstract") if each in known])


def _kind(system: dict[str, Any]) -> str:
    kinds = {"boxes": "a detector of lesions", "scores": "a classifier or reader of images"}
    return kinds.get(str(system.get("kind")), "of unknown kind")


def _thresholds(comparison: Comparison) -> str:
    parts = []
    for system, result in comparison.systems.items():
        at = [
            f"{policy_words(policy)} {number(value)}"
            for policy, value in result.thresholds.items()
            if value is not None
        ]
        parts.append(f"{system}: {', '.join(at) or 'no threshold'}.")
    return " ".join(parts)


def _flow(comparison: Comparison) -> str:
    labels = comparison.decisions.drop_duplicates("image_id")["label"]
    positive = int((labels >= 1).sum())
    return (
        f"{len(labels):,} images judged: {positive:,} positive, {int((labels < 1).sum()):,} "
        "negative. Files that did not get in stand in excluded.parquet of the data set."
    )


def _by_system(told: dict[str, dict[str, Any]], key: str, words: str) -> str:
    parts = []
    for system, each in told.items():
        value = each.get(key)
        if isinstance(value, dict):
            value = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in value.items())
        parts.append(f"{system}: {words} {'unknown' if value in (None, '') else value}")
    return "; ".join(parts) + "."


def _hardware(comparison: Comparison, provenance: dict[str, Any]) -> str:
    judged = ", ".join(f"{k} {v}" for k, v in (provenance.get("hardware") or {}).items())
    timed = [
        f"{system} timed on {result.cost['latency_device']}"
        for system, result in comparison.systems.items()
        if result.cost.get("latency_device")
    ]
    return "; ".join(([f"judged on: {judged}"] if judged else []) + timed)
