"""Writing of a data set folder; ``dataset.json`` is written last and marks it as complete."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.audit.audit import MeasureShortcuts, audit
from cxr_compare.data_prep.audit.page import write_audit
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.locks import LOCK_NAME
from cxr_compare.data_prep.contracts.output_folders import require_same_settings
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.records import Record
from cxr_compare.data_prep.contracts.tables import read_table, write_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.duplicates.dataset_copies import find_dataset_copies
from cxr_compare.data_prep.sources.source_tables import SourceTables
from cxr_compare.data_prep.splits.balance import image_strata
from cxr_compare.data_prep.splits.split import SplitRule, draw_split, extend_split, official_split
from cxr_compare.data_prep.splits.stored_splits import image_links, write_split
from cxr_compare.data_prep.store.build_pixel_store import WORK_FOLDER
from cxr_compare.data_prep.store.dataset_info import DataSetInfo, SplitInfo, SplitOrigin
from cxr_compare.data_prep.store.decode_writer import JOURNAL
from cxr_compare.data_prep.work.map_images import Workers

SplitAndOrigin = tuple[pd.DataFrame, SplitOrigin]
"""A split table and how it was made."""


class _Settings(Record, kind="settings"):
    """``settings.json`` of a data set folder that is not complete yet."""

    settings: dict[str, Any]


@dataclass(frozen=True)
class SetPlan:
    """Choices of the user that define a prepared data set. Other choices make another data set.

    Attributes:
        settings: All options of the user by name, ready for JSON.
        split: Assignment to train, validation and test that is stored as ``default``:
            ``"official"`` for that of the publisher, the user's own table with a record of its
            origin, or None to draw it by `rule`.
    """

    name: str
    rule: SplitRule
    settings: dict[str, Any]
    split: str | SplitAndOrigin | None = None


def _make_splits(
    folder: Path, tables: SourceTables, linked: pd.Series | None, plan: SetPlan
) -> dict[str, SplitAndOrigin]:
    """Make the splits of a data set, or extend its stored splits to its present images."""
    made: dict[str, SplitAndOrigin] = {}
    for path in sorted((folder / "splits").glob("*.json")):
        made[path.stem] = _extend_stored_split(path, tables, linked, plan.rule)
    if "official" not in made and len(tables.official):
        strata = image_strata(tables.images, tables.findings)
        made["official"] = official_split(
            tables.official, tables.images, linked, plan.rule, strata=strata
        )
    if "default" in made:
        return made
    if plan.split is None:
        images = tables.images
        findings = tables.findings
        made["default"] = draw_split(images, findings, tables.split, plan.rule, linked)
    elif isinstance(plan.split, tuple):
        split, how = plan.split
        made["default"] = split[is_member(split["image_id"], tables.images["image_id"])], how
    else:
        made["default"] = made["official"]
    return made


def _extend_stored_split(
    path: Path, tables: SourceTables, linked: pd.Series | None, rule: SplitRule
) -> SplitAndOrigin:
    """Extend a stored split to the present images; old images keep their roles."""
    record = SplitInfo.read(path)
    split = read_table(path.with_suffix(".parquet"), "split", files=record.files)
    how = record.how
    images = tables.images
    kept = split[is_member(split["image_id"], images["image_id"])]
    n_new = len(images) - len(kept)
    if not n_new:
        return kept, how
    forced = tables.split[
        is_member(tables.split["image_id"], images["image_id"])
        & ~is_member(tables.split["image_id"], kept["image_id"])
    ]
    with_role = pd.concat(
        [kept, forced.assign(fold=pd.array([pd.NA] * len(forced), dtype="Int64"))]
    )
    drawn_by = rule if how.rule is None else SplitRule(**how.rule.to_json())
    strata = image_strata(images, tables.findings)
    grown = extend_split(with_role, images, strata, drawn_by, linked)
    return grown, how.with_values(n_images_added=how.n_images_added + n_new)


_SETTINGS = "settings.json"


def is_complete(out: Path, settings: dict[str, Any], *, add: bool = False) -> bool:
    """Return True if a folder holds the complete data set of these settings.

    False means that it is empty or incomplete, or that the user's files have changed and `add`
    allows it. A folder of something else, or of a data set with other settings, is refused.
    """
    growing = ("source_id", "exclude")
    record: DataSetInfo | _Settings | None = None
    if (out / "dataset.json").is_file():
        record = DataSetInfo.read(out / "dataset.json")
    elif (out / WORK_FOLDER / _SETTINGS).is_file():
        record = _Settings.read(out / WORK_FOLDER / _SETTINGS)
    if record is not None:
        stored = dict(record.settings)
        now = dict(settings)
        stored_sources, now_sources = (
            {key: of.pop(key, None) for key in growing} for of in (stored, now)
        )
        require_same_settings(out, stored, now, "give another folder, or the same options")
        if not add:
            require_same_settings(out, stored_sources, now_sources, "prepare a new folder")
        return isinstance(record, DataSetInfo) and stored_sources == now_sources
    # A set that was begun has its settings before anything else.
    if out.is_dir() and any(path.name not in (LOCK_NAME, WORK_FOLDER) for path in out.iterdir()):
        raise InputError(f"{out}: not empty and not a cxr data set; choose a new folder")
    return False


def begin_set(out: Path, settings: dict[str, Any]) -> None:
    """Mark a folder as an unfinished data set, which a call with the same options can continue."""
    _Settings(settings=settings).write(make_folder(out / WORK_FOLDER) / _SETTINGS)


def write_set(
    out: Path,
    tables: SourceTables,
    decode: pd.DataFrame,
    plan: SetPlan,
    *,
    measure_shortcuts: MeasureShortcuts | None = None,
    workers: Workers = 1,
) -> None:
    """Write all files of a data set folder except the resized images, ``dataset.json`` last.

    Existing splits (assignments to train, validation and test) are kept and extended to new images.
    The workers decode images that may be copies of each other.
    """
    info = DataSetInfo(
        name=plan.name,
        source_format=tables.format,
        source_root=str(tables.root.resolve()),
        targets=tables.targets,
        ids=DataSet.digests(tables.images, tables.findings, tables.boxes, tables.box_coverage),
        settings=plan.settings,
        id_key=plan.settings.get("id_key"),
        **provenance(),
    )
    # The images table has not been written yet.
    images = tables.images.reset_index(drop=True)
    dataset = DataSet(out, info, tables={"images": images})
    near = find_dataset_copies(dataset, decode, workers=workers)
    splits = _make_splits(out, tables, image_links(decode, near), plan)
    notes = [*tables.notes, *_split_notes(splits)]
    (out / "dataset.json").unlink(missing_ok=True)  # a set being rewritten is not complete
    written = {"decode": decode}
    for name in ("images", "findings", "boxes", "box_coverage", "excluded"):
        written[name] = getattr(tables, name)
    files = {}
    for name, table in written.items():
        files[f"{name}.parquet"] = write_table(table, out / f"{name}.parquet", name)
    split_ids = {key: write_split(out, key, *made) for key, made in splits.items()}
    ids = info.ids.with_values(split_ids=split_ids)
    info = info.with_values(ids=ids, notes=notes, files=files)
    dataset = DataSet(out, info)
    write_audit(dataset, audit(dataset, near=near, measure_shortcuts=measure_shortcuts), out)
    info.write(out / "dataset.json")


def end_set(out: Path) -> None:
    """Remove what `begin_set` and the decoding left in a data set that is complete now."""
    if (out / WORK_FOLDER).exists():
        (out / JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)


def _split_notes(splits: dict[str, SplitAndOrigin]) -> list[str]:
    """Return the notes on the splits, each with the names of its splits."""
    names_by_note: dict[str, list[str]] = {}
    for name, (_, how) in splits.items():
        for note in how.notes:
            names_by_note.setdefault(note, []).append(f"'{name}'")
    return [f"split {' and '.join(names)}: {note}" for note, names in names_by_note.items()]
