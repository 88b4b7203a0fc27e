"""Answers to open questions, each tried before it is offered."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from cxr_compare.data_prep.base.errors import InputError, Remedy, counted
from cxr_compare.data_prep.base.tables import REFERENCE_READER
from cxr_compare.data_prep.sources.source import ReadOptions, SourceTables

_MOST_TRIED = 20
_MOST_FINDINGS = 4
_LEFT_TO_THE_USER = re.compile(r"\b(COLUMN|NAME)\b")


def tried(
    error: InputError,
    options: ReadOptions,
    read_answered: Callable[[ReadOptions, Remedy], SourceTables],
) -> InputError:
    """Return questions whose answers say what they do, without those that lead nowhere.

    Each answer is read with the other questions as they are read without one. One that leads back
    to the same words, or to a refusal that has no way on, is not offered. Of a question that is
    left without an answer the refusal is returned.
    """
    if not any(point.remedies for point in error.points):
        return error
    refusals: list[InputError] = []
    n_tried = 0
    points = []
    for point in error.points:
        ways = []
        for way in point.remedies:
            if not _is_whole(way):
                ways.append(way)
                continue
            n_tried += 1
            if n_tried > _MOST_TRIED:
                ways.append(way)
                continue
            left_open: list[InputError] = []
            try:
                tables = read_answered(options.answered(way.options, left_open), way)
            except InputError as refused:
                refusals.append(refused)
                others = [
                    question
                    for question in (refused, *left_open)
                    if question.problem != point.problem
                ]
                if any(_is_whole(question) for other in others for question in other.remedies):
                    ways.append(replace(way, effect="then another question"))
                continue
            if point.problem not in {question.problem for question in left_open}:
                ways.append(replace(way, effect=_effect(tables, options.caller.hides_cells)))
        points.append(InputError(point.problem, ways))
    if refusals and error.problem.endswith("?") and not any(point.remedies for point in points):
        return refusals[0]
    return InputError(points[0].problem, points[0].remedies, points[1:])


def _is_whole(way: Remedy) -> bool:
    """Return True for options that leave no name to the user."""
    return bool(way.options) and not _LEFT_TO_THE_USER.search(str(way.options))


def _effect(tables: SourceTables, hides_ids: bool) -> str:
    """Return labels, patients and boxes of a reading in a few words, and labels of its first image.

    The same numbers may be of other images: the first one tells a label from its reverse.
    """
    labels = tables.findings[tables.findings["reader"] == REFERENCE_READER]
    counts = labels.groupby("finding", sort=False)["state"].value_counts().unstack(fill_value=0)
    parts = [
        f"{finding} {row.get('present', 0):,} present, {row.get('absent', 0):,} absent"
        for finding, row in counts.head(_MOST_FINDINGS).iterrows()
    ]
    if len(counts) > _MOST_FINDINGS:
        parts.append(f"{len(counts) - _MOST_FINDINGS} findings more")
    if not hides_ids and len(labels):
        image = min(labels["image_id"])
        present = labels[(labels["image_id"] == image) & (labels["state"] == "present")]
        findings = ", ".join(present["finding"][:_MOST_FINDINGS])
        parts.append(f"{image} shows {findings or 'nothing'}")
    if "patient_id" in tables.images and (n := tables.images["patient_id"].nunique()):
        parts.append(counted(n, "patient"))
    if len(tables.boxes):
        parts.append(counted(len(tables.boxes), "box"))
    return "; ".join(parts) or "no label"
