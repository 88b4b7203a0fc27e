"""The split of others as `cxr check` is given it: its lists, and the mapping to patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd

from cxr_compare.data_prep.audit.shared_patients import (
    SharedPatients,
    SplitCheck,
    require_roles,
    shared_names,
    shared_patients,
)
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path


def _read_checked(value: Any) -> Path:
    """Return the path of a data set, or of the file of a split."""
    path = as_path(value)
    if path.is_file():
        return path
    if not path.exists() and path.suffix.lower() in (".csv", ".tsv", ".txt", ".xlsx", ".gz"):
        raise InputError(f"{path}: no such file")
    require_kind(path, "data set")
    return path


CheckedData = Annotated[AnyPath, Argument(read=_read_checked, metavar="DATA")]
"""Parameter of `cxr check` that takes a data set, or a file with a split that somebody published.
"""


def check_split_file(
    path: Path, training: Sequence[Path], mapping: AnyPath | None, *, other_options: Sequence[str]
) -> SplitCheck:
    """Count the test and validation images whose patient is also in training, in published lists.

    The lists are those of a split (division into training, validation and test) that someone else
    made. `path` has the role of each image or patient, or with `training` the test images.
    `mapping` is a table or prepared data set with the patient of each image, or ``rsna`` for RSNA's
    mapping to images of NIH; None if the lists name patients, or images of NIH, whose names contain
    the patient. `other_options` are names of given options that only apply to data sets. Raises
    InputError for any of them, a list or mapping that cannot be read, or an image whose patient is
    not known.
    """
    if other_options:
        raise InputError(
            f"{other_options[0]}: is for a data set; {path} is a split of others, leave it out"
        )
    from cxr_compare.data_prep.sources.image_lists import read_image_list, read_role_table

    if training:
        trained = pd.concat([read_image_list(each) for each in training], ignore_index=True)
        return _check(path, "image_id", {"train": trained, "test": read_image_list(path)}, mapping)
    table = read_role_table(path)
    key = str(table.columns[0])
    return _check(
        path, key, {str(role): rows[key] for role, rows in table.groupby("role")}, mapping
    )


def _check(path: Path, key: str, ids: dict[str, pd.Series], mapping: AnyPath | None) -> SplitCheck:
    require_roles(str(path), ids)
    tested = [role for role in ("test", "val") if role in ids]
    if key == "patient_id" and mapping is None:
        named = tuple(shared_names(role, ids[role], ids["train"]) for role in tested)
        return SplitCheck(path.name, "", named)
    table, source = _patients(path, pd.concat(list(ids.values())), mapping)
    patients = table.set_index("image_id")["patient_id"]
    is_doubtful = table["patient_id_source"] == "mapped_unverified"
    doubtful = frozenset(table.loc[is_doubtful, "image_id"])
    found: list[SharedPatients] = [
        shared_patients(role, ids[role], ids["train"], patients, doubtful) for role in tested
    ]
    unknown = "" if found[0].training_known else "train"
    if not any(role.known for role in found):
        unknown = unknown or found[0].role
    if unknown:
        raise InputError(
            f"{path}: {source} names the patient of none of its {len(ids[unknown]):,} {unknown} "
            f"images (such as {ids[unknown].iloc[0]!r}); give a mapping that names them with "
            "--mapping"
        )
    return SplitCheck(path.name, source, tuple(found))


def _patients(path: Path, ids: pd.Series, mapping: AnyPath | None) -> tuple[pd.DataFrame, str]:
    """Return the patient by image and how it is known, and the name of the mapping."""
    from cxr_compare.data_prep.sources import patient_lookup

    if mapping is None:
        table = patient_lookup.nih_patients(ids)
        if table.empty:
            raise InputError(
                f"{path}: lists images, whose patients are not known; give a mapping with "
                "--mapping (rsna for images of the RSNA challenge, or a CSV image_id,patient_id)"
            )
        return table, "the names of NIH's images"
    given = as_path(mapping)
    if (given / "dataset.json").is_file():
        from cxr_compare.data_prep.dataset import DataSet

        images = DataSet.open(given).images
        return images[images["patient_id_source"] != "assumed_image"], given.name
    if str(given) == patient_lookup.RSNA and not given.exists():
        given = patient_lookup.find_rsna_mapping([path.parent, Path()])
    elif given.is_dir():
        given = patient_lookup.find_rsna_mapping([given])
    table = patient_lookup.read_patients(given)
    if table["patient_id"].str.startswith("nih:").any():
        table = pd.concat([table, patient_lookup.nih_patients(ids)]).drop_duplicates("image_id")
    return table, given.name
