"""One image file as plain values, and whether a tree of files takes it as a chest radiograph."""

from cxr_compare import InputError
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.radiograph_check import check_dicom_file

_HEADER_FACTS = ("view", "sex", "age_years", "synthetic")


def read(path):
    """Read a file: ("read", greys as uint8 (H, W), facts, doubted) or ("refused", line)."""
    try:
        image = read_image(path)
    except InputError as error:
        return "refused", str(error)
    facts = {name: image.header.get(name) for name in _HEADER_FACTS}
    facts |= {
        "spacing_row_mm": image.spacing_row_mm,
        "spacing_col_mm": image.spacing_col_mm,
        "patient": image.patient,
        "instance": image.instance,
        "orientation": image.record["orientation"],
        "burned_in": image.record.get("burned_in_annotation"),
    }
    return "read", image.pixels, facts, bool(image.doubts)


def reason_to_leave_out(path):
    """Return why a tree of files leaves a file out; None if it is a frontal chest radiograph."""
    return check_dicom_file(path.parent, path.name).reason
