"""The answers of a visit as a table; nothing of them is kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from serving.answer import ANSWER_COLUMNS, answer_row, inert_cell
from serving.web.schemas import RESEARCH_USE, SystemAnswer, VisitEntry

VISIT_COLUMNS = (
    *ANSWER_COLUMNS, "undecided_because", "threshold_probability", "systems_disagree", "time",
    "view", "width", "height", "backend", "model_id", "request_id", "note",
)  # fmt: skip


def as_csv(entries: Sequence[VisitEntry]) -> bytes:
    """A row an image and system."""
    sheet = io.StringIO(newline="")
    rows = csv.DictWriter(sheet, VISIT_COLUMNS)
    rows.writeheader()
    rows.writerows(_row(entry, system) for entry in entries for system in entry.systems)
    return sheet.getvalue().encode("utf-8-sig")  # so that a spreadsheet reads it as UTF-8


def _row(entry: VisitEntry, system: SystemAnswer) -> dict[str, Any]:
    image = entry.image
    answer = {**system.model_dump(), "image": image.name, "warnings": entry.warnings}
    further = {
        "undecided_because": system.undecided_because,
        "threshold_probability": system.threshold_probability,
        "systems_disagree": entry.disagreement,
        "time": entry.time,
        "view": image.view,
        "width": image.width,
        "height": image.height,
        "backend": system.backend,
        "model_id": system.model_id,
        "request_id": entry.request_id,
        "note": RESEARCH_USE,
    }
    return answer_row(answer) | {column: inert_cell(value) for column, value in further.items()}
