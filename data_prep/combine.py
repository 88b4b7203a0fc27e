"""Combination of prepared data sets: their tables are joined, and squares are copied."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.files import folder_lock
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.base.tables import KINDS, REFERENCE_READER
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.prepare import Options, exclude_listed, is_complete, write_set
from cxr_compare.data_prep.sources.source import SourceTables
from cxr_compare.data_prep.splits import SplitRule

_TABLES = ("images", "findings", "boxes", "box_coverage", "decode", "excluded")


def combine(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    name: str | None = None,
    rule: SplitRule | None = None,
    targets: Mapping[str, Sequence[str]] | None = None,
    exclude: Path | None = None,
    measure_shortcuts: Any = None,
) -> DataSet:
    """Combine several prepared data sets into one. No image is copied or decoded again.

    Ids that occur in several sets get the name of their set. A finding that one set does not label
    is unknown there. A patient id that occurs in several sets is one patient.
    """
    out, rule, targets = Path(out), rule or SplitRule(), targets or {}
    sets = _open(folders, out)
    root = Path(os.path.commonpath([dataset.source_root for dataset in sets.values()]))
    settings: dict[str, Any] = {
        "source_format": "combined",
        "source_root": str(root.resolve()),
        "source_parts": {n: [d.ids.content_id, d.ids.labels_id] for n, d in sets.items()},
        "targets": {name: list(members) for name, members in targets.items()},
        "exclude": exclude.read_text(encoding="utf-8") if exclude else None,
        **asdict(rule),
    }
    keys = {dataset.info.id_key for dataset in sets.values()}
    settings |= {"id_key": next(iter(keys))} if keys != {None} else {}
    with folder_lock(out):
        if not is_complete(out, settings):
            tables, decode = _join(sets, root, targets)
            if exclude is not None:
                tables = exclude_listed(tables, exclude)
                decode = decode[is_member(decode["image_id"], tables.images["image_id"])]
            options = Options(format=None, measure_shortcuts=measure_shortcuts)
            set_name = name or out.resolve().name
            write_set(out, tables, decode, set_name, rule, settings, None, options)
    return DataSet.open(out)


def _open(folders: Sequence[str | Path], out: Path) -> dict[str, DataSet]:
    """Open the data sets, each under a unique name."""
    if len(folders) < 2:
        raise InputError("combining needs two data sets or more")
    sets: dict[str, DataSet] = {}
    for folder in map(Path, folders):
        dataset = DataSet.open(folder)
        here, there = folder.resolve(), out.resolve()
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise InputError(f"{out}: choose a folder beside {folder}, not inside or around it")
        for other in sets.values():
            if dataset.ids.content_id == other.ids.content_id:
                raise InputError(f"{folder}: holds the same images as {other.folder}; name it once")
            if dataset.info.id_key != other.info.id_key:
                raise InputError(
                    f"{folder}: its ids are hashed in another way than those of {other.folder}, so "
                    "shared patients cannot be found; prepare both with one --id-key"
                )
        numbers = ["", *(f"-{number}" for number in range(2, len(folders) + 1))]
        label = next(dataset.name + n for n in numbers if dataset.name + n not in sets)
        sets[label] = dataset
    return sets


def _join(
    sets: dict[str, DataSet], root: Path, targets: Mapping[str, Sequence[str]]
) -> tuple[SourceTables, pd.DataFrame]:
    """Return the joined tables of all sets, and their joined table of decoding."""
    ids = pd.concat([dataset.images["image_id"] for dataset in sets.values()])
    repeated = ids[ids.duplicated()]
    parts = {label: _read(label, d, root, repeated) for label, d in sets.items()}
    known = {finding for part in parts.values() for finding in part["findings"]["finding"]}
    kept: dict[str, Target] = {}
    for label, dataset in sets.items():
        for target in dataset.targets.values():
            first = kept.setdefault(target.name, target)
            if target.name not in targets and {*first.any_of} != {*target.any_of}:
                raise InputError(
                    f"target '{target.name}' is {' or '.join(target.any_of)} in {label} and "
                    f"{' or '.join(first.any_of)} before; say --target {target.name}=FINDING,..."
                )
    notes = _notes(sets, len(repeated))
    for name, members in targets.items():
        unknown = [member for member in members if member not in known]
        if unknown or not members:
            raise InputError(
                f"--target {name}: finding '{', '.join(unknown)}' is in none of the sets; they "
                f"have {', '.join(sorted(known)) or 'none'}"
            )
        labelled = [{*part["findings"]["finding"]} & {*members} for part in parts.values()]
        kept[name] = Target.of(name, members)
        if any(own and own != {*members} for own in labelled):  # a set labels only some of them
            parts = {label: _with_finding(part, members, name) for label, part in parts.items()}
            kept[name] = Target.of(name, [name])
            notes.append(f"finding '{name}' was made of those that each set labels of {members}")
    frames: dict[str, Any] = {
        n: _concat([part[n] for part in parts.values()]) for n in (*_TABLES, "split")
    }
    frames["images"] = frames["images"].sort_values("image_id", ignore_index=True)
    decode = frames.pop("decode")
    tables = SourceTables("combined", root, targets=kept, notes=tuple(notes), **frames)
    return tables, decode.sort_values("image_id", ignore_index=True)


def _read(label: str, dataset: DataSet, root: Path, repeated: pd.Series) -> dict[str, pd.DataFrame]:
    """Read the tables of a data set with the labels of all readers, and set new ids and paths."""
    tables = {name: dataset.table(name) for name in _TABLES}
    split = dataset.split()
    tables["split"] = split.loc[split["role"] == "unused", ["image_id", "role"]]
    for name, table in tables.items():
        if "image_id" in table:
            ids = table["image_id"]
            new_ids = ids.mask(is_member(ids, repeated), f"{label}/" + ids)
            tables[name] = table.assign(image_id=new_ids)
    folder = os.path.relpath(dataset.source_root, root)
    start = "" if folder == "." or dataset.info.id_key else f"{Path(folder).as_posix()}/"
    tables["images"] = tables["images"].assign(path=start + dataset.images["path"], x_set=label)
    tables["excluded"] = tables["excluded"].assign(path=start + tables["excluded"]["path"])
    return tables


def _concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Join rows; a column that is text in one data set becomes text in all."""
    dtypes = pd.concat([pd.Series(frame.dtypes) for frame in frames])
    for column in dtypes.index.unique():
        kinds = set(dtypes[dtypes.index == column])
        if len(kinds) > 1 and column.startswith("x_"):
            frames = [f.astype({column: TEXT}) if column in f else f for f in frames]
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    joined = pd.concat(filled, ignore_index=True)
    known = {c: s.dtype for c, s in KINDS["images"].columns.items() if c in joined}
    return joined.astype(known) if "patient_id" in joined else joined


