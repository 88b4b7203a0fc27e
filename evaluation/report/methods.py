"""Methods section of a report: paragraphs of a paper, and references."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.evaluation.boxes.map_boxes import cell_size_text
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.labelled_images import GroundTruth
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.metrics.registry import in_reading_order
from cxr_compare.evaluation.report.interval_facts import IntervalFacts
from cxr_compare.evaluation.report.templates import sentence
from cxr_compare.evaluation.statistics.intervals import MOST_UNDEFINED
from cxr_compare.evaluation.thresholds import check_policy

_PARAGRAPHS = ("data", "systems", "decisions", "statistics")


def methods(comparison: Comparison, labelled: GroundTruth) -> dict[str, Any]:
    """Return the methods section of the report: paragraphs and references.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        labelled: Labels, roles and facts of all images.

    Returns:
        The contents under the names by which the page's templates use them, such as ``paragraphs``
        and ``references``.
    """
    references = read_references()
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
    run = _facts(comparison, labelled) | cites
    return {
        "paragraphs": [
            sentence(f"paragraph_{name}", run, template="methods.txt.jinja") for name in _PARAGRAPHS
        ],
        "references": list(cited.values()),
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


@cache
def read_references() -> dict[str, dict[str, Any]]:
    """Return the literature references in ``references.toml``.

    Returns:
        The fields of each entry, such as ``title``, by the entry's ``key``, in the order of the
        file.
    """
    text = Path(__file__).with_name("references.toml").read_text(encoding="utf-8")
    return {entry["key"]: entry for entry in tomllib.loads(text)["entry"]}


def _facts(comparison: Comparison, labelled: GroundTruth) -> dict[str, Any]:
    """Collect the values for the templates of the methods, by name."""
    images = labelled.images
    recorded = comparison.records
    evaluated = comparison.decisions.drop_duplicates("image_id")
    ids = pd.Index(evaluated["image_id"])
    figures = list(comparison.figures)
    defined = {key.metric for _, key, figure in figures if key.subgroup == ALL and figure.known}
    maps = {
        name: system.maps
        for name, system in comparison.systems.items()
        if system.map_scale is not None
    }
    return {
        "comparison": comparison,
        "title": labelled.title,
        "finding": inside_sentence(labelled.display_name),
        "recorded": {name: recorded.get(name) or {} for name in comparison.systems},
        "assigned": labelled.split_rule,
        "roles": _roles(labelled),
        "people": _people(images, ids),
        "made": IntervalFacts.from_comparison(comparison),
        "cells": {
            n: cell_size_text(rows) for n, rows in maps.items() if rows is not None and len(rows)
        },
        "known": defined,
        "sources": images.get("source", pd.Series(dtype=object)).value_counts().to_dict(),
    }


def _roles(labelled: GroundTruth) -> dict[str, dict[str, Any]]:
    """Return positives and composition of each role, among images with a known label."""
    facts = {}
    for role in ("train", "val", "test"):
        labels = labelled.labels_of(role).dropna()
        if len(labels):
            positive = int((labels == 1).sum())
            people = _people(labelled.images, labels.index)
            facts[role] = {"positive": positive, "people": people}
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
