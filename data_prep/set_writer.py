"""The last step of every data set folder: its tables, splits and audit, then ``dataset.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.audit import audit
from data_prep.dataset import DataSet, Target, dataset_ids
from data_prep.draw_split import SplitRule, draw_split, write_split
from data_prep.folders import provenance
from data_prep.sources import SourceTables
from data_prep.tables import write_json, write_table


def write_set(
    out: Path,
    tables: SourceTables,
    decode: pd.DataFrame,
    *,
    name: str,
    rule: SplitRule,
    settings: Mapping[str, Any],
) -> None:
    """Write every file of a data set but its pixels; ``dataset.json`` comes last and completes it.

    Args:
        out: The data set folder, there and held by the caller.
        tables: Complete, as `data_prep.assemble.assemble` returns them.
        decode: The ``decode`` table.
        name: The data set's name.
        rule: How the default split is drawn.
        settings: What the set was made with, JSON-ready, to know it again.
    """
    contents = {
        "images": tables.images,
        "findings": tables.findings,
        "boxes": tables.boxes,
        "box_coverage": tables.box_coverage,
        "decode": decode,
        "excluded": tables.excluded,
    }
    for table, frame in contents.items():
        write_table(frame, out / f"{table}.parquet", table)
    split, how = draw_split(tables.images, tables.findings, decode, tables.split, rule)
    split_ids = {"default": write_split(out, "default", split, how)}
    ids = dataset_ids(tables.images, tables.findings, tables.boxes, tables.box_coverage)
    info = {
        "name": name,
        "source_format": tables.format,
        "source_root": str(tables.root.resolve()),
        "targets": tables.targets,
        "ids": {**ids, "split_ids": split_ids},
        "settings": dict(settings),
        "notes": list(tables.notes),
        **provenance(),
    }
    targets = {
        key: Target(key, tuple(spec["any_of"]), spec["display_name"])
        for key, spec in tables.targets.items()
    }
    audit(DataSet(out, info, targets)).write(out / "audit.json")
    write_json(out / "dataset.json", "dataset", info)
