"""Drawing of the split of a data set, or adoption of roles that its source states."""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.duplicates.dataset_copies import find_dataset_copies
from cxr_compare.data_prep.duplicates.near_duplicates import NearDuplicates
from cxr_compare.data_prep.splits.balanced_folds import Labels
from cxr_compare.data_prep.splits.split import SplitRule, official_split, split_by_patient
from cxr_compare.data_prep.splits.strata import image_strata
from cxr_compare.data_prep.splits.write_split import SplitRecord
from cxr_compare.data_prep.store.dataset import DataSet


def draw_split(
    images: pd.DataFrame,
    findings: pd.DataFrame,
    stated: pd.DataFrame,
    rule: SplitRule,
    linked: Labels = None,
) -> tuple[pd.DataFrame, SplitRecord]:
    """Assign the patients of a data set to train, validation and test.

    The assignment is adopted if the publisher or user states it, and drawn at random otherwise.

    Args:
        images: Images table: one row for each image, with patient, path and size.
        findings: Findings table: the state (present, absent, uncertain) of each finding, by image
            and reader.
        stated: Table with columns ``image_id, role`` of images whose role (train, val, test or
            unused) is fixed. If all these roles are ``unused``, the roles of the other images are
            drawn.
        rule: Shares of patients for validation and test, number of folds, seed and method of the
            draw.
        linked: Key of each image, indexed by ``image_id``. Copies of an image have the same key,
            and so get the same role. None if no copies are known.

    Returns:
        Two values: a table with ``image_id``, ``role`` and ``fold`` (number of the cross-validation
        fold, from 0), and a JSON-ready record of the method and its options.
    """
    strata = image_strata(images, findings)
    if (stated["role"] != "unused").any():
        return official_split(stated, images, None, rule, strata=strata)
    free = images[~is_member(images["image_id"], stated["image_id"])]
    split = split_by_patient(free, strata, rule, linked)
    unused = stated.assign(fold=pd.array([pd.NA] * len(stated), dtype="Int64"))
    method = {"balanced": "by patient, StratifiedGroupKFold", "hash": "by patient"}[rule.method]
    how: SplitRecord = {"method": method, "rule": asdict(rule)}
    if rule.method == "balanced":
        how["balanced"] = list(strata.columns)
    else:
        expected = {role for role in ("val", "test") if asdict(rule)[role] > 0}
        empty = sorted(expected - set(split["role"]))
        if empty:
            how["notes"] = [
                f"by hash no patient was assigned to {' and '.join(empty)}: there are too few "
                "patients for that share"
            ]
    return pd.concat([split, unused]).sort_values("image_id", ignore_index=True), how


def image_links(decode: pd.DataFrame, near: NearDuplicates) -> pd.Series | None:
    """Return a key for each image that is the same for all copies of the image.

    Args:
        decode: Decode table: one row for each image, with the digest of its pixels. It may be
            empty.
        near: Pairs of nearly equal images of the same data set.

    Returns:
        Keys, indexed by ``image_id``; None if no image was decoded.
    """
    return None if decode.empty else near.copy_keys(decode)


def dataset_links(dataset: DataSet) -> pd.Series | None:
    """Return a key for each image of a data set that is the same for all copies of the image.

    Args:
        dataset: A prepared data set.

    Returns:
        Keys, indexed by ``image_id``; None if no image was decoded.
    """
    decode = dataset.optional_table("decode")
    return image_links(decode, find_dataset_copies(dataset, decode))
