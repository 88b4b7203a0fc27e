"""Writing of a predictions folder in parts.

Memory therefore stays bounded, and an interrupted call can continue. ``predictions.json`` is
written last and marks the folder as complete.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.output_folders import require_only_files, require_same_settings
from cxr_compare.data_prep.contracts.tables import read_table, write_table
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo, UnfinishedPredictions

PREDICTION_SCHEMAS = {
    "predicted_images": "predicted_images",
    "scores": "scores",
    "boxes": "predicted_boxes",
    "maps": "maps",
}
"""Schema of each table of a predictions folder, by the name of the table."""
_RECORD = "predictions.json"
_UNFINISHED_RECORD = "unfinished.json"
_NOT_FINITE = "the network's output is not finite"


@dataclass(frozen=True)
class Part:
    """Predictions of a system for some of the images of a data set.

    A `PredictionWriter` writes one such object after another.

    Attributes:
        images: Table with columns ``image_id``, ``status`` (``ok`` or ``failed``) and ``reason``
            (why the image failed, else missing), one row for each of these images.
        tables: By name, any of the tables ``scores`` (of images), ``boxes`` and ``maps``
            (activation maps).
    """

    images: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]


def concat_parts(parts: Sequence[Part]) -> Part:
    """Join the predictions of one system for several groups of images, in their order.

    There is one part or more, and all have the same tables.
    """
    tables = {
        name: pd.concat([part.tables[name] for part in parts], ignore_index=True)
        for name in parts[0].tables
    }
    return Part(pd.concat([part.images for part in parts], ignore_index=True), tables)


def image_status(image_ids: Sequence[str], finite: Sequence[bool] | np.ndarray) -> pd.DataFrame:
    """Return `Part.images` for images of which a network gave a finite output, or failed.

    Example:
        >>> image_status(["a", "b"], [True, False])["status"].tolist()
        ['ok', 'failed']
    """
    return pd.DataFrame(
        {
            "image_id": list(image_ids),
            "status": ["ok" if is_finite else "failed" for is_finite in finite],
            "reason": [None if is_finite else _NOT_FINITE for is_finite in finite],
        }
    )


class PredictionWriter:
    """A context manager that writes the predictions of one system in groups of images.

    A system is a model or a human reader. A normal end of the ``with`` block marks the folder as
    complete. After an interruption the written groups stay. A new writer continues if its `info`
    has the same data set and the same ``inference_id`` (digest of the model and its settings). Its
    attribute `done` holds the ids of the images that are finished.
    """

    def __init__(self, folder: Path, info: PredictionsInfo) -> None:
        """Prepare a writer; entering the context opens the folder, which is new or unfinished.

        `info` becomes ``predictions.json``, which is written last.
        """
        self.folder = Path(folder)
        self.info = info
        self.files: dict[str, str] = {}  # SHA-256 of each table that this process has written
        self.done: set[str] = set()  # ids of the images that have been written

    def __enter__(self) -> PredictionWriter:
        if not self.info.system.strip():
            raise InputError(f"{self.folder}: the system has no name; give one with --name")
        if not is_predictions_folder(self.folder):
            require_only_files(self.folder, (), "predictions folder")
        with ExitStack() as stack:
            stack.enter_context(folder_lock(self.folder))
            self._open()
            self._lock = stack.pop_all()
        return self

    def _open(self) -> None:
        if (self.folder / _RECORD).is_file():
            (self.folder / _UNFINISHED_RECORD).unlink(missing_ok=True)  # a killed process left it
            raise InputError(
                f"{self.folder}: already holds complete predictions; choose another folder, or "
                "remove it to predict again"
            )
        made_on = self.info.data_set
        identity = {
            "kind": self.info.kind,
            "inference_id": self.info.inference_id,
            "data_set": None if made_on is None else made_on.to_json(),
        }
        unfinished = self.folder / _UNFINISHED_RECORD
        if unfinished.is_file():
            stored = UnfinishedPredictions.read(unfinished).identity
            advice = "remove it, or choose another folder"
            require_same_settings(self.folder, stored, identity, advice)
        else:
            UnfinishedPredictions(identity=identity).write(unfinished)
        for name in PREDICTION_SCHEMAS:
            make_folder(self.folder / f"{name}.parquet")
        images_folder = self.folder / "predicted_images.parquet"
        self.done = set(read_table(images_folder, "predicted_images")["image_id"])
        self._next_part = 1 + max(_part_numbers(images_folder), default=-1)

    def add(self, images: pd.DataFrame, **tables: pd.DataFrame | None) -> None:
        """Write the predictions for one group of images.

        `images` and the tables, by name, are as in `Part`; None is a table that the system does
        not predict. A table that breaks a rule of its schema is refused.
        """
        # The images come last: a part counts as done only when all of it is on the disk.
        for name, table in (*tables.items(), ("predicted_images", images)):
            if table is not None:
                part = f"{name}.parquet/part-{self._next_part:05d}.parquet"
                path = self.folder / part
                self.files[part] = write_table(table, path, PREDICTION_SCHEMAS[name])
        self.done |= set(images["image_id"])
        self._next_part += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if kind is None:
                self._add_earlier_parts()
                self.info.with_values(files=self.files).write(self.folder / _RECORD)
                (self.folder / _UNFINISHED_RECORD).unlink(missing_ok=True)

    def _add_earlier_parts(self) -> None:
        """Add the digests of the parts that an interrupted process wrote."""
        for name in PREDICTION_SCHEMAS:
            for path in (self.folder / f"{name}.parquet").glob("part-*.parquet"):
                part = f"{name}.parquet/{path.name}"
                if part not in self.files:
                    self.files[part] = file_digest(path, "sha256")


def _part_numbers(folder: Path) -> list[int]:
    numbers = []
    for path in folder.glob("part-*.parquet"):
        match = re.fullmatch(r"part-(\d+)\.parquet", path.name)
        if match:
            numbers.append(int(match[1]))
    return numbers


def is_predictions_folder(folder: Path) -> bool:
    """Return True if a folder, which need not exist, holds predictions, complete or unfinished."""
    return any((folder / name).is_file() for name in (_RECORD, _UNFINISHED_RECORD))
