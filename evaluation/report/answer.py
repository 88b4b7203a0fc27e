"""Content of ``answer.json``: the answer of a comparison in sentences, and the facts behind it."""

from __future__ import annotations

from typing import Any

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.curves import chart_facts
from cxr_compare.evaluation.report.given_thresholds import GIVEN_METRICS, declared_threshold_line
from cxr_compare.evaluation.report.joint_table import joint_record
from cxr_compare.evaluation.report.unknown_patients import image_worded_record
from cxr_compare.evaluation.thresholds import DECLARED
from cxr_compare.evaluation.verdict.verdict_parts import Conclusion


def answer_record(comparison: Comparison) -> dict[str, Any]:
    """Return the answer of a comparison and the facts behind it, as values that JSON can hold."""
    answer = comparison.answer
    record = {
        "headline": answer.headline,
        "ranking": answer.ranking,
        "kind": answer.kind,
        "cautions": [caution.text for caution in answer.cautions],
        "findings": [_finding(each, comparison) for each in answer.conclusions],
        "margin": [each.text for each in answer.conclusions if each.kind == "margin"],
        "at_declared_thresholds": _declared_thresholds(comparison),
        "scope": " ".join(answer.scope.values()),
        "claims": [claim.to_dict() for claim in answer.claims],
        "notes": [note.text for note in comparison.notes],
        "reading": [note.text for note in comparison.notes if note.kind == "reading"],
        "names_images": any("images" in (note.values or {}) for note in comparison.notes),
        "target": comparison.finding,
        "systems": comparison.names,
        "joint": joint_record(comparison),
        "made_of_others": comparison.made_of_others,
        "policy": comparison.main_policy,
        "policies": comparison.policies,
        "thresholds": {name: each.thresholds for name, each in comparison.systems.items()},
        "declared": {name: each._asdict() for name, each in comparison.declared.items()},
        "costs": {name: each.cost for name, each in comparison.systems.items()},
        "charts": chart_facts(comparison),
        "exposure": [result.to_dict() for result in comparison.exposures],
        "provenance": comparison.provenance,
    }
    return record if comparison.patients_known else image_worded_record(record, comparison.names)


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
