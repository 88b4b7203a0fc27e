"""Number of images per patient in public data sets of chest X-rays.

Source:
    RSNA Pneumonia Detection Challenge: 26,684 images of 11,439 patients, by torchxrayvision's
    mapping to NIH ChestX-ray14. NIH ChestX-ray14, ``Data_Entry_2017_v2020.csv``: 112,120 images of
    30,805 patients.
"""

from __future__ import annotations

from typing import NamedTuple


class ImageNumbers(NamedTuple):
    """Moments of the number of images per patient in a data set, to plan a study.

    Attributes:
        mean_square: Mean of the squared number of images.
        patients_per_freedom: Number of patients behind one degree of freedom of an estimated
            variance. A patient with ``n`` images adds about ``n (1 + (n - 1) / 2)`` to the
            variance. The value is half the mean square of this term, divided by its squared mean.
    """

    mean: float
    mean_square: float
    patients_per_freedom: float


IMAGE_NUMBERS = {
    "rsna": ImageNumbers(2.33272, 17.0067, 15.0),
    "nih": ImageNumbers(3.63967, 66.0509, 33.0),
}
"""Measured moments of the number of images per patient, by data set."""


IMAGES_PER_PATIENT = {
    "rsna": {
        1: 7084, 2: 1810, 3: 924, 4: 448, 5: 282, 6: 182, 7: 142, 8: 115, 9: 65, 10: 58, 11: 38,
        12: 42, 13: 44, 14: 25, 15: 26, 16: 24, 17: 17, 18: 19, 19: 12, 20: 8, 21: 6, 22: 8, 23: 9,
        24: 7, 25: 5, 26: 5, 28: 6, 29: 3, 30: 4, 32: 1, 33: 2, 35: 3, 36: 1, 39: 1, 40: 3, 41: 1,
        42: 1, 43: 2, 44: 1, 48: 2, 55: 1, 64: 1, 65: 1,
    },
    "nih": {
        1: 17503, 2: 4113, 3: 2100, 4: 1330, 5: 938, 6: 787, 7: 608, 8: 494, 9: 387, 10: 320,
        11: 281, 13: 702, 18: 439, 25: 406, 38: 246, 61: 117, 109: 34,
    },
}  # fmt: skip
"""Number of patients by number of images, for each data set; NIH is in classes above 11 images."""
