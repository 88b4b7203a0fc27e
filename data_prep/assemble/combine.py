"""Combination of prepared data sets: their tables are joined, and no image is copied."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.assemble.combined_targets import merge_targets
from cxr_compare.data_prep.assemble.dataset_writer import (
    SetPlan,
    begin_set,
    end_set,
    is_complete,
    write_set,
)
from cxr_compare.data_prep.assemble.exclusion_list import exclude_listed, read_exclusions
from cxr_compare.data_prep.assemble.summary import Summary, summarise
from cxr_compare.data_prep.audit.audit import MeasureShortcuts
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.pseudonyms import hide_paths, key_from_environment
from cxr_compare.data_prep.contracts.schemas import SCHEMAS
from cxr_compare.data_prep.contracts.tables import frame_digest
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.sources.source_tables import SourceTables
from cxr_compare.data_prep.splits.split import SplitRule

_TABLES = ("images", "findings", "boxes", "box_coverage", "decode", "excluded")


@dataclass(frozen=True)
class _Part:
    """One of the combined data sets, with the ids and paths that it gets in the result."""

    name: str
    dataset: DataSet
    tables: dict[str, pd.DataFrame]


def combine(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    name: str | None = None,
    rule: SplitRule | None = None,
    targets: Mapping[str, Sequence[str]] | None = None,
    exclude: Path | None = None,
    measure_shortcuts: MeasureShortcuts | None = None,
) -> Summary:
    """Combine several prepared data sets into one. No image is copied or decoded again.

    An image keeps its id unless another data set has the same id; then the name of its data set is
    put before the id. Patients with the same id (``nih:00019124``) count as one patient. A finding
    (disease) that a data set does not label is unknown on its images. Patients are assigned to
    train, validation and test again; patients of two sets who share an image are not separated.
    Images that are unused in their set stay unused. `exclude` is a file as for
    `read_exclusions`.

    Refused are fewer than two data sets, sets that hold the same images or define a target
    differently, sets whose ids were hashed with different keys, and an option that names an unknown
    image or finding.
    """
    out = Path(out)
    rule = rule or SplitRule()
    sets = _open(folders, out)
    root = Path(os.path.commonpath([dataset.source_root for dataset in sets.values()]))
    ids = {label: sets[label].ids for label in sorted(sets)}
    parts = pd.DataFrame(
        [[i.content_id, i.labels_id] for i in ids.values()], columns=["content", "labels"]
    )
    hidden = {d.info.id_key for d in sets.values() if d.info.id_key}
    settings: dict[str, Any] = {
        "source_format": "combined",
        "source_root": str(root.resolve()),
        "source_parts": {label: i.content_id for label, i in ids.items()},
        "source_id": frame_digest(parts, ["content", "labels"]),
        **asdict(rule),
    }
    if targets:
        settings["targets"] = {key: list(members) for key, members in targets.items()}
    if hidden:
        settings["id_key"] = hidden.pop()
    if exclude is not None:
        listed = read_exclusions(exclude)
        settings["exclude"] = frame_digest(listed, listed.columns)
    with folder_lock(out):
        complete = is_complete(out, settings)
        if not complete:
            tables, decode = _join(sets, root, targets or {}, settings.get("id_key"))
            if exclude is not None:
                tables = exclude_listed(tables, listed, exclude)
                decode = decode[is_member(decode["image_id"], tables.images["image_id"])]
            begin_set(out, settings)
            plan = SetPlan(name or out.resolve().name, rule, settings)
            write_set(out, tables, decode, plan, measure_shortcuts=measure_shortcuts)
        end_set(out)
    return summarise(DataSet.open(out), already_complete=complete)


def _open(folders: Sequence[str | Path], out: Path) -> dict[str, DataSet]:
    """Open the data sets, each under a unique name."""
    if len(folders) < 2:
        raise InputError("combining needs two data sets or more")
    sets: dict[str, DataSet] = {}
    for folder in map(Path, folders):
        dataset = DataSet.open(folder)
        here = folder.resolve()
        there = out.resolve()
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise InputError(f"{out}: choose a folder beside {folder}, not inside or around it")
        for other in sets.values():
            if dataset.ids.content_id == other.ids.content_id:
                raise InputError(f"{folder}: holds the same images as {other.folder}; name it once")
            keys = {d.info.id_key for d in (dataset, other) if d.info.id_key}
            if len(keys) > 1:
                raise InputError(
                    f"{folder}: its ids are hashed with another key than those of {other.folder}, "
                    "so shared patients cannot be found; prepare both with one --id-key"
                )
        label = dataset.name
        number = 2
        while label in sets:
            label = f"{dataset.name}-{number}"
            number = number + 1
        sets[label] = dataset
    return sets


def _join(
    sets: dict[str, DataSet], root: Path, targets: Mapping[str, Sequence[str]], key_id: str | None
) -> tuple[SourceTables, pd.DataFrame]:
    repeated = _repeated([dataset.images["image_id"] for dataset in sets.values()])
    parts = [_Part(label, d, _read(label, d, root, repeated)) for label, d in sets.items()]
    frames = {table: _concat([part.tables[table] for part in parts]) for table in _TABLES}
    frames["images"] = frames["images"].sort_values("image_id", ignore_index=True)
    twice = frames["images"]["image_id"].duplicated()
    if twice.any():
        image = frames["images"].loc[twice, "image_id"].iloc[0]
        raise InputError(f"image '{image}' has the id that another set's image would get here")
    if key_id is not None:
        key = key_from_environment(key_id, next(iter(sets.values())).folder)
        frames["images"] = hide_paths(frames["images"], key)
        frames["excluded"] = hide_paths(frames["excluded"], key)
    source_tables: dict[str, Any] = {name: frames[name] for name in _TABLES if name != "decode"}
    tables = SourceTables(
        format="combined",
        root=root,
        **source_tables,
        targets={},
        split=_unused(parts),
        notes=tuple(_notes(parts, len(repeated))),
    )
    part_targets = {part.name: part.dataset.targets for part in parts}
    part_findings = {part.name: part.tables["findings"] for part in parts}
    merged = merge_targets(tables, part_targets, part_findings, targets)
    return merged, frames["decode"]


def _repeated(columns: Sequence[pd.Series]) -> pd.Index:
    values = pd.concat([column.drop_duplicates() for column in columns])
    return pd.Index(values[values.duplicated()].unique())


def _read(label: str, dataset: DataSet, root: Path, repeated: pd.Index) -> dict[str, pd.DataFrame]:
    """Read the tables of a data set with the labels of all readers, and set new ids and paths."""
    tables = {name: dataset.optional_table(name) for name in _TABLES}
    for name, table in tables.items():
        if "image_id" in table.columns:
            ids = table["image_id"]
            tables[name] = table.assign(
                image_id=ids.mask(is_member(ids, repeated), label + "/" + ids)
            )
    folder = os.path.relpath(dataset.source_root, root)
    start = "" if folder == "." else f"{Path(folder).as_posix()}/"
    real_paths = dataset.image_files["path"].to_numpy()  # with hashed ids, paths are hashed, too
    tables["images"] = tables["images"].assign(
        path=start + pd.Series(real_paths, dtype=TEXT), x_set=label
    )
    paths = tables["excluded"]["path"]
    if not dataset.info.id_key:  # hashed paths of excluded files cannot be found
        tables["excluded"] = tables["excluded"].assign(path=start + paths)
    columns = {*tables["decode"].columns, *SCHEMAS["decode"].columns}
    tables["decode"] = tables["decode"].reindex(columns=sorted(columns))
    return tables


def _concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Join rows; a column that is text in one data set becomes text in all."""
    dtypes = pd.concat([pd.Series(frame.dtypes) for frame in frames])
    for column in dtypes.index.unique():
        kinds = list(dtypes[dtypes.index == column].unique())
        lacking = sum(column not in frame.columns for frame in frames)
        if len(kinds) > 1 and TEXT in kinds:
            frames = [f.astype({column: TEXT}) if column in f.columns else f for f in frames]
        elif kinds == ["bool"] and lacking:
            frames = [f.astype({column: "boolean"}) if column in f.columns else f for f in frames]
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    return pd.concat(filled, ignore_index=True)


