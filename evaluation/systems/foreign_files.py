"""Parse foreign prediction files: a CSV of scores or boxes, or COCO results JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.tables import InputError

CORNERS = ["x1", "y1", "x2", "y2"]
_SHOWN = 5


@dataclass(frozen=True)
class ForeignColumns:
    """Which columns of a CSV mean what.

    Attributes:
        image: Image ids.
        score: Scores in [0, 1].
        finding: Findings; where the file has no such column, every row is of one finding.
    """

    image: str = "image_id"
    score: str = "score"
    finding: str = "finding"


def read_rows(path: Path, names: ForeignColumns, coco_truth: Path | None = None) -> pd.DataFrame:
    """Read every row as it stands; nothing is checked against a data set yet.

    Args:
        path: The file; JSON is told by its first character.
        names: Columns of a CSV.
        coco_truth: Annotation file that names the numbers in COCO results.

    Returns:
        ``image_id``, ``score``, ``row`` (the line of a CSV, counted from 1 with its header, or the
        place in a JSON list, from 0); ``finding`` and ``x1``, ``y1``, ``x2``, ``y2`` where the
        file has them. A score or corner that is no number is NaN.

    Raises:
        InputError: The file is not of either form.
    """
    if _looks_like_json(path):
        return _read_coco(path, coco_truth)
    return _read_csv(path, names)


def _looks_like_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{")


def _read_csv(path: Path, names: ForeignColumns) -> pd.DataFrame:
    """Columns ``image_id, score[, finding][, x1..y2]`` and ``row``, the line in the file."""
    try:
        header = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns.tolist()
        wanted = [names.image, names.score]
        for column in wanted:
            if column not in header:
                commas = "; save it with commas" if len(header) == 1 and ";" in header[0] else ""
                raise InputError(
                    f"{path}: column '{column}' is missing; it has {', '.join(header[:20])}{commas}"
                )
        boxes = [corner for corner in CORNERS if corner in header]
        if boxes and boxes != CORNERS:
            raise InputError(f"{path}: has {', '.join(boxes)}; boxes need x1, y1, x2 and y2")
        wanted += boxes + [c for c in [names.finding] if c in header and c not in wanted]
        table = pd.read_csv(
            path, usecols=wanted, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: not readable as CSV ({reason})") from None
    table = table.rename(
        columns={names.image: "image_id", names.score: "score", names.finding: "finding"}
    )
    table["row"] = np.arange(2, len(table) + 2)  # line 1 is the header
    for column in ["score", *boxes]:
        # What is no number becomes NaN and is refused with its row later.
        table[column] = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
    return table


def _read_coco(path: Path, truth: Path | None) -> pd.DataFrame:
    """COCO results: a list of ``image_id, category_id, bbox [x, y, width, height], score``."""
    results = _load_json(path)
    if not isinstance(results, list):
        raise InputError(f"{path}: COCO results are a list of boxes; this holds an object")
    rows = [_coco_row(path, place, entry) for place, entry in enumerate(results)]
    names = ["image_id", "category", *CORNERS, "score", "row"]
    table = pd.DataFrame(rows, columns=names)
    table = table.astype(dict.fromkeys([*CORNERS, "score"], np.float64))
    if truth is not None:
        return _named(table, truth)
    categories = sorted(map(str, table["category"].unique()))
    if len(categories) > 1:
        raise InputError(
            f"{path}: holds categories {', '.join(categories[:_SHOWN])}; name them by the "
            "annotation file they come from (--coco-truth)"
        )
    return table.drop(columns="category")


def _coco_row(path: Path, place: int, entry: Any) -> tuple[Any, ...]:
    try:
        x, y, width, height = (float(value) for value in entry["bbox"])
        image, category = str(entry["image_id"]), entry.get("category_id", 1)
        return image, category, x, y, x + width, y + height, float(entry["score"]), place
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: entry {place} needs image_id, bbox of four numbers, and score ({error!r})"
        ) from None


def _named(table: pd.DataFrame, truth: Path) -> pd.DataFrame:
    """Replace COCO's numbers by the annotation file's image names (stems) and category names."""
    described = _load_json(truth)
    try:
        images = {str(e["id"]): PurePath(e["file_name"]).stem for e in described["images"]}
        categories = {str(e["id"]): str(e["name"]) for e in described["categories"]}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{truth}: a COCO annotation file has images (id, file_name) and categories (id, "
            f"name); this lacks {error}"
        ) from None
    # A number that the file does not name stays, and is then refused as an unknown image.
    table["image_id"] = table["image_id"].map(lambda number: images.get(number, number))
    table["finding"] = table["category"].astype(str).map(lambda n: categories.get(n, n))
    return table.drop(columns="category")


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from None
