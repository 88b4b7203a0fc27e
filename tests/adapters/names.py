"""Images that names of other software are found for, as plain values."""

import pandas as pd

from cxr_compare import InputError
from cxr_compare.data_prep.base.ids import TEXT, is_member, positions
from cxr_compare.data_prep.base.image_names import Names


def images_of(names, ids):
    """The image of each name by name, or ("refused", the line)."""
    try:
        return Names(ids).match(names, "names")[0]
    except InputError as error:
        return "refused", str(error)


def members_and_positions(texts, others):
    """Return which texts are among others, and their places there; None is missing."""
    values, members = (pd.Series(of, dtype=TEXT) for of in (texts, others))
    return is_member(values, members).tolist(), positions(values, members).tolist()
