"""Boxes in the answers of vision-language models: location tokens, and JSON with ``box_2d``.

The format itself says what the numbers mean, so no option is needed:

- ``<loc0123>`` four times (PaliGemma): y1, x1, y2, x2 of 1024 steps; the class follows.
- ``<loc_123>`` four times (Florence-2): x1, y1, x2, y2 of 1000 steps; the class stands before.
- ``"box_2d": [y1, x1, y2, x2]`` (Gemini): of 1000 steps; ``label`` is the class.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import pandas as pd

from cxr_compare.data_prep.contracts.box_numbers import FOUR_NUMBERS, four_numbers
from cxr_compare.data_prep.contracts.box_readings import BoxReading
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.column_names import find_column, image_names
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.boxes.read_table import ReadTable

BOX_KEY = "box_2d"
"""Key of a box as y1, x1, y2, x2 from 0 to 1000."""
_STEPS = 1000.0
_PALIGEMMA = re.compile(r"((?:<loc\d{4}>)+)\s*([^<;]*)")
_FLORENCE = re.compile(r"([^<>]*?)\s*((?:<loc_\d+>)+)")
_MARKS = r"<loc_?\d+>"
_KEY = rf'"{BOX_KEY}"'
_BOX_LIKE = re.compile(  # a token with a number, a tag or a key of boxes, or four numbers
    rf"""<\w*\d+>|<\W?\w*box|["']\w*box\w*["']\s*:(?!\s*\[\s*\])|{FOUR_NUMBERS}""", re.IGNORECASE
)


class AnswerBox(NamedTuple):
    """One box of an answer: corners as shares of the image's sides, and its class."""

    corners: tuple[float, float, float, float]  # xyxy
    label: str  # empty if the answer names none


def answer_columns(frame: pd.DataFrame, image: str) -> tuple[str, str] | None:
    """Return the columns of image ids and of answers with boxes; None in any other table."""
    header = [str(column) for column in frame.columns]
    images = image if image in header else find_column(header, image_names(header))
    if images is None:
        return None
    for column, cells in frame.select_dtypes(exclude=["number", "bool"]).items():
        texts = cells.dropna().astype(str)
        if column != images and texts.str.contains(f"{_MARKS}|{_KEY}").any():
            return images, str(column)
    return None


def read_answers(frame: pd.DataFrame, columns: tuple[str, str], where: str) -> ReadTable:
    """Read a table with an answer for each image; an answer without a box finds nothing."""
    image_column, answer_column = columns
    images = frame[image_column].astype(str).tolist()
    rows: list[tuple[Any, ...]] = []
    for image, label, answer in zip(images, frame.index, frame[answer_column], strict=True):
        place = f"row {label}"
        text = "" if pd.isna(answer) else str(answer)
        boxes = boxes_of_answer(text, f"{where}: {place}, image '{image}'")
        rows += [(image, place, *box.corners, box.label) for box in boxes]
    table = pd.DataFrame(rows, columns=["image_id", "place", *EDGES, "finding"])
    table = table.astype({"image_id": TEXT, "place": TEXT, "finding": TEXT})
    table = table.astype(dict.fromkeys(EDGES, float))
    if (table["finding"] == "").all():
        table = table.drop(columns="finding")
    elif (table["finding"] == "").any():
        first = table[table["finding"] == ""].iloc[0]
        raise InputError(
            f"{where}: {first['place']}, image '{first['image_id']}': a box has no class, and "
            "others have; add it, or remove the others"
        )
    note = (
        f"The boxes are read from the answers in '{answer_column}', whose format says their unit."
    )
    reading = BoxReading(unit="share", stated=True)
    return ReadTable(table, frame, reading, [note], listed=images, ran=images, where=where)


def boxes_of_answer(text: str, where: str) -> list[AnswerBox]:
    """Return the boxes of one answer; raise InputError for half a box or one in another form.

    Example:
        >>> [box] = boxes_of_answer("<loc0256><loc0512><loc0768><loc1023> nodule", "answer")
        >>> box.label, [round(edge, 2) for edge in box.corners]
        ('nodule', [0.5, 0.25, 1.0, 0.75])
    """
    if re.search(_KEY, text):
        entries = _json_of(text, where)
        labels = ["" if entry.get("label") is None else str(entry["label"]) for entry in entries]
        corners = [shares_of(entry[BOX_KEY], where) for entry in entries]
        return [AnswerBox(*pair) for pair in zip(corners, map(str.strip, labels), strict=True)]
    boxes = []
    if "<loc_" in text:
        for label, marks in _FLORENCE.findall(text):
            for x1, y1, x2, y2 in _fours(marks, _STEPS, where):
                boxes.append(AnswerBox((x1, y1, x2, y2), _plain(label)))
    else:
        for marks, label in _PALIGEMMA.findall(text):
            for y1, x1, y2, x2 in _fours(marks, 1024, where):
                boxes.append(AnswerBox((x1, y1, x2, y2), _plain(label)))
    if text.lower().count("<loc") != 4 * len(boxes) or (not boxes and _BOX_LIKE.search(text)):
        raise InputError(
            f"{where}: {text[:80]!r} seems to hold a box, but not as <loc0123>, <loc_123> or "
            f'"{BOX_KEY}"; write it so'
        )
    return boxes


def shares_of(box: Any, where: str) -> tuple[float, float, float, float]:
    """Return a ``box_2d`` as corners xyxy in shares of the image's sides."""
    numbers = four_numbers(box)
    if numbers is None or not all(0 <= number <= _STEPS for number in numbers):
        raise InputError(
            f"{where}: {BOX_KEY}={box!r}; it is y1, x1, y2, x2 from 0 to 1000; correct it"
        )
    y1, x1, y2, x2 = (number / _STEPS for number in numbers)
    return x1, y1, x2, y2


def _fours(marks: str, steps: float, where: str) -> list[tuple[float, ...]]:
    """Return the numbers of location tokens in groups of four, as shares of the image's sides."""
    numbers = [int(number) for number in re.findall(r"\d+", marks)]
    if len(numbers) % 4:
        raise InputError(f"{where}: a box needs four location tokens, got {len(numbers)}")
    if max(numbers) >= steps:
        raise InputError(f"{where}: a location token is {max(numbers)}, of {steps:g} steps from 0")
    shares = [number / steps for number in numbers]
    return [tuple(shares[start : start + 4]) for start in range(0, len(shares), 4)]


def _plain(label: str) -> str:
    """Return a class without the ends of a sequence, such as ``</s>``."""
    return re.sub(r"</?\w+>", "", label).strip(" \n;,.")


def _json_of(text: str, where: str) -> list[dict[str, Any]]:
    """Return the entries of an answer in JSON, which may stand in a block of Markdown."""
    inner = re.sub(r"^[^\[{]*|[^\]}]*$", "", text)
    try:
        entries = json.loads(inner)
    except ValueError:
        raise InputError(f"{where}: its JSON with {BOX_KEY} cannot be read; correct it") from None
    entries = entries if isinstance(entries, list) else [entries]
    if not all(isinstance(entry, dict) and BOX_KEY in entry for entry in entries):
        raise InputError(f"{where}: its JSON is no list of objects with {BOX_KEY}; correct it")
    return entries
