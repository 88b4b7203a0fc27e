"""Content of ``metrics.json``."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.given_thresholds import GIVEN_METRICS, declared_threshold_line
from cxr_compare.evaluation.report.joint_table import joint_record
from cxr_compare.evaluation.report.tidy_tables import all_units, failures_table, tests_table
from cxr_compare.evaluation.report.unknown_patients import image_worded_record
from cxr_compare.evaluation.thresholds import DECLARED
from cxr_compare.evaluation.verdict.verdict_parts import Conclusion


def metrics_json(comparison: Comparison) -> dict[str, Any]:
    """Return the content of ``metrics.json``, the file of a report that programs read.

    The options of the command that made the report are not included.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        A dictionary of values that JSON can hold, with the conclusion under ``answer`` and one
        dictionary for each value under ``metrics``.
    """
    record = {
        "target": comparison.finding,
        "answer": answer_json(comparison),
        "systems": comparison.names,
        "joint": joint_record(comparison),
        "thresholds": {name: each.thresholds for name, each in comparison.systems.items()},
        "costs": {name: each.cost for name, each in comparison.systems.items()},
        "notes": [note.text for note in comparison.notes],
        "metrics": _records(all_units(comparison)),
        "tests": _records(tests_table(comparison)),
        "where": _records(failures_table(comparison)),
        "exposure": [result.to_dict() for result in comparison.exposures],
        "declared": {name: each._asdict() for name, each in comparison.declared.items()},
        "provenance": comparison.provenance,
    }
    return record if comparison.patients_known else image_worded_record(record)


def answer_json(comparison: Comparison) -> dict[str, Any]:
    """Return the answer of a comparison in sentences, as ``metrics.json`` holds it."""
    answer = comparison.answer
    record = {
        "headline": answer.headline,
        "kind": answer.kind,
        "cautions": [caution.text for caution in answer.cautions],
        "claims": [claim.to_dict() for claim in answer.claims],
        "findings": [_finding(each, comparison) for each in answer.conclusions],
        "margin": [each.text for each in answer.conclusions if each.kind == "margin"],
        "declared": _declared_thresholds(comparison),
        "scope": " ".join(answer.scope.values()),
    }
    return record if comparison.patients_known else image_worded_record(record)


def _declared_thresholds(comparison: Comparison) -> list[str]:
    """Return a sentence for each declared threshold, with the figures of its system there."""
    lines = []
    for model, declared in comparison.declared.items():
        system = model if model in comparison.systems else model.rpartition(" #")[0]
        figures = {
            metric: comparison.figures.get(system, metric, DECLARED).estimate
            for metric in GIVEN_METRICS
        }
        lines.append(
            declared_threshold_line(
                model, declared.threshold, declared.name, declared.source, figures
            )
        )
    return lines


def _finding(conclusion: Conclusion, comparison: Comparison) -> str:
    """Return a conclusion; one on boxes names the systems whose boxes are parts of a map."""
    text = conclusion.text
    boxed = [c for c in conclusion.claims if c.metric.startswith(("ap", "froc", "rsna"))]
    for claim in boxed[:1]:
        for name in (claim.first, claim.second):
            system = comparison.systems.get(name)  # None for an image-blind baseline
            if system is None:
                continue
            if system.map_scale is not None and system.maps is not None and len(system.maps):
                first = system.maps.iloc[0]
                text += (
                    f" {name} never learned boxes: its boxes are parts of a map of "
                    f"{first['grid_w']} × {first['grid_h']} cells."
                )
    return text


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table for JSON, with null for undefined values."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]
