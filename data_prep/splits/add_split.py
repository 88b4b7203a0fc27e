"""The splits of a data set: what to balance, whom to keep together, where they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import folder_lock, make_folder, read_json, write_json
from data_prep.contracts.schemas import REFERENCE_READER, ROLES
from data_prep.contracts.tables import frame_digest, is_member, read_table, write_table
from data_prep.duplicates.near_duplicates import NearDuplicates, linked_images
from data_prep.duplicates.set_copies import near_duplicates_of
from data_prep.splits.given_split import official_split, read_split_file
from data_prep.splits.split import SplitRule, fold_as_test, fold_split, split_by_patient
from data_prep.store.dataset import DataSet

_POSITIVE = "positive for "
_TARGETS_IN_LINE = 3


def count_roles(dataset: DataSet, split: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count what each role of a split holds."""
    rows = dataset.images[["image_id", "patient_id"]].merge(split, on="image_id")
    labels = {
        str(name): rows["image_id"].map(dataset.labels(target)) == 1
        for name, target in dataset.targets.items()
    }
    counts = {}
    for role in ROLES:
        chosen = rows["role"] == role
        if chosen.any():
            positives = {_POSITIVE + k: int((flag & chosen).sum()) for k, flag in labels.items()}
            patients = int(rows.loc[chosen, "patient_id"].nunique())
            counts[role] = {"images": int(chosen.sum()), "patients": patients, **positives}
    return counts


