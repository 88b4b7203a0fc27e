"""Caution on boxes that match the true ones far better if they are read in another way."""

from __future__ import annotations

from collections.abc import Mapping

from cxr_compare.data_prep.base.errors import as_typed
from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.boxes.other_reading import better_reading
from cxr_compare.evaluation.metrics import BOX_F1, METRICS
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.replicates import SystemFigures
from cxr_compare.evaluation.truth import Truth


def box_notes(systems: Mapping[str, SystemFigures]) -> list[Note]:
    """Return a caution for each detector whose boxes were probably misread."""
    notes = []
    for name, system in systems.items():
        if system.output.boxes is not None and system.pairs is not None:
            output = system.output
            notes += other_reading_notes(
                system.truth, system.pairs, name, ranks=output.ranks, unit=output.box_unit
            )
    return notes


def other_reading_notes(
    truth: Truth, pairs: BoxPairs, name: str, *, ranks: bool = True, unit: str = "px"
) -> list[Note]:
    """Return a caution if another reading of boxes fits far better, else nothing.

    `pairs` are those of the images whose lesions all have boxes.
    """
    reading = better_reading(pairs, truth.sizes[truth.is_boxed], ranks=ranks, unit=unit)
    if reading is None:
        return []
    figure = METRICS["ap50" if ranks else BOX_F1].inside
    roles = (pair.partition("=") for pair in filter(None, reading.role.split(",")))
    columns = {f"{name}.{role}": value for role, _, value in roles}
    option = f" ({as_typed({'columns': columns})})" if columns else ""
    text = (
        f"{reading.words}{option}, the {figure} of {name} would be {reading.after:.2f} (now "
        f"{reading.now:.2f}). Draw some boxes: was the file read as it is meant?"
    )
    return [Note(text, "other_reading", page="docs/evaluation.md#boxes-that-were-misread")]
