"""Methods section of a report: paragraphs of a paper, references and checklists."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

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

UNKNOWN = "Not known from the run: to be written by the authors."
"""Answer to an item of a checklist about which the run records nothing."""


_PARAGRAPHS = ("data", "systems", "decisions", "statistics")


def methods(comparison: Comparison, dataset: DataSet) -> dict[str, Any]:
    """Return the methods section of the report: paragraphs, references, reporting checklists.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        dataset: The data set under evaluation; its images, labels and split are described.

    Returns:
        The contents under the names by which the page's templates use them, such as ``paragraphs``,
        ``references`` and ``checklists``.
    """
    references = read_entries("references")
    cited = dict[str, dict[str, Any]]()

    def cite(*keys: str) -> str:
        """Return the numbers of references, which are numbered when they are first cited."""
        cited.update({key: references[key] for key in keys if key not in cited})
        numbers = [str(list(cited).index(key) + 1) for key in keys]
        return f" [{', '.join(numbers)}]" if numbers else ""

    def cite_for(kind: str, *names: str) -> str:
        """Cite the references on the named networks, detectors or image collections."""
        keys = []
        for key, reference in references.items():
            prefixes = tuple(reference.get(kind, ()))
            if prefixes and any(name.startswith(prefixes) for name in names):
                keys.append(key)
        return cite(*keys)

    titles: dict[str, str] = {}
    for reference in references.values():
        titles |= reference.get("networks", {})
        titles |= reference.get("detectors", {})
    cites = {"cite": cite, "cite_for": cite_for, "titles": titles}
    run = _facts(comparison, dataset) | cites
    uncited = run | dict.fromkeys(("cite", "cite_for"), lambda *_: "")
    return {
        "paragraphs": [_answer(f"paragraph_{name}", run, "methods") for name in _PARAGRAPHS],
        "references": list(cited.values()),
        "checklists": [
            _checklist(**checklist, run=uncited)
            for checklist in read_entries("checklists").values()
        ],
        # The meaning of single rates is explained where their mean is.
        "metrics": [
            metric
            for metric in in_reading_order()
            if metric.name in run["known"] and metric.table.part not in ("rates", "none")
        ],
        "policies": {policy: check_policy(policy) for policy in comparison.policies},
        "most_undefined": round(100 * MOST_UNDEFINED),
        **{name: run[name] for name in ("comparison", "made", "cells")},
    }


def _checklist(
    key: str, title: str, items: Sequence[tuple[str, str, str]], run: dict[str, Any]
) -> Table:
    """Fill in a checklist: each item with the answer that the run records."""
    rows = [
        (item, asks, _answer(topic, run, "checklists") or UNKNOWN) for item, asks, topic in items
    ]
    left = [item for item, _, answer in rows if answer == UNKNOWN]
    lead = sentence(
        "checklist", len(rows) - len(left), len(rows), left, read_entries("references")[key]
    )
    return Table.from_rows(title, lead, ("Item", "Asks for", "In this run"), rows)


def _answer(topic: str, run: dict[str, Any], template: str) -> str:
    """Return the text that the run records on a topic; empty if it records nothing."""
    return sentence(topic, run, template=f"{template}.txt.jinja") if topic else ""


@cache
def read_entries(name: str) -> dict[str, dict[str, Any]]:
    """Return the entries of a TOML file beside this module: literature references or checklists.

    Args:
        name: File name without suffix: ``references`` or ``checklists``.

    Returns:
        The fields of each entry, such as ``title``, by the entry's ``key``, in the order of the
        file.
    """
    text = Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8")
    return {entry["key"]: entry for entry in tomllib.loads(text)["entry"]}


def _facts(comparison: Comparison, dataset: DataSet) -> dict[str, Any]:
    """Collect the values for the templates of methods and checklists, by name."""
    target = dataset.target(comparison.finding)
    images = dataset.images
    recorded = comparison.records
    split = comparison.split
    evaluated = comparison.decisions.drop_duplicates("image_id")
    ids = pd.Index(evaluated["image_id"])
    figures = list(comparison.estimates)
    defined = {key.metric for _, key, figure in figures if key.subgroup == ALL and figure.known}
    of_target = dataset.findings[dataset.findings["finding"].isin(target.any_of)]
    boxes = dataset.target_boxes(target)
    maps = {name: system.maps for name, system in comparison.systems.items()}
    tables = {  # columns whose values are counted
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
        "measures": [
            METRICS[name].title_in_sentence for name in highlighted("abstract") if name in defined
        ],
        "split": split,
        "assigned": dataset.split_rule(split),
        "roles": _roles(comparison, dataset, split),
        "people": _people(images, ids),
        "positive": int((evaluated["label"] >= 1).sum()),
        "negative": int((evaluated["label"] < 1).sum()),
        "made": IntervalFacts.from_comparison(comparison),
        "cells": {
            n: cell_size_text(rows) for n, rows in maps.items() if rows is not None and len(rows)
        },
        "known": defined,
        "topics": dict.fromkeys(comparison.failures.get("topic", [])),
        "uncounted": any(key.subgroup == AGAINST for _, key, _ in figures),
        **{name: table.value_counts().to_dict() for name, table in tables.items()},
    }


def _roles(comparison: Comparison, dataset: DataSet, split: str) -> dict[str, dict[str, Any]]:
    """Return positives and composition of each role of a split, among images with a known label."""
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


def _composition(images: pd.DataFrame, image_ids: Any) -> dict[str, Any]:
    """Collect counts, sex, age and view of some images, as far as the images table has them."""
    chosen = images[images["image_id"].isin(image_ids)]
    facts: dict[str, Any] = {"images": len(chosen), "patients": None, "age": None}
    if "patient_id" in chosen:
        facts["patients"] = int(chosen["patient_id"].nunique())
    for column in ("sex", "view"):
        values = chosen[column].dropna() if column in chosen else pd.Series(dtype=object)
        facts[column] = values.value_counts().sort_index().to_dict()
        facts[f"{column}_unknown"] = len(chosen) - len(values)
    ages = chosen["age_years"].dropna() if "age_years" in chosen else pd.Series(dtype=float)
    if len(ages):
        facts["age"] = ages.quantile([0.25, 0.5, 0.75]).tolist()
    return facts


def _people(images: pd.DataFrame, image_ids: Any) -> str:
    """Describe sex, age and view of some images in a sentence, as far as they are known."""
    return sentence("composition", _composition(images, image_ids))
