"""A predictions folder: what one system said of the images of one data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from cxr_compare.data_prep.base.errors import InputError, ShownAsText, counted
from cxr_compare.data_prep.base.files import (
    file_digest,
    folder_lock,
    make_folder,
)
from cxr_compare.data_prep.base.folders import (
    OpenedFromFolder,
    require_folder,
    require_writable,
)
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.provenance import MadeRecord
from cxr_compare.data_prep.base.recipe import Recipe
from cxr_compare.data_prep.base.records import Digests, Items, Record
from cxr_compare.data_prep.base.tables import (
    empty_table,
    read_table,
    require_members,
    write_table,
)

_KIND_OF_TABLE = {
    "predicted_images": "predicted_images",
    "scores": "scores",
    "boxes": "predicted_boxes",
    "maps": "maps",
}
SEEN_FILE = "seen.parquet"
"""File beside predictions: all images that were used to fit or select the system."""
_RECORD = "predictions.json"
_UNFINISHED = "unfinished.json"
_NOT_FINITE = "the network's output is not finite"


class MadeOn(Record):
    """Data set from which a run or predictions were made."""

    name: str
    content_id: str
    labels_id: str | None = None
    split: str | None = None
    split_id: str | None = None


class TrainingSet(Record):
    """A data set on which a model was trained, with the digest of its table of images."""

    name: str
    content_id: str


class PredictionsInfo(MadeRecord, kind="predictions"):
    """Content of ``predictions.json``, which marks a folder with predictions of one system."""

    system: str
    kind: Literal["boxes", "scores"]
    seed: int | None = None
    findings: Items[str] = ()
    classes: Items[str] = ()
    inference_id: str | None = None
    training_id: str | None = None
    backend: str | None = None
    run: str | None = None
    recipe: Recipe | None = None
    trained_on: Literal["unknown"] | Items[TrainingSet] = "unknown"
    seen_unknown: Items[str] = ()
    data_set: MadeOn | None = None
    cost: dict[str, Any] | None = None
    files: Digests = Field(default_factory=dict)


class UnfinishedPredictions(Record, kind="unfinished_predictions"):
    """``unfinished.json`` of a predictions folder that is not complete yet."""

    identity: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Predictions of a system for some images.

    Attributes:
        images: Table ``image_id, status, reason``, a row for each of these images.
        tables: By name, any of the tables ``scores``, ``boxes`` and ``maps``.
    """

    images: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]


def image_status(image_ids: Sequence[str], finite: Sequence[bool] | np.ndarray) -> pd.DataFrame:
    """Return `Part.images` for images of which a network gave a finite output, or failed."""
    return pd.DataFrame(
        {
            "image_id": list(image_ids),
            "status": ["ok" if is_finite else "failed" for is_finite in finite],
            "reason": [None if is_finite else _NOT_FINITE for is_finite in finite],
        }
    )


class PredictionWriter:
    """A context manager that writes the predictions of one system in groups of images.

    An interrupted folder is continued.

    Attributes:
        done: Ids of the images that have been written.
    """

    def __init__(self, folder: Path, info: PredictionsInfo) -> None:
        self.folder = Path(folder)
        self.info = info
        self.done: set[str] = set()
        self._files: dict[str, str] = {}

    def __enter__(self) -> PredictionWriter:
        if not self.info.system.strip():
            raise InputError(f"{self.folder}: the system has no name; give its name")
        require_writable(self.folder, "predictions")
        with ExitStack() as stack:
            stack.enter_context(folder_lock(self.folder))
            self._open()
            self._lock = stack.pop_all()
        return self

    def _open(self) -> None:
        made_on = self.info.data_set
        identity = {
            "kind": self.info.kind,
            "inference_id": self.info.inference_id,
            "data_set": None if made_on is None else made_on.to_json(),
        }
        unfinished = self.folder / _UNFINISHED
        if unfinished.is_file() and UnfinishedPredictions.read(unfinished).identity != identity:
            raise InputError(
                f"{self.folder}: was begun with another model, options or data set; remove it, or "
                "choose another folder"
            )
        UnfinishedPredictions(identity=identity).write(unfinished)
        for name in _KIND_OF_TABLE:
            make_folder(self.folder / f"{name}.parquet")
        parts = sorted(self.folder.glob("predicted_images.parquet/part-*.parquet"))
        self.done = {i for p in parts for i in read_table(p, "predicted_images")["image_id"]}
        self._next_part = len(parts)

    def add(self, images: pd.DataFrame, **tables: pd.DataFrame | None) -> None:
        """Write the predictions for one group of images."""
        # The images come last: a part counts as done only when all of it is on the disk.
        for name, table in (*tables.items(), ("predicted_images", images)):
            if table is not None:
                path = self.folder / f"{name}.parquet/part-{self._next_part:05d}.parquet"
                require_members(table["image_id"], images, path)
                write_table(table, path, _KIND_OF_TABLE[name])
        self.done |= set(images["image_id"])
        self._next_part += 1

    def add_seen(self, seen: pd.DataFrame) -> None:
        """Write the table of the images that were used to fit or select the system."""
        self._files[SEEN_FILE] = write_table(seen, self.folder / SEEN_FILE, "seen")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            if kind is None:
                parts = sorted(self.folder.glob("*.parquet/part-*.parquet"))
                digests = {p.relative_to(self.folder).as_posix(): file_digest(p) for p in parts}
                self.info.with_values(files=digests | self._files).write(self.folder / _RECORD)
                (self.folder / _UNFINISHED).unlink(missing_ok=True)