def _with_finding(
    part: dict[str, pd.DataFrame], members: Sequence[str], name: str
) -> dict[str, pd.DataFrame]:
    """Add to the tables of a set a finding that holds where any of some findings is present."""
    findings = part["findings"]
    of_reference = findings["reader"] == REFERENCE_READER
    rows = findings[of_reference & is_member(findings["finding"], members)]
    if rows.empty:
        return part
    n_labelled = rows["finding"].nunique()
    states = pd.crosstab(rows["image_id"], rows["state"])
    states = states.reindex(columns=["present", "absent", "uncertain"], fill_value=0)
    state = pd.Series("uncertain", states.index, TEXT)
    state = state.mask(states["absent"] == n_labelled, "absent")
    state = state.mask(states["present"] > 0, "present")
    decided = state[(state != "uncertain") | (states["uncertain"] > 0)].rename("state")
    first = rows.drop_duplicates("image_id").drop(columns="state")
    made = first.merge(decided, left_on="image_id", right_index=True).assign(finding=name)
    deciding = rows.merge(decided.reset_index(), on=["image_id", "state"])
    coverage = part["box_coverage"]
    covered = deciding[["image_id", "finding", "reader"]].merge(coverage, how="left")
    by_image = covered["coverage"].fillna("none").groupby(covered["image_id"])
    whole = by_image.agg(lambda kinds: "all" if set(kinds) == {"all"} else "some")
    whole = whole[by_image.agg(lambda kinds: set(kinds) != {"none"})].rename("coverage")
    new_coverage = whole.reset_index().assign(finding=name, reader=REFERENCE_READER)
    boxes = part["boxes"]
    is_own = is_member(boxes["finding"], members) & (boxes["reader"] == REFERENCE_READER)
    return {
        **part,
        "findings": pd.concat([findings, made[findings.columns]], ignore_index=True),
        "boxes": pd.concat([boxes, boxes[is_own].assign(finding=name)], ignore_index=True),
        "box_coverage": pd.concat([coverage, new_coverage[coverage.columns]], ignore_index=True),
    }


def _notes(sets: dict[str, DataSet], n_repeated: int) -> list[str]:
    notes = [
        f"{label}: {note}"
        for label, dataset in sets.items()
        for note in dataset.info.notes
        if not note.startswith("split ")  # the parts' splits are not taken over
    ]
    if n_repeated:
        first = next(iter(sets))
        notes.append(
            f"{n_repeated:,} image ids occur in several sets; the name of the set was put before "
            f"them, as in {first}/..."
        )
    people = pd.concat([d.images["patient_id"].drop_duplicates() for d in sets.values()])
    n_shared = int(people[people.duplicated()].nunique())
    if n_shared:
        shared = counted(n_shared, "patient", "occur")
        notes.append(f"{shared} in several sets and count as one each")
    labelled = {label: {*d.table("findings")["finding"]} for label, d in sets.items()}
    for finding in sorted(set().union(*labelled.values())):
        where = [label for label, findings in labelled.items() if finding in findings]
        if len(where) < len(sets):
            notes.append(
                f"'{finding}' is labelled only in {' and '.join(where)}; on other images it is "
                "unknown, not absent"
            )
    return notes
