"""Predictions of other software or of a reader, from one CSV or COCO results file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import EDGES
from data_prep.contracts.text_lookup import is_member
from data_prep.store.dataset import DataSet
from evaluation.boxes.box_rule import LEAST_SCORE
from evaluation.boxes.iou import MAX_BOXES
from evaluation.overlays.reader_study import read_review

_SHOWN = 5


@dataclass(frozen=True)
class ColumnNames:
    """Which columns of a CSV mean what.

    Attributes:
        image: Image ids.
        score: Scores in [0, 1].
        finding: Findings; where the file has no such column, every row is of one finding.
    """

    image: str = "image_id"
    score: str = "score"
    finding: str = "finding"


def _read_file(path: Path, names: ColumnNames, coco_truth: Path | None = None) -> pd.DataFrame:
    """Read every row as it stands; nothing is checked against a data set yet."""
    if _looks_like_json(path):
        return _read_coco(path, coco_truth)
    return _read_csv(path, names)


def _looks_like_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{")


def _read_csv(path: Path, names: ColumnNames) -> pd.DataFrame:
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
        boxes = [corner for corner in EDGES if corner in header]
        if boxes and boxes != EDGES:
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
    names = ["image_id", "category", *EDGES, "score", "row"]
    table = pd.DataFrame(rows, columns=names)
    table = table.astype(dict.fromkeys([*EDGES, "score"], np.float64))
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


@dataclass(frozen=True)
class ImportedPredictions:
    """An imported file in the terms of a predictions folder.

    Attributes:
        kind: ``boxes`` or ``scores``.
        images: ``image_id``, ``status``, ``reason``.
        rows: The ``scores`` or ``boxes`` table.
        inference_id: From the file's content and how it was read.
        notes: What was left out, clipped or assumed.
    """

    kind: str
    images: pd.DataFrame
    rows: pd.DataFrame
    inference_id: str
    notes: list[str] = field(default_factory=list)


def read_imported(
    path: Path,
    dataset: DataSet,
    *,
    columns: ColumnNames | None = None,
    finding: str | None = None,
    split: str = "default",
    run_on: str = "all",
    ignore_unknown: bool = False,
    coco_truth: Path | None = None,
    key: Path | None = None,
) -> ImportedPredictions:
    """Read a CSV of scores or boxes, or COCO results JSON, and check every row.

    A CSV with ``x1, y1, x2, y2`` holds boxes (original px), any other scores. In a file of boxes
    an image without a row was run and had nothing (`run_on` "all": every val and test image of
    the split) or was not run ("listed"); in a file of scores it failed.

    Args:
        path: The file; JSON is known by its first character.
        dataset: Its image ids and findings are those that count.
        columns: Names of the columns of a CSV.
        finding: The finding of rows that name none; by default the data set's only one.
        split: The images that the system is taken to have been run on.
        run_on: ``all`` or ``listed``.
        ignore_unknown: Leave out rows of images or findings that the data set does not have.
        coco_truth: COCO annotation file that names the images and categories of COCO results.
        key: Of a blind study whose filled-in form the file is, see `reader_study`.

    Returns:
        The predictions, with notes on what was left out or assumed.

    Raises:
        InputError: The file is malformed, or a row names an unknown image or finding, a score
            outside [0, 1], an impossible box, or repeats a score.
    """
    if run_on not in ("all", "listed"):
        raise InputError(f"--images {run_on}: choose all or listed")
    if not path.is_file():
        what = "a folder; give one file" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}")
    names = columns or ColumnNames()
    raw = _read_file(path, names, coco_truth) if key is None else read_review(path, key)
    notes: list[str] = []
    raw["image_id"] = _without_suffix(raw["image_id"], dataset)
    raw["finding"] = _findings(raw, path, dataset, finding)
    raw = _only_known(raw, path, dataset, ignore_unknown, notes)
    _check_scores(raw, path)
    gives_boxes = "x1" in raw
    if raw.empty and not gives_boxes:  # no boxes at all is an answer, no scores is none
        raise InputError(f"{path}: has a header but no row of scores")
    rows = _boxes(raw, path, dataset, notes) if gives_boxes else _scores(raw, path)
    images = _images(raw, dataset, split, gives_boxes and run_on == "all", gives_boxes)
    failed = int((images["status"] == "failed").sum())
    if failed:
        notes.append(f"{failed} val and test images have no row: counted as failed.")
    kind = "boxes" if gives_boxes else "scores"
    how = json.dumps([kind, names.image, names.score, names.finding, finding, run_on, split])
    content = path.read_bytes() + (b"" if key is None else key.read_bytes())
    digest = hashlib.sha256(content + how.encode()).hexdigest()[:16]
    return ImportedPredictions(kind, images, rows, f"import-{digest}", notes)


def _findings(raw: pd.DataFrame, path: Path, dataset: DataSet, finding: str | None) -> pd.Series:
    """The finding of each row: the file's own, else the named one, else the only one."""
    if "finding" in raw and finding is not None:
        raise InputError(f"{path}: has a finding column; leave --finding out")
    if "finding" in raw:
        return raw["finding"]
    known = _known_findings(dataset)
    if finding is None and len(known) != 1:
        raise InputError(f"{path}: names no finding; choose one of {', '.join(known)} (--finding)")
    return pd.Series(finding or known[0], index=raw.index)


