"""Images that names of other software are found for, as plain values."""

from cxr_compare import InputError
from cxr_compare.data_prep.base.image_names import Names


def images_of(names, ids):
    """The image of each name by name, or ("refused", the line)."""
    try:
        return Names(ids).match(names, "names")[0]
    except InputError as error:
        return "refused", str(error)
