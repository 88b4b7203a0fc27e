"""The answer of a report that says nothing but what a test states."""

from typing import Any

from cxr_compare.evaluation.report.answer import AnswerInfo, AnswerTable, EvaluatedOn, ReportOrigin


def blank_answer(data_set: dict[str, Any], **stated: Any) -> AnswerInfo:
    """Return the content of an ``answer.json`` on a data set."""
    texts = ("cautions", "findings", "margin", "at_given_thresholds", "notes", "reading")
    facts: dict[str, Any] = {
        **dict.fromkeys(texts, ()),
        "headline": "No system is better.",
        "ranking": "",
        "kind": "open",
        "scope": "",
        "claims": (),
        "names_images": False,
        "target": "opacity",
        "systems": ("A", "B"),
        "joint": None,
        "made_of_others": {},
        "policy": "max_f1",
        "policies": ("max_f1",),
        "thresholds": {},
        "declared": {},
        "costs": {},
        "charts": {},
        "exposure": (),
        "provenance": ReportOrigin(data_set=EvaluatedOn(**{"name": "set"} | data_set)),
        "table": AnswerTable(index=[], columns=[], data=[]),
        "seed": 0,
        "overlays": {},
        "call": None,
    }
    return AnswerInfo(**facts | stated)
