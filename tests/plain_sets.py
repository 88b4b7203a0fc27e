"""Data sets of tables alone, for tests that need no image files."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cxr_compare.data_prep.base.ids import TEXT
from cxr_compare.data_prep.base.user_tables import read_text_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.sources.build import build
from cxr_compare.data_prep.sources.image_files import has_file
from cxr_compare.data_prep.sources.patients import add_patients
from cxr_compare.data_prep.sources.registry import FORMATS
from cxr_compare.data_prep.sources.source import Format, ReadOptions, Show, SourceTables
from cxr_compare.data_prep.sources.statements import BOX, Source
from cxr_compare.data_prep.sources.words import state_of_text
from cxr_compare.scripts.commands.prepare import prepare

EDGES = ["x1", "y1", "x2", "y2"]


def _read_plain(root: Path, options: ReadOptions, show: Show) -> SourceTables:
    """Read ``images.csv``, ``labels.csv`` and, if there is one, ``boxes.csv``."""
    source = Source("plain", root, options, show)
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
    statements.add_table(labels)
    if (root / "boxes.csv").exists():
        boxes = _with_reader(read_text_table(root / "boxes.csv", ("image_id", *EDGES)))
        boxes = boxes.astype(dict.fromkeys(EDGES, "float64")).rename(
            columns=dict(zip(EDGES, BOX, strict=True))
        )
        statements.add_table(boxes.assign(state="present", origin="boxes"))
    return build(source, coverage="localised")


def _with_reader(table: pd.DataFrame) -> pd.DataFrame:
    return table if "reader" in table else table.assign(reader="reference")


_PLAIN = Format(
    name="plain",
    title="tables of a test",
    folder="`images.csv` and `labels.csv`",
    detect=has_file("images.csv", Path.is_file),
    read=_read_plain,
    options=("reference",),
)


def prepare_plain(source: Path, out: Path, **options: Any) -> DataSet:
    """Prepare a source of `images.csv` and `labels.csv`, whose images need no files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, "plain", _PLAIN)
        return prepare(source, out, format="plain", **{"workers": 0, **options})
