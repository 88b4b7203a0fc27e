"""Data sets of tables alone, for tests that need no image files."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.table import tables_from_image_rows
from cxr_compare.data_prep.sources.image_files import has_match
from cxr_compare.data_prep.sources.label_values import STATE_OF_TEXT
from cxr_compare.data_prep.sources.registry import FORMATS
from cxr_compare.data_prep.sources.source_tables import Format, SourceBuilder, SourceTables
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.scripts.commands.prepare import prepare

EDGES = ["x1", "y1", "x2", "y2"]


def _read_plain(builder: SourceBuilder) -> SourceTables:
    """Read ``images.csv``, ``labels.csv`` and, if there is one, ``boxes.csv``."""
    path = builder.root / "images.csv"
    images = read_text_table(path, ("image_id",), ("patient_id", "path"))
    labels = _with_reader(read_text_table(builder.root / "labels.csv", ("image_id", "finding")))
    labels["state"] = labels["state"].str.lower().map(STATE_OF_TEXT).astype(TEXT)
    labels["origin"] = (labels["reader"] == "reference").map({True: "unknown", False: "reader"})
    boxes = empty_table("boxes")
    if (builder.root / "boxes.csv").exists():
        boxes = _with_reader(read_text_table(builder.root / "boxes.csv", ("image_id", *EDGES)))
        boxes = boxes.astype(dict.fromkeys(EDGES, "float64"))
    return tables_from_image_rows(builder, images, labels, boxes, path)


def _with_reader(table: pd.DataFrame) -> pd.DataFrame:
    return table if "reader" in table else table.assign(reader="reference")


_PLAIN = Format(
    name="plain",
    title="tables of a test",
    folder="`images.csv` and `labels.csv`",
    detect=has_match("images.csv"),
    read=_read_plain,
    options=("reference",),
)


def prepare_plain(source: Path, out: Path, **options: Any) -> DataSet:
    """Prepare a source of `images.csv` and `labels.csv`, whose images need no files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, "plain", _PLAIN)
        return prepare(source, out, format="plain", **{"workers": 0, **options})