def role_lines(roles: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Say what `count_roles` counted."""
    held = {role: count for role, count in roles.items() if count["images"]}
    wanted = list(dict.fromkeys(word for count in held.values() for word in count))
    targets = [word for word in wanted if word.startswith(_POSITIVE)]
    apart = targets if len(targets) > _TARGETS_IN_LINE else []
    lines = []
    for role, count in held.items():
        words = [f"{n:,} {word}" for word, n in count.items() if word not in apart]
        lines.append(f"  {role:6s} {', '.join(words)}")
    for word in apart:
        found = [f"{count[word]:,} {role}" for role, count in held.items()]
        lines.append(f"  {word}: {', '.join(found)}")
    return lines


_Linked = pd.Series | pd.DataFrame | None
How = dict[str, Any]


def _image_classes(images: pd.DataFrame, findings: pd.DataFrame) -> pd.Series:
    """The class of each image that a split balances first."""
    ids = pd.Index(images["image_id"])
    known = findings[findings["reader"] == REFERENCE_READER]
    classes = pd.Series(index=ids, dtype="str")
    classes[is_member(ids, known.loc[known["state"] == "absent", "image_id"])] = "absent"
    present = known[known["state"] == "present"]
    frequency = present["finding"].map(present["finding"].value_counts())
    ordered = present.assign(frequency=frequency).sort_values(["frequency", "finding"])
    rarest = ordered.drop_duplicates("image_id").set_index("image_id")["finding"].astype("str")
    classes = classes.where(~is_member(ids, rarest.index), rarest.reindex(ids))
    if "x_class" not in images.columns:
        return classes
    own = images.set_index("image_id")["x_class"].astype("str")
    return own.where(own.notna(), classes)


def image_strata(images: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """Everything that a split balances."""
    strata = _image_classes(images, findings).rename("class").to_frame()
    for column in ("source", "x_set", "view"):
        if column in images.columns:
            strata[column] = images[column].astype("str").to_numpy()
    several = [c for c in strata.columns if c == "class" or strata[c].nunique(dropna=False) > 1]
    present = findings.loc[
        (findings["reader"] == REFERENCE_READER) & (findings["state"] == "present"),
        ["image_id", "finding"],
    ]
    code, names = pd.factorize(present["finding"], sort=True)
    if len(names) < 2:
        return strata[several]
    row = strata.index.get_indexer(pd.Index(present["image_id"]))
    flags = np.zeros((len(strata), len(names)), dtype=bool)
    flags[row[row >= 0], code[row >= 0]] = True
    columns = [f"present: {name}" for name in names]
    return strata[several].join(pd.DataFrame(flags, index=strata.index, columns=columns))


def draw_split(
    images: pd.DataFrame,
    findings: pd.DataFrame,
    given: pd.DataFrame,
    rule: SplitRule,
    linked: _Linked = None,
) -> tuple[pd.DataFrame, How]:
    """Split a data set by patient, or follow the roles that it came with."""
    strata = image_strata(images, findings)
    if (given["role"] != "unused").any():
        return official_split(given, images, None, rule, strata=strata)
    free = images[~is_member(images["image_id"], given["image_id"])]
    split = split_by_patient(free, strata, rule, linked)
    unused = given.assign(fold=pd.array([pd.NA] * len(given), dtype="Int64"))
    method = {"balanced": "by patient, StratifiedGroupKFold", "hash": "by patient"}[rule.method]
    how: How = {"method": method, "rule": asdict(rule)}
    if rule.method == "balanced":
        how["balanced"] = list(strata.columns)
    elif empty := sorted({r for r in ("val", "test") if asdict(rule)[r] > 0} - set(split["role"])):
        how["notes"] = [f"by hash no patient came to {' and '.join(empty)}: too few for that share"]
    return pd.concat([split, unused]).sort_values("image_id", ignore_index=True), how


def image_links(decode: pd.DataFrame, near: NearDuplicates) -> pd.Series | None:
    """The key that copies of one image share: equal pixels, or found to be nearly equal."""
    return None if decode.empty else linked_images(decode, near.groups)


def add_splits(
    dataset: DataSet,
    name: str,
    rule: SplitRule,
    *,
    each_fold: bool = False,
    test_folds: bool = False,
    file: Path | None = None,
    keep_test_of: str | None = None,
    strict: bool = False,
    replaces: bool = False,
) -> dict[str, dict[str, Any]]:
    """Add a split to a prepared data set, or one for each fold."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"split name {name!r}: use letters, digits, '-', '_' and '.' only")
    if test_folds and rule.folds < 3:
        raise InputError(
            "split: --test-folds needs 3 folds: one to test, one to validate, one more"
        )
    if test_folds:
        rule = replace(rule, val=0.0, test=0.0)
    split, how = _make_split(dataset, rule, file, keep_test_of, strict=strict)
    splits = {name: split}
    if file is not None and (test_folds or each_fold) and split["fold"].nunique() != rule.folds:
        raise InputError(f"{file}: has {split['fold'].nunique()} folds, asked for {rule.folds}")
    if test_folds:
        how = {**how, "folds": "each fold tests once, the next one validates"}
        splits = {f"{name}-{k}": fold_as_test(split, k, rule.folds) for k in range(rule.folds)}
    elif each_fold:
        how = {**how, "folds": "each fold validates once; the test set is one"}
        splits = {f"{name}-{k}": fold_split(split, k) for k in range(rule.folds)}
    write_splits(dataset.folder, splits, how, replaces=replaces)
    return {k: {"roles": count_roles(dataset, table), "how": how} for k, table in splits.items()}


def _make_split(
    dataset: DataSet, rule: SplitRule, file: Path | None, keep_test_of: str | None, *, strict: bool
) -> tuple[pd.DataFrame, How]:
    decode = read_table(dataset.folder / "decode.parquet", "decode")
    linked = image_links(decode, near_duplicates_of(dataset, decode))
    if file is not None:
        return read_split_file(file, dataset.images, linked, strict=strict)
    if keep_test_of is None:
        default = dataset.split()
        unused = default.loc[default["role"] == "unused", ["image_id", "role"]]
        return draw_split(dataset.images, dataset.findings, unused, rule, linked)
    kept = dataset.split(keep_test_of)
    given = kept[["image_id"]].assign(role=kept["role"].where(kept["role"] != "val", "train"))
    strata = image_strata(dataset.images, dataset.findings)
    split, how = official_split(given, dataset.images, linked, rule, strata=strata)
    return split, {**how, "method": f"test of split '{keep_test_of}', validation drawn by patient"}


def drawn_by(dataset: DataSet, name: str) -> dict[str, Any]:
    """The rule of a split, or of the folds that bear its name."""
    for candidate in (name, f"{name}-0"):
        path = dataset.folder / "splits" / f"{candidate}.json"
        if path.is_file():
            rule = read_json(path, "split")["how"].get("rule", {})
            return {k: v for k, v in rule.items() if v is not None and (k, v) != ("test", 0)}
    return {}


def write_splits(
    folder: Path, splits: dict[str, pd.DataFrame], how: How, *, replaces: bool
) -> None:
    """Write splits by name, and their ids into ``dataset.json``."""
    with folder_lock(folder):
        # Read again under the lock: another command may have added a split meanwhile.
        info = read_json(folder / "dataset.json", "dataset")
        taken = sorted(set(splits) & set(info["ids"]["split_ids"]))
        if taken and not replaces:
            raise InputError(
                f"{folder}: split '{taken[0]}' is there; choose another name, or --replace it"
            )
        if replaces and len(taken) < len(splits):
            new = sorted(set(splits) - set(taken))[0]
            raise InputError(f"{folder}: has no split '{new}' to replace; leave out --replace")
        for name, table in splits.items():
            info["ids"]["split_ids"][name] = write_split(folder, name, table, how)
        write_json(folder / "dataset.json", "dataset", info)


def write_split(folder: Path, name: str, split: pd.DataFrame, how: How) -> str:
    """Write a split's table and how it was made."""
    place = make_folder(folder / "splits")
    split_id = frame_digest(split, ["image_id", "role"])
    write_table(split, place / f"{name}.parquet", "split")
    n_images = {str(role): int(count) for role, count in split["role"].value_counts().items()}
    payload = {"name": name, "split_id": split_id, "how": how, "n_images": n_images}
    write_json(place / f"{name}.json", "split", payload)
    return split_id
