"""The methods of a report: paragraphs of a paper, references and checklists."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.boxes.map_boxes import cell_size_text
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.estimates import AGAINST
from cxr_compare.evaluation.decisions.thresholds import check_policy
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.metrics.registry import METRICS, highlighted, in_reading_order
from cxr_compare.evaluation.report.interval_facts import IntervalFacts
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.report.templates import sentence
from cxr_compare.evaluation.statistics.intervals import MOST_UNDEFINED

UNKNOWN = "Not known from the run: write it."


_PARAGRAPHS = ("data", "systems", "decisions", "statistics")


def methods(comparison: Comparison, dataset: DataSet) -> dict[str, Any]:
    """How it was done, by its names in the report's templates.

    The paragraphs of a paper's methods, the references that they cite, as data, and the checklists.
    """
    references = _toml("references")
    cited = dict[str, dict[str, Any]]()

    def cite(*keys: str) -> str:
        """Number references where they are first cited."""
        cited.update({key: references[key] for key in keys if key not in cited})
        numbers = [str(list(cited).index(key) + 1) for key in keys]
        return f" [{', '.join(numbers)}]" if numbers else ""

    def cite_for(kind: str, *names: str) -> str:
        """Cite what belongs to names of networks, or of sources of images."""
        return cite(
            *(
                key
                for key, each in references.items()
                if any(name.startswith(start) for start in each.get(kind, ()) for name in names)
            )
        )

    kinds = [
        each.get(kind, {}) for each in references.values() for kind in ("networks", "detectors")
    ]
    titles = {name: title for each in kinds for name, title in each.items()}
    cites = {"cite": cite, "cite_for": cite_for, "titles": titles}
    run = _facts(comparison, dataset) | cites
    uncited = run | dict.fromkeys(("cite", "cite_for"), lambda *_: "")
    return {
        "paragraphs": [_answer(f"paragraph_{name}", run, "methods") for name in _PARAGRAPHS],
        "references": list(cited.values()),
        "checklists": [_checklist(**each, run=uncited) for each in _toml("checklists").values()],
        # Of single rates the mean says what they are.
        "metrics": [
            metric
            for metric in in_reading_order()
            if metric.name in run["known"] and metric.place[0] not in ("rates", "none")
        ],
        "policies": {policy: check_policy(policy) for policy in comparison.policies},
        "most_undefined": round(100 * MOST_UNDEFINED),
        **{name: run[name] for name in ("comparison", "made", "cells")},
    }


def _checklist(
    key: str, title: str, items: Sequence[tuple[str, str, str]], run: dict[str, Any]
) -> Table:
    """A checklist, each item with what the run knows of it."""
    rows = [
        (item, asks, _answer(topic, run, "checklists") or UNKNOWN) for item, asks, topic in items
    ]
    left = [item for item, _, answer in rows if answer == UNKNOWN]
    lead = sentence("checklist", len(rows) - len(left), len(rows), left, _toml("references")[key])
    return Table.of(title, lead, ("Item", "Asks for", "In this run"), rows)


def _answer(topic: str, run: dict[str, Any], template: str) -> str:
    """What this run knows of a topic; empty where it knows nothing."""
    return sentence(topic, run, template=f"{template}.txt.jinja") if topic else ""


@cache
def _toml(name: str) -> dict[str, dict[str, Any]]:
    """The entries of a data file beside this one, by key."""
    text = Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8")
    return {each["key"]: each for each in tomllib.loads(text)["entry"]}


def _facts(comparison: Comparison, dataset: DataSet) -> dict[str, Any]:
    """What the sentences of the checklists and of the methods are made from, by name."""
    target = dataset.target(comparison.finding)
    images = dataset.images
    recorded = comparison.records
    split = comparison.split
    evaluated = comparison.decisions.drop_duplicates("image_id")
    ids = pd.Index(evaluated["image_id"])
    figures = list(comparison.estimates)
    known = {k.metric for _, k, each in figures if k.subgroup == ALL and each.known}
    of_target = dataset.findings[dataset.findings["finding"].isin(target.any_of)]
    boxes = dataset.target_boxes(target)
    maps = {name: system.maps for name, system in comparison.systems.items()}
    tables = {  # how many rows have each value
        "origins": of_target.loc[of_target["image_id"].isin(ids), "origin"],
        "excluded": dataset.optional_table("excluded")["reason"],
        "kinds": evaluated.get("x_class", pd.Series(dtype=object))[evaluated["label"] < 1],
        "sources": images.get("source", pd.Series(dtype=object)),
        "boxes": boxes.loc[boxes["image_id"].isin(ids), "image_id"],
    }
    return {
        "comparison": comparison,
        "dataset": dataset,
        "finding": inside_sentence(target.display_name),
        "recorded": {name: recorded.get(name) or {} for name in comparison.systems},
        "measures": [METRICS[name].inside for name in highlighted("abstract") if name in known],
        "split": split,
        "assigned": dataset.split_rule(split),
        "roles": _roles(comparison, dataset, split),
        "people": _people(images, ids),
        "positive": int((evaluated["label"] >= 1).sum()),
        "negative": int((evaluated["label"] < 1).sum()),
        "made": IntervalFacts.of(comparison),
        "cells": {
            n: cell_size_text(rows) for n, rows in maps.items() if rows is not None and len(rows)
        },
        "known": known,
        "topics": dict.fromkeys(comparison.failures.get("topic", [])),
        "uncounted": any(key.subgroup == AGAINST for _, key, _ in figures),
        **{name: table.value_counts().to_dict() for name, table in tables.items()},
    }


def _roles(comparison: Comparison, dataset: DataSet, split: str) -> dict[str, dict[str, Any]]:
    """Images of known label of each role of a split, their patients, and who they are."""
    if split not in dataset.ids["split_ids"]:
        return {}
    roles = dataset.split(split)
    labels = dataset.labels(dataset.target(comparison.finding)).dropna()
    facts = {}
    for role in ("train", "val", "test"):
        ids = labels.index[labels.index.isin(roles.loc[roles["role"] == role, "image_id"])]
        if len(ids):
            positive = int((labels[ids] == 1).sum())
            facts[role] = {"positive": positive, "people": _people(dataset.images, ids)}
    return facts


def _people(images: pd.DataFrame, image_ids: Any) -> str:
    """Say who is on the evaluated images: sex, age, view, as far as the tables know."""
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