def _unused(parts: Sequence[_Part]) -> pd.DataFrame:
    """List the images that a data set leaves unused."""
    ids = []
    for part in parts:
        split = part.dataset.split()
        old_ids = part.dataset.images["image_id"]  # in the order of the renamed table
        unused = is_member(old_ids, split.loc[split["role"] == "unused", "image_id"])
        ids.append(part.tables["images"].loc[unused, "image_id"])
    return pd.DataFrame(
        {"image_id": pd.concat(ids, ignore_index=True), "role": "unused"}, dtype=TEXT
    )


def _notes(parts: Sequence[_Part], n_repeated: int) -> list[str]:
    parts_by_note: dict[str, list[str]] = {}
    for part in parts:
        for note in part.dataset.info.notes:
            if not note.startswith("split "):  # the parts' splits are not taken over
                parts_by_note.setdefault(note, []).append(part.name)
    notes = [f"{' and '.join(names)}: {note}" for note, names in parts_by_note.items()]
    if n_repeated:
        notes.append(
            f"{n_repeated:,} image ids occur in several sets; the name of the set was put before "
            f"them, as in {parts[0].name}/..."
        )
    shared = _repeated([part.tables["images"]["patient_id"] for part in parts])
    if len(shared):
        notes.append(
            f"{counted(len(shared), 'patient', 'occur')} in several sets and count as one each"
        )
    hashed = [part.name for part in parts if part.dataset.info.id_key]
    if 0 < len(hashed) < len(parts):
        notes.append(
            f"WARNING: ids of {' and '.join(hashed)} are hashed and the others are not. Shared "
            "patients cannot be found, so the same person may be in training and test"
        )
    n_lacking = sum(int(part.tables["images"]["path"].isna().sum()) for part in parts)
    if 0 < n_lacking < sum(len(part.tables["images"]) for part in parts):
        notes.append(
            f"{counted(n_lacking, 'image', 'have')} no pixels, so predictions can be evaluated on "
            "the combined set, but no model can be trained on it"
        )
    names = [p.name for p in parts if set(p.dataset.ids.split_ids) - {"default"}]
    if names:
        notes.append(f"of {', '.join(names)}, splits other than the default were not taken over")
    return notes
