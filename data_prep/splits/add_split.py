"""The splits of a data set: drawn, from a file, or nested parts; and where they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER, ROLES
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.tables import (
    first_line,
    frame_digest,
    refuse_line,
    to_numbers,
    write_table,
)
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.near_duplicates import (
    NearDuplicates,
    key_columns,
    patient_groups,
)
from cxr_compare.data_prep.duplicates.set_copies import near_duplicates_of
from cxr_compare.data_prep.splits.split import (
    Labels,
    SplitRule,
    fold_as_test,
    fold_split,
    official_split,
    split_by_patient,
)
from cxr_compare.data_prep.store.dataset import DataSet, Target

_POSITIVE = "positive for "
_TARGETS_IN_LINE = 3
_ROLE_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    "unused": "unused",
}
_ANNOTATED = ("train", "val")


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


How = dict[str, Any]


def _image_classes(images: pd.DataFrame, findings: pd.DataFrame) -> pd.Series:
    """The class of each image that a split balances first."""
    ids = pd.Index(images["image_id"])
    known = findings[findings["reader"] == REFERENCE_READER]
    classes = pd.Series(index=ids, dtype=TEXT)
    classes[is_member(ids, known.loc[known["state"] == "absent", "image_id"])] = "absent"
    present = known[known["state"] == "present"]
    frequency = present["finding"].map(present["finding"].value_counts())
    ordered = present.assign(frequency=frequency).sort_values(["frequency", "finding"])
    rarest = ordered.drop_duplicates("image_id").set_index("image_id")["finding"].astype(TEXT)
    classes = classes.where(~is_member(ids, rarest.index), rarest.reindex(ids))
    if "x_class" not in images.columns:
        return classes
    own = images.set_index("image_id")["x_class"].astype(TEXT)
    return own.where(own.notna(), classes)


def image_strata(images: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """Everything that a split balances."""
    strata = _image_classes(images, findings).rename("class").to_frame()
    for column in ("source", "x_set", "view"):
        if column in images.columns:
            strata[column] = images[column].astype(TEXT).to_numpy()
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
    linked: Labels = None,
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
    return None if decode.empty else near.linked(decode)


def _links_of(dataset: DataSet) -> pd.Series | None:
    """`image_links` of a prepared data set."""
    decode = dataset.optional_table("decode")
    return image_links(decode, near_duplicates_of(dataset, decode))


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
    _write_splits(dataset.folder, splits, how, replaces=replaces)
    return {k: {"roles": count_roles(dataset, table), "how": how} for k, table in splits.items()}


def _make_split(
    dataset: DataSet, rule: SplitRule, file: Path | None, keep_test_of: str | None, *, strict: bool
) -> tuple[pd.DataFrame, How]:
    linked = _links_of(dataset)
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


def _write_splits(
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


def read_split_file(
    path: Path, images: pd.DataFrame, linked: Labels = None, *, strict: bool = False
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the user's own split: ``image_id,role[,fold]`` or ``patient_id,role[,fold]``."""
    text = read_text_table(path, ("role",))
    key = next((k for k in ("image_id", "patient_id") if k in text.columns), None)
    if key is None:
        raise InputError(f"{path}: needs a column image_id or patient_id beside role")
    roles = text["role"].str.lower().map(_ROLE_WORDS)
    refuse_line(roles.isna(), path, "; use train, val, test or unused", text["role"])
    roles = roles.astype(TEXT)
    rows = pd.DataFrame({key: text[key], "role": roles, "fold": _folds(text, roles, path)})
    known = _known_rows(rows, images, path, strict=strict)
    table = images[["image_id", "patient_id"]].sort_values("image_id", ignore_index=True)
    table = table.merge(known, on=key, how="left")
    _require_one_role(table, linked, path)
    lacking = table["role"].isna()
    n_lacking = int(lacking.sum())
    if strict and lacking.any():
        first = table.loc[lacking, "image_id"].iloc[0]
        raise InputError(
            f"{path}: gives no role to image {first!r} ({n_lacking} such images; without "
            "--strict they are unused)"
        )
    n_unknown = len(rows) - len(known)
    notes = []
    if n_lacking:
        notes.append(f"{path.name} gives no role to {counted(n_lacking, 'image')}: unused")
    if n_unknown:
        notes.append(f"{path.name} names {n_unknown:,} ids that are not in this data set: ignored")
    how: dict[str, Any] = {
        "method": "from a file",
        "file": path.name,
        "by": key,
        "n_images_without_role": n_lacking,
        "n_ids_unknown": n_unknown,
        "notes": notes,
    }
    return table.assign(role=table["role"].fillna("unused"))[["image_id", "role", "fold"]], how


def _folds(text: pd.DataFrame, roles: pd.Series, path: Path) -> pd.Series:
    if "fold" not in text.columns:
        return pd.Series(pd.NA, index=text.index, dtype="Int64")
    folds = to_numbers(text["fold"], path, "fold")
    wrong = (folds < 0) | (folds % 1 != 0) | (folds > 1e6) | is_member(roles, ["test", "unused"])
    reason = "; a fold is a whole number from 0 on, and empty on test and unused images"
    refuse_line(folds.notna() & wrong, path, reason, text["fold"])
    return folds.astype("Int64")


