"""Classes that exclude each other: findings of which each image shows one, or none."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.names import display_name


def find_classes(
    findings: pd.DataFrame, image_ids: pd.Series, any_of: tuple[str, ...], where: str
) -> tuple[tuple[str, ...], str]:
    """Return findings of which each image shows one or none; images that do not are refused.

    Without `any_of` these are all that are shown, but for those that join others, as pneumonia
    joins that of bacteria and that of viruses. Images of none of them are the reference class. The
    second value is the other finding that all of these show, or empty. Messages begin with `where`.
    """
    shown = findings[findings["state"] == "present"]
    images = shown.groupby("finding")["image_id"].agg(set)
    names = any_of or tuple(
        str(name)
        for name, own in images.items()
        if own != set().union(*(part for part in images if part < own))
    )
    own = findings[is_member(findings["finding"], names)]
    states = own.groupby(["image_id", "state"]).size().unstack(fill_value=0)
    n = states.reindex(image_ids, columns=["present", "absent", "uncertain"], fill_value=0)
    has_none = n["present"] == 0
    rest = shown[is_member(shown["image_id"], n.index[has_none])]
    is_wrong = (n["present"] > 1) | (n["uncertain"] > 0) | (has_none & (n["absent"] < len(names)))
    others = {*rest["finding"]}
    if len(others) > 1 or len(rest) < has_none.sum():  # several classes are in it
        is_wrong |= is_member(n.index, rest["image_id"])
    for image in n.index[is_wrong | (not has_none.any())][:1]:
        of_image = findings[findings["image_id"] == image]
        labels = ", ".join(of_image["finding"] + " " + of_image["state"]) or "no label"
        raise InputError(
            f"{where}: training.loss=softmax takes images of one finding or of none, and some of "
            f"none: '{image}' has {labels}; correct its labels, leave it out (cxr prepare "
            "--exclude), give as data.target one of all classes but one (cxr prepare --target), "
            "or, for findings that may occur together, set training.loss=sigmoid"
        )
    return names, "".join(others)


def reference_name(read: pd.DataFrame) -> str:
    """Return what a data set calls images without a finding, by its record of reading."""
    names = read.loc[read["fact"] == "no_finding", "text"].map(display_name).unique()
    return str(names[0]) if len(names) == 1 else "No finding"
