"""Data sets of tables alone, tables put into finished folders, and predictions without a model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cxr_compare.commands.prepare import prepare
from cxr_compare.data_prep.base.boxes import NUMBERS
from cxr_compare.data_prep.base.ids import TEXT
from cxr_compare.data_prep.base.tables import KINDS, write_table
from cxr_compare.data_prep.base.user_tables import read_text_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.predictions import MadeOn, PredictionsInfo, PredictionWriter
from cxr_compare.data_prep.sources.build import build
from cxr_compare.data_prep.sources.image_files import has_file
from cxr_compare.data_prep.sources.patients import add_patients
from cxr_compare.data_prep.sources.registry import FORMATS
from cxr_compare.data_prep.sources.source import Format, SourceTables
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.words import state_of_text
from cxr_compare.data_prep.splits import SplitInfo, SplitOrigin
from cxr_compare.evaluation.report import data_page
from tests.adapters.folders import name_files

EDGES = ["x1", "y1", "x2", "y2"]


def _read_plain(source: Source) -> SourceTables:
    """Read ``images.csv``, ``labels.csv`` and, if there is one, ``boxes.csv``."""
    root = source.root
    images = read_text_table(root / "images.csv", ("image_id",), ("patient_id", "path"))
    images = images.where(images != "", None).assign(source=root.name).reset_index(drop=True)
    for column in {"height", "width", "age_years"} & set(images):
        images[column] = images[column].astype("float64")
    if "split" in images:
        source.split = images[["image_id", "split"]].rename(columns={"split": "role"})
    source.images = images.drop(columns="split", errors="ignore")
    add_patients(source, root.name)
    statements = source.statements
    labels = _with_reader(read_text_table(root / "labels.csv", ("image_id", "finding")))
    labels["state"] = labels["state"].str.lower().map(state_of_text()).astype(TEXT)
    labels["origin"] = (labels["reader"] == "reference").map({True: "unknown", False: "reader"})
    statements.append(labels)
    if (root / "boxes.csv").exists():
        boxes = _with_reader(read_text_table(root / "boxes.csv", ("image_id", *EDGES)))
        boxes = boxes.astype(dict.fromkeys(EDGES, "float64")).rename(
            columns=dict(zip(EDGES, NUMBERS, strict=True))
        )
        statements.append(boxes.assign(state="present", origin="boxes"))
    return build(source, coverage="localised")


def _with_reader(table: pd.DataFrame) -> pd.DataFrame:
    return table if "reader" in table else table.assign(reader="reference")


_PLAIN = Format(
    name="plain",
    title="tables of a test",
    folder="`images.csv` and `labels.csv`",
    detect=has_file("images.csv", Path.is_file),
    reader=_read_plain,
    options=("reference",),
)


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
    prepare_tables(folder / "source", folder / "data")
    return folder / "data"


@contextmanager
def data_page_only_if(asked: bool) -> Iterator[pytest.MonkeyPatch]:
    """Data sets without their page, a third of the work, unless a test asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        if not asked:
            patch.setattr(data_page, "write_data_page", lambda *_, **__: None)
        yield patch


def prepare_tables(source: Path, out: Path, *, page: bool = False, **options: Any) -> DataSet:
    """The data set of `write_source`, also with images at the column ``path``."""
    with data_page_only_if(page) as patch:
        patch.setitem(FORMATS, "plain", _PLAIN)
        return prepare(source, out, format="plain", **{"workers": 0, **options})


def write_predictions(
    folder: Path,
    data: Path,
    ids: Sequence[str],
    system: str = "Reader",
    *,
    split: str | None = None,
    **options: Any,
) -> Path:
    """Predictions that succeeded; tables (``scores``, ``boxes``) and facts as keywords.

    `learned` are the images of the training, each of a patient of its own.
    """
    learned = options.pop("learned", None)
    tables = {name: options.pop(name) for name in ("scores", "boxes") if name in options}
    (kind,) = tables
    made_on = MadeOn(name="set", content_id=DataSet.open(data).ids.content_id, split=split)
    facts = {"system": system, "kind": kind, "inference_id": folder.name, "data_set": made_on}
    with PredictionWriter(folder, PredictionsInfo(**facts | options)) as writer:
        writer.add(pd.DataFrame({"image_id": ids, "status": "ok", "reason": None}), **tables)
        if learned is not None:
            seen = pd.DataFrame({"image_id": learned, "patient_id": learned, "role": "train"})
            writer.add_seen(seen.reindex(columns=[*KINDS["seen"].columns]))
    return folder


def put_roles(data: Path, name: str, roles: pd.Series) -> None:
    """Write other roles into a split without a check, as damage or another program would."""
    table = DataSet.open(data).split(name)
    changed = table.assign(role=roles.reindex(table["image_id"]).to_numpy())
    put_table(changed, data / "splits" / f"{name}.parquet", "split")


def bind_tables(folder: Path) -> None:
    """Name the tables of a folder in its record, as if its command had written them."""
    for table in folder.glob("splits/*.parquet"):
        record = table.with_suffix(".json")
        if not record.is_file():
            SplitInfo(how=SplitOrigin(method="by patient, by hand")).write(record)
    name_files(folder)


def put_table(frame: pd.DataFrame, path: Path, name: str) -> None:
    """Write a table into a folder, and name it in the record of the folder."""
    write_table(frame, path, name)
    bind_tables(path.parent)
    bind_tables(path.parent.parent)
