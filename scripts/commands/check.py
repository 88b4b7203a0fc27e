"""`cxr check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
from cyclopts import Parameter

from cxr_compare.data_prep.audit.audit import Audit
from cxr_compare.data_prep.audit.shared_patients import SplitCheck
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.options import AnyPath, open_workers


def check(
    data: Annotated[AnyPath, Parameter(help="Data set, or a table or list of a published split.")],
    *,
    split: str | None = None,
    train: list[Path] | None = None,
    mapping: AnyPath | None = None,
) -> Audit | SplitCheck:
    """Search a data set, or a split that somebody published, for leaks and faults.

    Of a data set it writes audit.html (the page to read), audit_cases.csv, audit.json and
    exclude.csv (images to leave out, for `cxr prepare --exclude`) into the folder; exit status 1
    says that there is an error. Of a published split, a table with a column of images or patients
    and one of roles (train, val, test), it counts the test images whose patient is in training,
    too; exit status 1 says that there are some.

    Args:
        split: Split of the data set that is reported; all without it.
        train: List of training images, where DATA is a list of test images; may be repeated.
        mapping: Patient of each image of a published split: a table image_id,patient_id, a data
            set, or rsna for images of the RSNA challenge.
    """
    data = Path(data)
    if not data.exists():
        raise InputError(f"{data}: no such file or folder; give a data set or a published split")
    if data.is_file():
        if split is not None:
            raise InputError(f"split: is for a data set, and {data} is a published split")
        given = [train] if isinstance(train, str | Path) else train or ()
        return _check_split(data, [Path(each) for each in given], mapping)
    if train or mapping is not None:
        argument = "train" if train else "mapping"
        raise InputError(f"{argument}: is for a published split, and {data} is a folder")
    from dataclasses import replace

    from cxr_compare.data_prep.audit import audit, page
    from cxr_compare.data_prep.contracts.locks import folder_lock
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.evaluation.inputs.file_facts import measure_shortcuts

    dataset = DataSet.open(data)
    if split is not None:
        dataset.split(split)  # refuses a name that it does not have, before anything is measured
    with open_workers() as workers:
        found = audit.audit(dataset, measure_shortcuts=measure_shortcuts, workers=workers)
    with folder_lock(data):
        page.write_audit(dataset, found, data, pixels=True)
    return replace(found if split is None else found.for_split(split), folder=data)


def _check_split(path: Path, training: list[Path], mapping: AnyPath | None) -> SplitCheck:
    from cxr_compare.data_prep.audit.shared_patients import (
        SplitCheck,
        require_roles,
        shared_names,
        shared_patients,
    )
    from cxr_compare.data_prep.sources.image_lists import read_image_list, read_role_table

    key = "image_id"
    if training:
        trained = pd.concat([read_image_list(each) for each in training], ignore_index=True)
        ids = {"train": trained, "test": read_image_list(path)}
    else:
        table = read_role_table(path)
        key = str(table.columns[0])
        ids = {str(role): rows[key] for role, rows in table.groupby("role")}
    require_roles(str(path), ids)
    roles = [role for role in ("test", "val") if role in ids]
    if key == "patient_id" and mapping is None:
        named = [shared_names(role, ids[role], ids["train"]) for role in roles]
        return SplitCheck(path.name, "", tuple(named))
    known, source = _patients(path, pd.concat(list(ids.values())), mapping)
    patients = known.set_index("image_id")["patient_id"]
    is_doubtful = known["patient_id_source"] == "mapped_unverified"
    doubtful = frozenset(known.loc[is_doubtful, "image_id"])
    found = [shared_patients(role, ids[role], ids["train"], patients, doubtful) for role in roles]
    unknown = "" if found[0].training_known else "train"
    if not any(role.known for role in found):
        unknown = unknown or roles[0]
    if unknown:
        raise InputError(
            f"{path}: {source} names the patient of none of its {len(ids[unknown]):,} {unknown} "
            f"images (such as {ids[unknown].iloc[0]!r}); give a mapping that does"
        )
    return SplitCheck(path.name, source, tuple(found))


def _patients(path: Path, ids: pd.Series, mapping: AnyPath | None) -> tuple[pd.DataFrame, str]:
    from cxr_compare.data_prep.sources import patient_lookup

    of_names = patient_lookup.nih_patients(ids)
    if mapping is None:
        if of_names.empty:
            raise InputError(
                f"{path}: lists images, whose patients are not known; give a mapping (rsna, or a "
                "table image_id,patient_id)"
            )
        return of_names, "the names of NIH's images"
    mapping = Path(mapping)
    if (mapping / "dataset.json").is_file():
        from cxr_compare.data_prep.dataset import DataSet

        images = DataSet.open(mapping).images
        return images[images["patient_id_source"] != "assumed_image"], mapping.name
    if str(mapping) == patient_lookup.RSNA and not mapping.exists():
        mapping = patient_lookup.find_rsna_mapping([path.parent, Path()])
    elif mapping.is_dir():
        mapping = patient_lookup.find_rsna_mapping([mapping])
    table = patient_lookup.read_patients(mapping)
    if table["patient_id"].str.startswith("nih:").any():
        table = pd.concat([table, of_names]).drop_duplicates("image_id")
    return table, mapping.name
