"""Strata that a split balances: class, source, view and findings of each image."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member, positions
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT


def image_classes(images: pd.DataFrame, findings: pd.DataFrame) -> pd.Series:
    """Return the class of each image, by which train, validation and test are balanced.

    The class is the column ``x_class`` if the data set states one. Otherwise it is the rarest
    finding that is present on the image, or ``absent`` if no finding is present.

    Args:
        images: Images table: one row for each image, with patient, path and size.
        findings: Findings table: the state (present, absent, uncertain) of each finding, by image
            and reader.

    Returns:
        Class names indexed by ``image_id``; missing if nothing is known about the image.
    """
    ids = pd.Index(images["image_id"])
    reference = findings[findings["reader"] == REFERENCE_READER]
    absent = reference.loc[reference["state"] == "absent", "image_id"]
    present = reference[reference["state"] == "present"]
    finding, names = pd.factorize(present["finding"], sort=True)
    rarest_first = np.argsort(np.bincount(finding, minlength=len(names)), kind="stable")
    rank_of_finding = np.argsort(rarest_first)
    row = positions(present["image_id"], ids)
    rank = np.full(len(ids), len(names))
    np.minimum.at(rank, row[row >= 0], rank_of_finding[finding[row >= 0]])
    rank[(rank == len(names)) & ~is_member(ids, absent)] = -1
    class_names = pd.array([*names[rarest_first], "absent"], dtype=TEXT)
    classes = pd.Series(class_names.take(rank, allow_fill=True), index=ids)
    if "x_class" not in images.columns:
        return classes
    stated = images.set_index("image_id")["x_class"].astype(TEXT)
    return stated.where(stated.notna(), classes)


def image_strata(images: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """Return the kinds (strata) of each image, by which train, validation and test are balanced.

    Args:
        images: Images table: one row for each image, with patient, path and size.
        findings: Findings table: the state (present, absent, uncertain) of each finding, by image
            and reader.

    Returns:
        A table with one row for each image, indexed by ``image_id``, and one column for each
        property: ``class``, the source, the publisher's set and the view if images differ in them,
        and for each finding whether it is present on the image.
    """
    strata = image_classes(images, findings).rename("class").to_frame()
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
    row = positions(present["image_id"], strata.index)
    flags = np.zeros((len(strata), len(names)), dtype=bool)
    flags[row[row >= 0], code[row >= 0]] = True
    columns = [f"present: {name}" for name in names]
    return strata[several].join(pd.DataFrame(flags, index=strata.index, columns=columns))
