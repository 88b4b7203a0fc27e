"""A predictions folder: what one system said about the images of one data set.

Written in parts, so that memory stays bounded and an interrupted run resumes; `predictions.json`
comes last and marks the folder complete.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.notebook import html_lines
from cxr_compare.data_prep.contracts.output_folders import read_matching_record, require_only_files
from cxr_compare.data_prep.contracts.tables import (
    empty_table,
    read_table,
    require_members,
    stored_table,
    typed_table,
    write_table,
)
from cxr_compare.data_prep.store.folder_kinds import require_kind
from cxr_compare.data_prep.work.local_copies import local_folder

# Folder of parts -> the table that each part holds.
_TABLES = {
    "predicted_images": "predicted_images",
    "scores": "scores",
    "boxes": "predicted_boxes",
    "maps": "maps",
}
SEEN_FILE = "seen.parquet"
"""Beside predictions: every image used to fit or to select, with its patient and role."""
_UNFINISHED = "unfinished.json"
_NOT_FINITE = "the network's output is not finite"


@dataclass(frozen=True)
class Part:
    """Predictions of some images: the arguments of `PredictionWriter.add`."""

    images: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]

    def named(self, names: Mapping[str, str] | None) -> Part:
        """Only the findings that a model answers for, under their names there; None: all."""
        if names is None:
            return self
        tables = {}
        for name, table in self.tables.items():
            kept = table[table["finding"].isin(list(names))]
            tables[name] = kept.assign(finding=kept["finding"].map(dict(names)))
        return Part(self.images, tables)


def joined_parts(parts: Sequence[Part]) -> Part:
    """Several parts as one, of which each has the same tables."""
    names = parts[0].tables
    tables = {n: pd.concat([p.tables[n] for p in parts], ignore_index=True) for n in names}
    return Part(pd.concat([p.images for p in parts], ignore_index=True), tables)


def image_status(image_ids: Sequence[str], finite: Sequence[bool] | np.ndarray) -> pd.DataFrame:
    """``image_id, status, reason``: an image whose output is not finite has failed."""
    return pd.DataFrame(
        {
            "image_id": list(image_ids),
            "status": ["ok" if ok else "failed" for ok in finite],
            "reason": [None if ok else _NOT_FINITE for ok in finite],
        }
    )


class PredictionWriter:
    """Write predictions part by part; use as a context manager.

    On a normal exit the folder is marked complete. After an interruption the parts stay, and a
    writer with the same ``inference_id`` and data goes on behind them: see `done`.
    """

    def __init__(self, folder: Path, info: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.info = dict(info)
        self.done: set[str] = set()

    def __enter__(self) -> PredictionWriter:
        if not str(self.info.get("system") or "").strip():
            raise InputError(f"{self.folder}: the system has no name; give one with --name")
        if not is_predictions_folder(self.folder):
            require_only_files(self.folder, (), "predictions folder")
        with ExitStack() as stack:
            stack.enter_context(folder_lock(self.folder))
            self._open()
            self._lock = stack.pop_all()
        return self

    def _open(self) -> None:
        if (self.folder / "predictions.json").is_file():
            raise InputError(
                f"{self.folder}: already holds complete predictions; choose another folder, or "
                "remove it to predict again"
            )
        identity = {key: self.info.get(key) for key in ("kind", "inference_id", "data_set")}
        kind = "unfinished_predictions"
        begun = read_matching_record(
            self.folder,
            {_UNFINISHED: kind},
            identity,
            stored_settings=lambda record: record["identity"],
            refusal=lambda key, was, now: (
                f"was begun with another {key}; remove it, or choose another folder"
            ),
        )
        if begun is None:
            write_json(self.folder / _UNFINISHED, kind, {"identity": identity})
        for name in _TABLES:
            make_folder(self.folder / f"{name}.parquet")
        images = read_table(self.folder / "predicted_images.parquet", "predicted_images")
        self.done = set(images["image_id"])
        parts = (self.folder / "predicted_images.parquet").glob("part-*.parquet")
        names = (re.fullmatch(r"part-(\d+)\.parquet", path.name) for path in parts)
        self._next = 1 + max((int(name[1]) for name in names if name), default=-1)

    def add(self, images: pd.DataFrame, **tables: pd.DataFrame | None) -> None:
        """Write one part: its images, and those of ``scores``, ``boxes`` and ``maps`` it has."""
        # The images come last: a part counts as done only when all of it is on the disk.
        for name, frame in (*tables.items(), ("predicted_images", images)):
            if frame is not None:
                path = self.folder / f"{name}.parquet" / f"part-{self._next:05d}.parquet"
                write_table(frame, path, _TABLES[name])
        self.done |= set(images["image_id"])
        self._next += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if kind is None:
                write_json(self.folder / "predictions.json", "predictions", self.info)
                (self.folder / _UNFINISHED).unlink(missing_ok=True)


def is_predictions_folder(folder: Path) -> bool:
    """Whether a folder holds predictions, complete or begun."""
    return any((folder / name).is_file() for name in ("predictions.json", _UNFINISHED))


@dataclass
class Predictions:
    """A complete predictions folder, read lazily.

    Example:
        >>> Predictions.open("no-such-folder")
        Traceback (most recent call last):
        ...
        cxr_compare...WrongFolderError: no-such-folder: no such folder; ...
    """

    folder: Path
    info: dict[str, Any]
    # Tables in memory, by name: only of predictions that no folder holds.
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: str | Path) -> Predictions:
        """Open a folder of ``cxr predict`` or ``cxr import``; `InputError` for another."""
        folder = local_folder(folder)
        require_kind(folder, "predictions")
        return cls(folder, read_json(folder / "predictions.json", "predictions"))

    def _repr_html_(self) -> str:
        return html_lines(str(self))

    def __repr__(self) -> str:
        of = f"'{self.name}': {self.kind} on {counted(len(self.images), 'image')}"
        return f"<Predictions of {of}, {self.folder}>"

    def __str__(self) -> str:
        rows = self.boxes if self.kind == "boxes" else self.scores
        joined = self.info["cost"].get("made_of") if self.info.get("cost") else None
        made_of = f"{joined}; " if joined else ""
        ran = counted(len(self.images_run), "image")
        return (
            f"{self.name}: {made_of}{len(rows):,} {self.kind} on {ran}\nPredictions: {self.folder}"
        )

    def to_dict(self) -> dict[str, Any]:
        """What ``predictions.json`` says, the folder, and how many images ran."""
        return {"folder": str(self.folder), "images": len(self.images_run), **self.info}

    @property
    def name(self) -> str:
        """The system's display name."""
        return str(self.info["system"])

    @property
    def kind(self) -> str:
        """``boxes`` for a detector, ``scores`` for a classifier or a reader."""
        return str(self.info["kind"])

    images = stored_table("predicted_images.parquet", "predicted_images")
    """Every image that was tried: ``image_id, status, reason``."""
    scores = stored_table("scores.parquet", "scores")
    """Image scores; empty for a detector."""
    boxes = stored_table("boxes.parquet", "predicted_boxes")
    """Predicted boxes, original pixels; empty for a classifier."""
    maps = stored_table("maps.parquet", "maps")
    """Activation maps; empty where the system has none."""

    @property
    def seen(self) -> pd.DataFrame | None:
        """Every image that was used to fit or to select the system, where that is recorded."""
        if self.tables:
            return None
        path = self.folder / SEEN_FILE
        return read_table(path, "seen") if path.is_file() else None

    def rows(self, name: str, findings: Sequence[str], image_ids: pd.Index) -> pd.DataFrame:
        """Rows of ``scores``, ``boxes`` or ``maps``, part by part, of these findings and images."""
        if self.tables:
            held = self.tables[name]
            wanted = is_member(held["image_id"], image_ids) & is_member(held["finding"], findings)
            return held[wanted].reset_index(drop=True)
        path = self.folder / f"{name}.parquet"
        parts = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
        kept, ids = [], []
        for part in parts or [path]:  # a folder without parts reads as an empty table
            rows = read_table(part, _TABLES[name])
            ids.append(rows["image_id"].drop_duplicates())
            of_image = is_member(rows["image_id"], image_ids)
            kept.append(rows[of_image & is_member(rows["finding"], findings)])
        require_members(pd.concat(ids), self.images, path)
        return pd.concat(kept, ignore_index=True)

    @property
    def images_run(self) -> pd.Index:
        """Ids of the images on which the system ran without failing."""
        images = self.images
        return pd.Index(images.loc[images["status"] == "ok", "image_id"], name="image_id")

    @classmethod
    def in_memory(cls, info: dict[str, Any], part: Part) -> Predictions:
        """Predictions that no folder holds."""
        given = {"predicted_images": part.images, **part.tables}
        tables = {
            name: typed_table(given[name], schema) if name in given else empty_table(schema)
            for name, schema in _TABLES.items()
        }
        return cls(Path(info["system"]), info, tables)

    def _decision_path(self, target: str) -> Path:
        return self.folder / "decisions" / f"{target}.json"

    def decision(self, target: str) -> dict[str, Any] | None:
        """What ``cxr tune`` chose for a target, or None before that."""
        path = self._decision_path(target)
        return read_json(path, "decision") if not self.tables and path.is_file() else None

    def write_decision(self, target: str, payload: dict[str, Any]) -> Path:
        """Store what was chosen for a target; returns the file."""
        path = self._decision_path(target)
        make_folder(path.parent)
        write_json(path, "decision", payload)
        return path
