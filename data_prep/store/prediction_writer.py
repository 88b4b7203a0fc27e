"""Writing of a predictions folder in parts.

Memory therefore stays bounded, and an interrupted call can continue. ``predictions.json`` is
written last and marks the folder as complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import LOCK_NAME, folder_lock
from cxr_compare.data_prep.contracts.output_folders import require_only_files, require_same_settings
from cxr_compare.data_prep.contracts.tables import read_table, write_table
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo, UnfinishedPredictions
from cxr_compare.data_prep.work.shards import Shard, ShardedWork

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

    def with_findings(self, names: Mapping[str, str] | None) -> Part:
        """Return a copy with the predictions of some findings only, under new names.

        `names` has the new name by the present one; other findings are dropped. None keeps all.
        """
        if names is None:
            return self
        tables = {}
        for name, table in self.tables.items():
            rows = table[table["finding"].isin(list(names))]
            tables[name] = rows.assign(finding=rows["finding"].map(dict(names)))
        return Part(self.images, tables)

    def without(self, table: str) -> Part:
        """Return a copy without one of its tables: ``scores``, ``boxes`` or ``maps``."""
        tables = {name: rows for name, rows in self.tables.items() if name != table}
        return Part(self.images, tables)


def concat_parts(parts: Sequence[Part]) -> Part:
    """Join the predictions of one system for several groups of images, in their order.

    There is one part or more, and all have the same tables.
    """
    tables = {
        name: pd.concat([part.tables[name] for part in parts], ignore_index=True)
        for name in parts[0].tables
    }
    return Part(pd.concat([part.images for part in parts], ignore_index=True), tables)


def split_part(part: Part, size: int) -> Iterator[Part]:
    """Yield the predictions of each `size` images of a part, in order."""
    ids = pd.Index(part.images["image_id"])
    batches = {name: ids.get_indexer(t["image_id"]) // size for name, t in part.tables.items()}
    for number in range(-(-len(ids) // size)):
        tables = {
            name: table[batches[name] == number].reset_index(drop=True)
            for name, table in part.tables.items()
        }
        images = part.images.iloc[number * size : (number + 1) * size].reset_index(drop=True)
        yield Part(images, tables)


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

    def __init__(
        self,
        folder: Path,
        info: PredictionsInfo,
        share: tuple[ShardedWork, Shard] | None = None,
    ) -> None:
        """Prepare a writer; entering the context opens the folder, which is new or unfinished.

        `info` becomes ``predictions.json``, which is written last. If the folder is that of a
        shard, `share` has its work and shard: the record of the shard then marks the folder as
        complete, and no ``predictions.json`` is written.
        """
        self.folder = Path(folder)
        self._share = share
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
        if self._share is not None:
            work, shard = self._share
            work.begin(self.folder, shard)
        elif any(self.folder.glob("*_shard.json")):
            raise InputError(f"{self.folder}: holds a shard of predictions; choose another folder")
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
            if kind is None and self._share is not None:
                work, shard = self._share
                work.end(self.folder, shard, self.files)
            elif kind is None:
                self.info.with_values(files=self.files).write(self.folder / _RECORD)
                (self.folder / _UNFINISHED_RECORD).unlink(missing_ok=True)

    def _add_earlier_parts(self) -> None:
        """Add the digests of the parts that an interrupted process wrote."""
        for name in PREDICTION_SCHEMAS:
            for path in (self.folder / f"{name}.parquet").glob("part-*.parquet"):
                part = f"{name}.parquet/{path.name}"
                if part not in self.files:
                    self.files[part] = file_digest(path, "sha256")


def read_parts(folder: Path, files: Mapping[str, str]) -> Iterator[Part]:
    """Read the parts of a predictions folder, one after another, as they were added.

    `files` has the SHA-256 digests of the parts of its tables, as its record states them.
    """
    for number in sorted(_part_numbers(folder / "predicted_images.parquet")):
        tables = {}
        for name, schema in PREDICTION_SCHEMAS.items():
            path = folder / f"{name}.parquet" / f"part-{number:05d}.parquet"
            if path.is_file():
                tables[name] = read_table(path, schema, files=files)
        yield Part(tables.pop("predicted_images"), tables)


def _part_numbers(folder: Path) -> list[int]:
    numbers = []
    for path in folder.glob("part-*.parquet"):
        match = re.fullmatch(r"part-(\d+)\.parquet", path.name)
        if match:
            numbers.append(int(match[1]))
    return numbers


def remove_prediction_leftovers(folder: Path) -> None:
    """Remove temporary files from a folder of complete predictions.

    A process leaves them if it is killed just after its predictions were made. Call the function
    for a folder that is used without a `PredictionWriter`. Nothing happens while another process
    writes there, or if the predictions are not complete.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for file in ("predictions.json", "unfinished.json", ".lock"):
        ...         _ = Path(name, file).write_text("")
        ...     remove_prediction_leftovers(Path(name))
        ...     [path.name for path in Path(name).iterdir()]
        ['predictions.json']
    """
    left = (folder / LOCK_NAME, folder / _UNFINISHED_RECORD)
    if (folder / _RECORD).is_file() and any(path.is_file() for path in left):
        with suppress(InputError, OSError), folder_lock(folder):
            (folder / _UNFINISHED_RECORD).unlink(missing_ok=True)


def is_predictions_folder(folder: Path) -> bool:
    """Return True if a folder, which need not exist, holds predictions, complete or unfinished."""
    return any((folder / name).is_file() for name in (_RECORD, _UNFINISHED_RECORD))