@dataclass(repr=False)
class Predictions(OpenedFromFolder, ShownAsText):
    """Complete predictions of one system (a model or a human reader) for a data set.

    Attributes:
        folder: The folder.
        info: Content of ``predictions.json``.
    """

    folder: Path
    info: PredictionsInfo

    @classmethod
    def open(cls, folder: str | Path) -> Predictions:
        """Open a folder of predictions that ``cxr predict`` made."""
        folder = Path(folder)
        require_folder(folder, "predictions")
        return cls(folder, PredictionsInfo.read(folder / _RECORD))

    def _parts(self, name: str) -> Iterator[pd.DataFrame]:
        """Yield the parts of a table, each with its rows as they were written."""
        stated = {self.folder / n for n in self.info.files if n.startswith(f"{name}.parquet/")}
        for path in sorted(stated.union(self.folder.glob(f"{name}.parquet/part-*.parquet"))):
            yield read_table(path, _KIND_OF_TABLE[name], self.info.files, self.folder)

    def _table(self, name: str) -> pd.DataFrame:
        return _joined(list(self._parts(name)), _KIND_OF_TABLE[name])

    @cached_property
    def images(self) -> pd.DataFrame:
        """All images that the system was run on: ``image_id, status, reason``."""
        return self._table("predicted_images")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Image scores; empty for a detector."""
        return self._table("scores")

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """Predicted boxes, px of the original image; empty for a classifier."""
        return self._table("boxes")

    @cached_property
    def maps(self) -> pd.DataFrame:
        """Activation maps; empty if the system makes none."""
        return self._table("maps")

    @property
    def name(self) -> str:
        """Name of the system for pages and sentences, such as ``RetinaNet``."""
        return self.info.system

    @property
    def kind(self) -> Literal["boxes", "scores"]:
        """``boxes`` of a detector, or ``scores`` of a classifier."""
        return self.info.kind

    @property
    def images_run(self) -> pd.Index:
        """Ids of the images for which the system gave an output."""
        is_ok = self.images["status"] == "ok"
        return pd.Index(self.images.loc[is_ok, "image_id"], name="image_id")

    @cached_property
    def seen(self) -> pd.DataFrame | None:
        """Table of the images that the system was trained or selected on, with their patients."""
        if SEEN_FILE not in self.info.files:
            return None
        return read_table(self.folder / SEEN_FILE, "seen", self.info.files)

    def rows(self, name: str, findings: Sequence[str], image_ids: pd.Index) -> pd.DataFrame:
        """Return the rows of a table of predictions for some findings and images."""
        chosen = []
        for part in self._parts(name):
            is_chosen = is_member(part["image_id"], image_ids)
            chosen.append(part[is_chosen & is_member(part["finding"], findings)])
        return _joined(chosen, _KIND_OF_TABLE[name])

    def __str__(self) -> str:
        rows = self.boxes if self.kind == "boxes" else self.scores
        images = counted(len(self.images_run), "image")
        return f"{self.name}: {len(rows):,} {self.kind} on {images}\nPredictions: {self.folder}"

    def __repr__(self) -> str:
        images = counted(len(self.images), "image")
        return f"<Predictions of '{self.name}': {self.kind} on {images}, {self.folder}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``predictions.json``, with the folder and the number of images."""
        return {"folder": str(self.folder), "images": len(self.images_run), **self.info.to_json()}


def _joined(parts: list[pd.DataFrame], kind: str) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else empty_table(kind)
