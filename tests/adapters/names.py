"""Images that names of other software are found for, as plain values."""

from cxr_compare import InputError
from cxr_compare.data_prep.base.ids import match_ids


def images_of(names, ids):
    """The image of each name by name, or ("refused", the line)."""
    try:
        return match_ids(names, ids, "names")[0]
    except InputError as error:
        return "refused", str(error)