def _without_suffix(names: pd.Series, dataset: DataSet) -> pd.Series:
    """Take ``.png`` and the like off a name where only the bare name is an image of the set."""
    bare = names.str.replace(r"\.(?:png|jpe?g|dcm|dicom)$", "", regex=True, case=False)
    known = dataset.images["image_id"]
    return names.where(is_member(names, known) | ~is_member(bare, known), bare)


def _known_findings(dataset: DataSet) -> list[str]:
    return sorted({member for target in dataset.targets.values() for member in target.any_of})


def _only_known(
    raw: pd.DataFrame, path: Path, dataset: DataSet, ignore_unknown: bool, notes: list[str]
) -> pd.DataFrame:
    """Refuse, or leave out and count, rows of images and findings that the data set lacks."""
    for column, known, what in (
        ("image_id", dataset.images["image_id"], "images"),
        ("finding", _known_findings(dataset), "findings"),
    ):
        unknown = ~raw[column].isin(known)
        if not unknown.any():
            continue
        names = raw.loc[unknown, column].unique()
        shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
        if not ignore_unknown:
            raise InputError(
                f"{path}: {len(names)} {what} are not in {dataset.folder} ({shown}); correct them, "
                "or leave them out with --ignore-unknown"
            )
        notes.append(f"{len(names)} {what} unknown to the data set left out ({shown}).")
        raw = raw[~unknown]
    if raw.empty and notes:
        raise InputError(f"{path}: no row is of an image and finding of {dataset.folder}")
    return raw.reset_index(drop=True)


def _check_scores(raw: pd.DataFrame, path: Path) -> None:
    wrong = raw[~((raw["score"] >= 0) & (raw["score"] <= 1))]
    if len(wrong):
        first = wrong.iloc[0]
        raise InputError(
            f"{path}: row {first['row']}, image '{first['image_id']}': score={first['score']}; "
            f"scores must be numbers in [0, 1] ({len(wrong)} rows are not)"
        )


def _scores(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    repeated = raw.duplicated(["image_id", "finding"])
    if repeated.any():
        first = raw[repeated].iloc[0]
        raise InputError(
            f"{path}: row {first['row']} gives image '{first['image_id']}' a second score for "
            f"{first['finding']}; keep one"
        )
    return raw[["image_id", "finding", "score"]]


def _boxes(raw: pd.DataFrame, path: Path, dataset: DataSet, notes: list[str]) -> pd.DataFrame:
    """Boxes clipped to their images, the 100 most confident per image and finding."""
    size = dataset.images.set_index("image_id")[["width", "height"]].astype(np.float64)
    limit = size.reindex(raw["image_id"]).to_numpy()[:, [0, 1, 0, 1]]
    corners = raw[EDGES].to_numpy(np.float64)
    clipped = np.clip(corners, 0, np.where(np.isnan(limit), np.inf, limit))
    good = (clipped[:, 0] < clipped[:, 2]) & (clipped[:, 1] < clipped[:, 3])
    good &= np.isfinite(corners).all(axis=1)
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        shown = ", ".join(f"{n}={v:g}" for n, v in zip(EDGES, corners[first], strict=True))
        raise InputError(
            f"{path}: row {raw['row'].iloc[first]}, image '{raw['image_id'].iloc[first]}': "
            f"{shown}; a box needs x1 < x2 and y1 < y2 inside the image, in pixels of the original"
        )
    changed = int((clipped != corners).any(axis=1).sum())
    if changed:
        notes.append(f"{changed} boxes reached beyond their image and were clipped.")
    rows = raw[["image_id", "finding", "score"]].copy()
    rows[EDGES] = clipped
    rows = rows.sort_values("score", ascending=False, kind="stable")
    rank = rows.groupby(["image_id", "finding"]).cumcount()
    kept = rows[(rank < MAX_BOXES) & (rows["score"] >= LEAST_SCORE)]
    if len(kept) < len(rows):
        notes.append(
            f"{len(rows) - len(kept)} boxes left out: below score {LEAST_SCORE}, or beyond the "
            f"{MAX_BOXES} most confident of an image."
        )
    return kept.sort_index()[["image_id", "finding", *EDGES, "score"]].reset_index(drop=True)


def _images(
    raw: pd.DataFrame, dataset: DataSet, split: str, unlisted_ran: bool, gives_boxes: bool
) -> pd.DataFrame:
    """Every image with a row, and every val and test image."""
    roles = dataset.split(split)
    judged = roles.loc[roles["role"].isin(["val", "test"]), "image_id"]
    listed = pd.Index(raw["image_id"].unique())
    every = _sorted_union(listed, judged)
    ran = np.ones(len(every), dtype=bool) if unlisted_ran else np.asarray(every.isin(listed))
    reason = "not listed in the file" if gives_boxes else "no score in the file"
    images = pd.DataFrame({"image_id": every, "status": np.where(ran, "ok", "failed")})
    images["reason"] = pd.Series([None if done else reason for done in ran], dtype=object)
    return images


def _sorted_union(first: Iterable[str], second: Iterable[str]) -> pd.Index:
    return pd.Index(sorted({*first, *second}), dtype="str")
