"""Data sets of tables alone, and predictions on them, written without a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.predictions import MadeOn, PredictionsInfo, PredictionWriter
from tests.plain_sets import prepare_plain
from tests.stored_json import put_table


def write_source(
    source: Path, ids: Sequence[str], states: Mapping[str, Sequence[Any]], **columns: Any
) -> Path:
    """A source in CSV: the states of each finding, and other columns of its images."""
    source.mkdir(parents=True)
    images = pd.DataFrame({"image_id": ids, "patient_id": ids} | columns)
    images.to_csv(source / "images.csv", index=False)
    parts = [
        pd.DataFrame({"image_id": ids, "finding": finding, "state": state})
        for finding, state in states.items()
    ]
    pd.concat(parts).to_csv(source / "labels.csv", index=False)
    return source


def table_set(
    folder: Path, ids: Sequence[str], states: Mapping[str, Sequence[Any]], **columns: Any
) -> Path:
    """A data set without pixels of `write_source`, in ``folder / "data"``."""
    write_source(folder / "source", ids, states, **columns)
    prepare_plain(folder / "source", folder / "data")
    return folder / "data"


def prepare_tables(source: Path, out: Path, **options: Any) -> DataSet:
    """The data set of `write_source`, also with images at the column ``path``."""
    return prepare_plain(source, out, **options)


def write_predictions(
    folder: Path,
    data: Path,
    ids: Sequence[str],
    system: str = "Reader",
    *,
    split: str | None = None,
    **options: Any,
) -> Path:
    """Predictions that succeeded; tables (``scores``, ``boxes``) and facts as keywords."""
    tables = {name: options.pop(name) for name in ("scores", "boxes") if name in options}
    (kind,) = tables
    made_on = MadeOn(name="set", content_id=DataSet.open(data).ids.content_id, split=split)
    facts = {"system": system, "kind": kind, "inference_id": folder.name, "data_set": made_on}
    with PredictionWriter(folder, PredictionsInfo(**facts | options)) as writer:
        writer.add(pd.DataFrame({"image_id": ids, "status": "ok", "reason": None}), **tables)
    return folder


def put_roles(data: Path, name: str, roles: pd.Series) -> None:
    """Write other roles into a split without a check, as damage or another program would."""
    table = DataSet.open(data).split(name)
    changed = table.assign(role=roles.reindex(table["image_id"]).to_numpy())
    put_table(changed, data / "splits" / f"{name}.parquet", "split")
