"""Classes that exclude each other: findings of which each image shows one, or none."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.names import display_name

_NAMED = r"(?:^|, )([^,=]+) = no finding \("  # of labels in the table ``read``


def find_classes(
    findings: pd.DataFrame, image_ids: pd.Series, any_of: tuple[str, ...], where: str
) -> tuple[str, ...]:
    """Return the findings of which each image shows one or none; another image is refused.

    Without `any_of` these are all that are shown, but for those that join others, as pneumonia
    joins that of bacteria and that of viruses. Messages begin with `where`.
    """
    is_shown = is_member(findings["image_id"], image_ids) & (findings["state"] == "present")
    shown = findings[is_shown]
    images = shown.groupby("finding")["image_id"].agg(set)

    def joins_others(own: set[str]) -> bool:
        return own == set().union(*(of for of in images if of < own))

    names = any_of or tuple(str(n) for n, of in images.items() if not joins_others(of))
    own = findings[is_member(findings["finding"], names)]
    states = own.groupby(["image_id", "state"]).size().unstack(fill_value=0)
    n = states.reindex(image_ids, columns=["present", "absent", "uncertain"], fill_value=0)
    has_none = n["present"] == 0
    # An image of none of these findings is of the reference class only if it shows no other.
    is_other = (n["absent"] < len(names)) | is_member(n.index, shown["image_id"])
    is_wrong = (n["present"] > 1) | (n["uncertain"] > 0) | (has_none & is_other)
    for image in n.index[is_wrong | (not has_none.any())][:1]:
        of_image = findings[findings["image_id"] == image]
        labels = ", ".join(of_image["finding"] + " " + of_image["state"]) or "no label"
        raise InputError(
            f"{where}: training.loss=softmax takes images of one finding or of none, and some of "
            f"none: '{image}' has {labels}; correct its labels, leave it out (cxr prepare "
            "--exclude), say what counts as no finding (--columns means:TEXT=normal), or, for "
            "findings that may occur together, set training.loss=sigmoid"
        )
    return names


def reference_name(read: pd.DataFrame) -> str:
    """Return what a data set calls images without a finding, by its record of reading."""
    cells = read.loc[read["role"] == "label", "cells"]
    names = cells.str.extractall(_NAMED)[0].map(display_name).unique()
    return str(names[0]) if len(names) == 1 else "No finding"
