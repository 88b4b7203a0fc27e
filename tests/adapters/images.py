"""One image file as plain values, its fingerprint, and whether it is taken as a radiograph."""

from pathlib import Path

import numpy as np

from cxr_compare import InputError
from cxr_compare.data_prep.copies import turn_image, turned_distances
from cxr_compare.data_prep.images.fingerprint import TURNS, perceptual_hash
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.loose_images import find_image_files
from cxr_compare.data_prep.images.radiograph_check import check_dicom_file
from cxr_compare.data_prep.images.refused_files import plain_reason

__all__ = ["TURNS", "find_image_files", "perceptual_hash", "plain_reason", "turn_image"]

_HEADER_FACTS = ("view", "sex", "age_years", "spacing_row_mm", "spacing_col_mm", "synthetic")


def read(path):
    """Read a file: ("read", greys as uint8 (H, W), facts, doubted) or ("refused", line)."""
    try:
        image = read_image(path)
    except InputError as error:
        return "refused", str(error)
    facts = {name: image.header.get(name) for name in _HEADER_FACTS}
    named = check_dicom_file(Path(path).parent, Path(path).name)
    facts |= {
        "patient": named.patient,
        "instance": named.image_id,
        "orientation": image.record["orientation"],
        "burned_in": image.record.get("burned_in_annotation"),
    }
    return "read", image.pixels, facts, bool(image.doubts)


def told(path):
    """All that a data set or a line on the screen may repeat of a file, as one text."""
    found = check_dicom_file(path.parent, path.name)
    header = (found.reason, found.view, found.sex, found.age_years)
    try:
        image = read_image(path)
    except InputError as error:
        return f"{error} {header}"
    return f"{image.record} {image.header} {header}"


def reason_to_leave_out(path):
    """Return why a tree of files leaves a file out; None if it is a frontal chest radiograph."""
    return check_dicom_file(path.parent, path.name).reason


def hash_distance(one, other):
    """Bits by which two fingerprints differ, and in which turn."""
    first, second = (np.frombuffer(bytes.fromhex(text), np.uint64) for text in (one, other))
    distance, turn = turned_distances((first ^ second)[None])
    return int(distance[0]), TURNS[turn[0]]
