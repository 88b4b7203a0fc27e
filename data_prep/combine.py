"""Combination of prepared data sets: their tables are joined, and no image is decoded again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, Remedy, counted
from cxr_compare.data_prep.base.files import folder_lock
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.base.tables import LABEL_KEY, REFERENCE_READER
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.new_set import Options, begin, exclude_listed, write_set
from cxr_compare.data_prep.pixels import JOURNAL
from cxr_compare.data_prep.sources.source import SourceTables

_TABLES = ("images", "findings", "boxes", "box_coverage", "decode", "excluded", "read")


def combine(folders: Sequence[str | Path], out: str | Path, options: Options) -> DataSet:
    """Combine several prepared data sets into one. No image is copied or decoded again.

    Ids that occur in several sets get the name of their set. A finding that one set does not label
    is unknown there. A patient id that occurs in several sets is one patient. Of the options apply
    the name, the targets, the rule of the split, and the list of images to leave out.
    """
    out = Path(out)
    sets = _open(folders, out)
    tables, decode = _join(sets, options.targets)
    if options.exclude is not None:
        tables = exclude_listed(tables, options.exclude)
        decode = decode[is_member(decode["image_id"], tables.images["image_id"])]
    parts = sorted((d.ids.content_id, d.ids.labels_id) for d in sets.values())
    choices = (parts, dict(options.targets), options.rule, sorted(tables.images["image_id"]))
    request = hashlib.sha256(repr(choices).encode()).hexdigest()[:16]
    id_key = next(iter(sets.values())).info.id_key
    with folder_lock(out):
        if not begin(out, request):
            has_pictures = options.pictures and all(d.info.pictures for d in sets.values())
            options = replace(options, pictures=has_pictures)
            write_set(out, tables, decode, request, options, id_key=id_key)
        (out / JOURNAL).unlink(missing_ok=True)
    return DataSet.open(out)


def _open(folders: Sequence[str | Path], out: Path) -> dict[str, DataSet]:
    """Open the data sets, each under a unique name."""
    if len(folders) < 2:
        raise InputError("combining needs two data sets or more")
    sets: dict[str, DataSet] = {}
    for folder in map(Path, folders):
        dataset = DataSet.open(folder)
        set_folder, out_folder = folder.resolve(), out.resolve()
        if set_folder.is_relative_to(out_folder) or out_folder.is_relative_to(set_folder):
            raise InputError(f"{out}: choose a folder beside {folder}, not inside or around it")
        for other in sets.values():
            if dataset.ids.content_id == other.ids.content_id:
                raise InputError(f"{folder}: holds the same images as {other.folder}; name it once")
            if dataset.info.id_key != other.info.id_key:
                raise InputError(
                    f"{folder}: its ids are hashed in another way than those of {other.folder}, so "
                    "shared patients cannot be found; prepare both with one id_key"
                )
        label = dataset.name or set_folder.name  # tells the sets apart, as the user calls them
        sets[f"{label}-{len(sets) + 1}" if label in sets else label] = dataset
    return sets


def _join(
    sets: Mapping[str, DataSet], targets: Mapping[str, Sequence[str]]
) -> tuple[SourceTables, pd.DataFrame]:
    """Return the joined tables of all sets, and their joined table of decoding."""
    root = Path(os.path.commonpath([dataset.source_root for dataset in sets.values()]))
    ids = pd.concat([dataset.images["image_id"] for dataset in sets.values()])
    repeated = ids[ids.duplicated()]
    parts = [_tables(label, dataset, root, repeated) for label, dataset in sets.items()]
    frames: dict[str, Any] = {
        name: _concat([part[name] for part in parts]) for name in (*_TABLES, "split")
    }
    decode = frames.pop("decode").sort_values("image_id", ignore_index=True)
    frames["images"] = frames["images"].sort_values("image_id", ignore_index=True)
    frames["findings"] = frames["findings"].assign(implied=False)
    targets_by_name: dict[str, Target] = {}
    for label, dataset in sets.items():
        for target in dataset.targets.values():
            first = targets_by_name.get(target.name, target)
            targets_by_name[target.name] = replace(first, joined=first.joined or target.joined)
            if target.name not in targets and {*first.any_of} != {*target.any_of}:
                both = ",".join(dict.fromkeys((*first.any_of, *target.any_of)))
                raise InputError(
                    f"target '{target.name}' is {' or '.join(target.any_of)} in {label}, and "
                    f"{' or '.join(first.any_of)} before",
                    [Remedy("it is any of these", {"target": f"{target.name}={both}"})],
                )
    labelled = {n: {*p["findings"]["finding"]} for n, p in zip(sets, parts, strict=True)}
    notes = _notes(sets, labelled, len(repeated))
    tables = SourceTables(root, targets=targets_by_name, notes=notes, **frames)
    joined_targets = dict(targets)
    joined = []
    for name, members in targets.items():
        members_of_sets = [findings.intersection(members) for findings in labelled.values()]
        if name not in members and any(
            findings_of_set and findings_of_set != {*members} for findings_of_set in members_of_sets
        ):
            tables = _with_finding(tables, name, members)
            joined_targets[name] = [name]
            joined.append(name)
    tables = tables.with_targets(joined_targets)
    for name in joined:
        tables.targets[name] = replace(tables.targets[name], joined=True)
    return tables, decode


def _tables(
    label: str, dataset: DataSet, root: Path, repeated: pd.Series
) -> dict[str, pd.DataFrame]:
    """Read the tables of a data set with the labels of all readers, and set new ids and paths."""
    tables = {name: dataset.table(name) for name in _TABLES}
    split = dataset.split()
    tables["split"] = split.loc[split["role"] == "unused", ["image_id", "role"]]
    folder = Path(os.path.relpath(dataset.source_root, root)).as_posix()
    start = "" if folder == "." or dataset.info.id_key else f"{folder}/"
    tables["images"] = tables["images"].assign(x_set=label)
    tables["read"] = tables["read"].assign(set=label)
    for name, table in tables.items():
        if "image_id" in table:
            ids = table["image_id"]
            renamed = ids.mask(is_member(ids, repeated), f"{label}/" + ids)
            tables[name] = tables[name].assign(image_id=renamed)
        if "path" in table:
            tables[name] = tables[name].assign(path=start + table["path"])
    return tables


def _concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Join rows; a column of one's own that is text in one data set becomes text in all."""
    joined = pd.concat(frames, ignore_index=True)
    mixed = [n for n in joined if str(n).startswith("x_") and joined[n].dtype == "object"]
    return joined.astype(dict.fromkeys(mixed, TEXT))


