"""Draw the split of a data set, or follow the roles that it came with."""

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
    given: pd.DataFrame,
    rule: SplitRule,
    linked: Labels = None,
) -> tuple[pd.DataFrame, SplitRecord]:
    """Split a data set by patient, or follow the roles that it came with."""
    strata = image_strata(images, findings)
    if (given["role"] != "unused").any():
        return official_split(given, images, None, rule, strata=strata)
    free = images[~is_member(images["image_id"], given["image_id"])]
    split = split_by_patient(free, strata, rule, linked)
    unused = given.assign(fold=pd.array([pd.NA] * len(given), dtype="Int64"))
    method = {"balanced": "by patient, StratifiedGroupKFold", "hash": "by patient"}[rule.method]
    how: SplitRecord = {"method": method, "rule": asdict(rule)}
    if rule.method == "balanced":
        how["balanced"] = list(strata.columns)
    elif empty := sorted({r for r in ("val", "test") if asdict(rule)[r] > 0} - set(split["role"])):
        how["notes"] = [f"by hash no patient came to {' and '.join(empty)}: too few for that share"]
    return pd.concat([split, unused]).sort_values("image_id", ignore_index=True), how


def image_links(decode: pd.DataFrame, near: NearDuplicates) -> pd.Series | None:
    """The key that copies of one image share: equal pixels, or found to be nearly equal."""
    return None if decode.empty else near.linked(decode)


def dataset_links(dataset: DataSet) -> pd.Series | None:
    """`image_links` of a prepared data set."""
    decode = dataset.optional_table("decode")
    return image_links(decode, find_dataset_copies(dataset, decode))