def _known_rows(
    rows: pd.DataFrame, images: pd.DataFrame, path: Path, *, strict: bool
) -> pd.DataFrame:
    """The rows whose id is in the data set; an id that appears more than once is an error."""
    column = str(rows.columns[0])
    ids = rows[column]
    repeated = ids.duplicated()
    if repeated.any():
        raise InputError(
            f"{path}: line {first_line(repeated)}: {column} {ids[repeated].iloc[0]!r} "
            "appears more than once; keep one line"
        )
    known = is_member(ids, images[column])
    unknown = pd.Series(~known, index=ids.index)
    if unknown.any() and (strict or not known.any()):
        example = images[column].iloc[0]
        shown = f"{example.split(':')[0]}:..." if ":" in example else repr(example)
        raise InputError(
            f"{path}: line {first_line(unknown)}: {column} {ids[unknown].iloc[0]!r} is not in the "
            f"data set ({int(unknown.sum())} such lines); its {column}s look like {shown}"
        )
    return rows[known]


def _require_one_role(table: pd.DataFrame, linked: Labels, path: Path) -> None:
    """Refuse a patient, or an image, with two roles or two folds; unused counts for nothing."""
    used = table[table["role"].notna() & (table["role"] != "unused")]
    place = used["role"] + used["fold"].astype(TEXT).radd(" of fold ").fillna("")
    owners = [("patient", used["patient_id"])]
    owners += [("image", keys.reindex(used["image_id"])) for keys in key_columns(linked)]
    for what, owner in owners:
        pairs = pd.DataFrame(
            {"owner": owner.to_numpy(), "place": place.to_numpy(), "image": used["image_id"]}
        ).dropna(subset="owner")
        pairs = pairs.drop_duplicates(["owner", "place"])
        repeated = pairs["owner"].duplicated()
        if not repeated.any():
            continue
        rows = pairs[pairs["owner"] == pairs.loc[repeated, "owner"].iloc[0]].iloc[:2]
        both = " and ".join(rows["place"])
        name = repr(rows["owner"].iloc[0])
        if what == "image":
            name = " = ".join(repr(image) for image in rows["image"])
        raise InputError(
            f"{path}: {what} {name} is in {both} ({int(repeated.sum())} such {what}s); a {what} "
            "has one role and fold: correct the file, or make the smaller part unused"
        )


def _nested_parts(
    split: pd.DataFrame, group: pd.Series, strata: pd.Series, shares: Sequence[float], seed: int = 0
) -> dict[float, pd.DataFrame]:
    """Keep a share of the patients who train and validate; test images stay as they are.

    Patients of a stratum are put in a random order, and the orders of all strata are merged so that
    each prefix holds every stratum in proportion. A share is a prefix: a smaller one lies within a
    larger one, and a patient is in it with all images or with none.
    """
    if bad := [share for share in shares if not 0 < share <= 1]:
        raise InputError(f"share {bad[0]:g}: give shares above 0 and up to 1, such as 0.25")
    owner = split["image_id"].map(group)
    places = {}
    for role in _ANNOTATED:
        of_role = pd.DataFrame({"group": owner, "stratum": split["image_id"].map(strata)})
        of_role = of_role[split["role"] == role].fillna({"stratum": ""})
        stratum = of_role.groupby("group", sort=True)["stratum"].max()  # of several: the last
        # Each role and share must not depend on the others: a generator of its own.
        rng = np.random.default_rng([seed, _ANNOTATED.index(role)])
        places[role] = _places(stratum, rng)
    parts = {}
    for share in shares:
        kept = split["role"].copy()
        for role, place in places.items():
            chosen = place.index[place < max(1, round(share * len(place)))]
            kept[(split["role"] == role) & ~owner.isin(chosen)] = "unused"
        parts[share] = split.assign(role=kept)
    return parts


def _places(stratum: pd.Series, rng: np.random.Generator) -> pd.Series:
    """The place of each group, from 0, in an order whose prefixes hold every stratum alike."""
    key = pd.Series(0.0, index=stratum.index)
    for _, members in stratum.groupby(stratum, sort=True):
        # A random start for each stratum: one of a single patient is not always in the same half.
        ranks = rng.permutation(len(members)) + rng.random()
        key[members.index] = ranks / len(members)
    return key.rank(method="first").astype(int) - 1


def _part_name(split: str, seed: int, share: float) -> str:
    """Name of the split that holds a part; the whole split is itself."""
    return split if share == 1 else f"{split}.part-{share:g}-seed-{seed}"


def draw_nested_parts(
    dataset: DataSet,
    target: Target,
    splits: Sequence[str],
    shares: Sequence[float],
    seeds: Sequence[int],
) -> dict[str, dict[tuple[float, int], pd.DataFrame]]:
    """Draw the parts of a data set's splits, see `_nested_parts`; nothing is written."""
    group = patient_groups(dataset.images, _links_of(dataset))
    label = dataset.labels(target).map({0.0: "negative", 1.0: "positive"}).fillna("")
    classes = image_strata(dataset.images, dataset.findings)["class"].fillna("")
    strata = label + " " + classes.reindex(label.index)
    return {
        split: {
            (share, seed): part
            for seed in seeds
            for share, part in _nested_parts(whole, group, strata, shares, seed).items()
        }
        for split, whole in ((split, dataset.split(split)) for split in splits)
    }


def add_nested_parts(
    dataset: DataSet, split: str, parts: Mapping[tuple[float, int], pd.DataFrame]
) -> dict[tuple[float, int], str]:
    """Add the parts of a split to its data set; those that are there are checked, and stay."""
    names = {}
    new = {}
    for (share, seed), table in parts.items():
        name = names[share, seed] = _part_name(split, seed, share)
        known = dataset.ids["split_ids"].get(name)
        if known is None:
            new[name] = table
        elif known != frame_digest(table, ["image_id", "role"]):
            raise InputError(
                f"{dataset.folder}: split '{name}' is not the part of '{split}' that its name "
                "says; was the split drawn anew? Remove it from the folder's splits, or choose "
                "another --split"
            )
    if new:
        how = {"method": f"nested parts of split '{split}', by patient"}
        _write_splits(dataset.folder, new, how, replaces=False)
    return names