def _with_finding(tables: SourceTables, name: str, members: Sequence[str]) -> SourceTables:
    """Add a finding that is present where any of some findings is.

    It is absent where all of them that the image's set labels are, and boxed where those that
    decide its state are.
    """
    findings, coverage, boxes = tables.findings, tables.box_coverage, tables.boxes
    if is_member(findings["finding"], [name]).any():
        raise InputError(f"target {name}: is a finding of one set; choose another name")
    rows = findings[is_member(findings["finding"], members)]
    rows = rows[rows["reader"] == REFERENCE_READER].merge(tables.images[["image_id", "x_set"]])
    n_labelled = rows.groupby("x_set")["finding"].nunique()
    states = pd.crosstab(rows["image_id"], rows["state"])
    states = states.reindex(columns=["present", "absent", "uncertain"], fill_value=0)
    sets = rows.drop_duplicates("image_id").set_index("image_id")["x_set"]
    state = pd.Series(pd.NA, states.index, TEXT, name="state")
    state = state.mask(states["uncertain"] > 0, "uncertain")
    state = state.mask(states["absent"] == sets.map(n_labelled).reindex(states.index), "absent")
    state = state.mask(states["present"] > 0, "present").dropna()
    deciding = rows.merge(state.reset_index(), on=["image_id", "state"])
    new_findings = deciding.drop_duplicates("image_id").assign(finding=name)[findings.columns]
    covered = deciding.merge(coverage, on=LABEL_KEY, how="left")
    kinds = covered["coverage"].fillna("none").groupby(covered["image_id"]).agg(set)
    kinds = kinds[kinds != {"none"}]
    new_coverage = pd.DataFrame(
        {
            "image_id": kinds.index,
            "finding": name,
            "reader": REFERENCE_READER,
            "coverage": ["all" if kind == {"all"} else "some" for kind in kinds],
        }
    )
    is_own = is_member(boxes["finding"], members) & (boxes["reader"] == REFERENCE_READER)
    return replace(
        tables,
        findings=pd.concat([findings, new_findings], ignore_index=True),
        boxes=pd.concat([boxes, boxes[is_own].assign(finding=name)], ignore_index=True),
        box_coverage=pd.concat([coverage, new_coverage], ignore_index=True),
    )


def _notes(
    sets: Mapping[str, DataSet], labelled: Mapping[str, set[str]], n_repeated: int
) -> tuple[str, ...]:
    notes = [f"{label}: {note}" for label, dataset in sets.items() for note in dataset.info.notes]
    if n_repeated:
        notes.append(f"{counted(n_repeated, 'image id', 'occur')} in several sets: see x_set")
    people = pd.concat([d.images["patient_id"].drop_duplicates() for d in sets.values()])
    n_shared = people[people.duplicated()].nunique()
    if n_shared:
        notes.append(f"{counted(n_shared, 'patient', 'occur')} in several sets: one person each")
    for finding in sorted(set().union(*labelled.values())):
        where = [label for label, findings in labelled.items() if finding in findings]
        if len(where) < len(sets):
            notes.append(f"'{finding}' is labelled only in {' and '.join(where)}; else unknown")
    return tuple(notes)
