"""Files, records, tables, keys and squares below the folders: the one place that names them."""

from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from cxr_compare import DataSet
from cxr_compare.data_prep.base.files import (
    atomic_path,
    folder_lock,
    make_folder,
    path_lock,
    write_text,
)
from cxr_compare.data_prep.base.provenance import provenance
from cxr_compare.data_prep.base.pseudonyms import hide_ids, hide_names, hide_paths, read_id_key
from cxr_compare.data_prep.base.records import Items, Record
from cxr_compare.data_prep.base.tables import frame_digest, read_table, write_table
from cxr_compare.data_prep.pixels import ImageFile, PixelStore
from cxr_compare.data_prep.predictions import MadeOn, PredictionsInfo, PredictionWriter
from cxr_compare.data_prep.preprocess import Preprocess, letterbox

__all__ = [
    "ImageFile",
    "PredictionWriter",
    "Preprocess",
    "atomic_path",
    "bench",
    "folder_lock",
    "frame_digest",
    "hidden",
    "hide_names",
    "letterbox",
    "make_folder",
    "path_lock",
    "predictions_info",
    "provenance",
    "read_id_key",
    "read_table",
    "store_of",
    "write_table",
    "write_text",
]


class Part(Record):
    """A part of a record of the tests."""

    names: Items[str] = ()
    share: float | None = None


class Bench(Record, kind="bench"):
    """A record of the tests."""

    n: int
    parts: dict[str, Part] = Field(default_factory=dict)
    facts: dict[str, Any] = Field(default_factory=dict)


class Other(Record, kind="other"):
    """A record of another kind."""


def bench(**values):
    """The classes of two records, and a record of the first."""
    return Bench, Other, Bench(**values)


def hidden(table: pd.DataFrame, key: bytes) -> pd.DataFrame:
    """A table with ids and paths hidden."""
    table = hide_ids(table, key)
    return hide_paths(table, key) if "path" in table else table


def predictions_info(model: str = "m") -> PredictionsInfo:
    """The record of a classifier's predictions."""
    made_on = MadeOn(name="set", content_id="c")
    return PredictionsInfo(system="X", kind="scores", inference_id=model, data_set=made_on)


def store_of(folder: Path, size: int) -> PixelStore:
    """The squares of a data set folder."""
    return DataSet.open(folder).store(size)
