"""Begin and finish a data set folder: whether it is ours, then its files, the JSON last."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.audit import audit
from data_prep.dataset import DataSet, Target, dataset_ids
from data_prep.draw_split import SplitRule, draw_split, write_split
from data_prep.folders import make_folder, provenance
from data_prep.sources import SourceTables
from data_prep.tables import InputError, read_json, write_json, write_table

_WORK, _SETTINGS = ".prepare", "settings.json"


def is_complete(out: Path, settings: dict[str, Any]) -> bool:
    """Whether a folder holds a data set, complete; False for one to begin or go on with.

    Args:
        out: The data set folder, which need not exist.
        settings: What the set is made with, as for `begin_set`.

    Raises:
        InputError: It holds something else, or was made with other settings.
    """
    for path, kind in ((out / "dataset.json", "dataset"), (out / _WORK / _SETTINGS, "settings")):
        if path.is_file():
            _require_same(out, read_json(path, kind)["settings"], settings)
            return kind == "dataset"
    if out.is_dir() and any(p.name not in (".lock", _WORK) for p in out.iterdir()):
        raise InputError(f"{out}: not empty and not a data set of ours; choose a new folder")
    return False


def _require_same(out: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key, value in wanted.items():
        if found.get(key) == value:
            continue
        if key == "source_id":
            raise InputError(
                f"{out}: the source has changed since this folder was made; prepare a new folder"
            )
        advice = "" if key.startswith("source") else ", or draw another split with cxr split"
        raise InputError(
            f"{out}: made with {key}={found.get(key)!r}, asked for {value!r}; choose a new "
            f"folder{advice}"
        )


def begin_set(out: Path, settings: dict[str, Any]) -> Path:
    """Mark a folder as a data set in the making, so that the same call may go on with it.

    Args:
        out: The data set folder, there and held by the caller.
        settings: What the set is made with, JSON-ready, to know it again.

    Returns:
        A folder in it for unfinished work; `write_set` removes it.
    """
    work = make_folder(out / _WORK)
    write_json(work / _SETTINGS, "settings", {"settings": settings})
    return work


def write_set(
    out: Path,
    tables: SourceTables,
    decode: pd.DataFrame,
    *,
    name: str,
    rule: SplitRule,
    settings: dict[str, Any],
) -> None:
    """Write every file of a data set but its pixels; ``dataset.json`` comes last and completes it.

    Args:
        out: The data set folder, there and held by the caller.
        tables: Complete, as `data_prep.assemble.assemble` returns them.
        decode: The ``decode`` table.
        name: The data set's name.
        rule: How the default split is drawn.
        settings: As for `begin_set`.
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
        "settings": settings,
        "notes": list(tables.notes),
        **provenance(),
    }
    targets = {
        key: Target(key, tuple(spec["any_of"]), spec["display_name"])
        for key, spec in tables.targets.items()
    }
    audit(DataSet(out, info, targets)).write(out / "audit.json")
    write_json(out / "dataset.json", "dataset", info)
    shutil.rmtree(out / _WORK, ignore_errors=True)
