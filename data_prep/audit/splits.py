"""Checks of splits: patients in two roles, images without a role, roles with one class.

The functions take tables. The columns of a split are ``image_id`` and ``role`` (``train``, ``val``,
``test`` or ``unused``). Labels have a row for each image and a column for each target: 1 positive,
0 negative, NaN unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.audit.problem import (
    EVALUATED_ROLES,
    Problem,
    evaluated_images,
    rows_that_differ,
)
from cxr_compare.data_prep.contracts.ids import is_member, positions
from cxr_compare.data_prep.contracts.text import TEXT

_TEST_SHARE = 0.2
_SMALLEST_LEAK = 0.01  # share of leaking test images from which a split by image is mentioned


def find_leaks(images: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Find the images of patients who are in more than one of train, validation and test.

    `split` has columns ``image_id`` and ``role``. The result has ``patient_id, image_id, role`` and
    is sorted.
    """
    evaluated = evaluated_images(split)
    row = positions(evaluated["image_id"], images["image_id"])
    patient = images["patient_id"].array.take(row, allow_fill=True)
    known = evaluated.assign(patient_id=patient)[row >= 0]
    columns = ["patient_id", "image_id", "role"]
    leaks = rows_that_differ(known, "patient_id", "role")[columns].astype({"patient_id": TEXT})
    return leaks.sort_values(columns, ignore_index=True)


def check_leaks(images: pd.DataFrame, split: pd.DataFrame, name: str) -> list[Problem]:
    """Report patients in two of train, validation and test, and images in only one of the tables.

    Args:
        images: Table with columns ``image_id`` and ``patient_id``.
        split: Table with columns ``image_id`` and ``role``.
        name: Name of the split, such as ``default``, for messages.

    Returns:
        One problem for each kind of fault; its count is 0 if there is none.
    """
    missing = images.loc[~is_member(images["image_id"], split["image_id"]), "image_id"]
    unknown = split.loc[~is_member(split["image_id"], images["image_id"]), "image_id"]
    return [
        Problem.from_groups(
            "patient_leak",
            "error",
            f"split '{name}': patient in more than one role, which makes test figures too good",
            find_leaks(images, split),
            group="patient_id",
            differ="role",
            unit="patient",
            split=name,
        ),
        Problem.from_cases(
            "split_lacks", "error", f"split '{name}': image without a role", missing, split=name
        ),
        Problem.from_cases(
            "split_unknown",
            "error",
            f"split '{name}': image not in the set",
            unknown,
            unit="foreign image",
            split=name,
        ),
    ]


def check_roles(split: pd.DataFrame, labels: pd.DataFrame, name: str) -> list[Problem]:
    """Report each of train, validation and test that has no positive or no negative images.

    Args:
        split: Table with columns ``image_id`` and ``role``.
        labels: Labels, indexed by ``image_id``.
        name: Name of the split, such as ``default``, for messages.

    Returns:
        One problem; its count is 0 if every role has both classes of each target.
    """
    role = split["role"].array.take(positions(labels.index, split["image_id"]), allow_fill=True)
    lacking = []
    for part in EVALUATED_ROLES:
        chosen = labels[is_member(pd.Series(role), [part])]
        if part == "train" and not len(chosen):
            continue  # a data set may be for evaluation only
        for target in labels.columns:
            for class_name, value in (("positive", 1.0), ("negative", 0.0)):
                if not (chosen[target] == value).any():
                    lacking.append(f"{part} has no {class_name} image of '{target}'")
    more = f", and {len(lacking) - 3} more such" if len(lacking) > 3 else ""
    text = f"split '{name}': {', '.join(lacking[:3])}{more}"
    advice = "add images, or draw a split with other shares; nothing can be evaluated there"
    return [Problem("one_class", "warning", text, len(lacking), (), advice, "case", split=name)]


def expected_image_leak(images: pd.DataFrame) -> dict[str, Any]:
    """Compute how many test images would leak if a split were drawn by image instead of by patient.

    A sibling is another image of the same patient. A test image leaks if it has a sibling in
    training. If ``m`` of ``N`` images are drawn for test, a test image of a patient with ``k``
    images has all its siblings in test with probability ``(m-1)(m-2)...(m-k+1) /
    ((N-1)(N-2)...(N-k+1))``. The expected share of leaking test images is 1 minus the mean of this
    probability over all images. The result is exact.

    Args:
        images: Table with the column ``patient_id``, one row for each image.

    Returns:
        Share (``expected_share``) and number of leaking test images, and the numbers from which
        they are computed, by name.

    Example:
        >>> images = pd.DataFrame({"patient_id": ["p", "p", "q", "r", "s"]})
        >>> expected_image_leak(images)["expected_share"]
        0.4
    """
    images_of_patient = np.bincount(pd.factorize(images["patient_id"])[0])
    sizes, patients = np.unique(images_of_patient, return_counts=True)
    n = len(images)
    m = min(max(round(_TEST_SHARE * n), 1), n)
    alone = 0.0
    for size, many in zip(sizes.tolist(), patients.tolist(), strict=True):
        steps = np.arange(1, size)
        alone += size * many * float(np.prod(np.clip(m - steps, 0, None) / (n - steps)))
    share = 1 - alone / n
    return {
        "test_share": _TEST_SHARE,
        "n_test": m,
        "expected_share": share,
        "expected_images": share * m,
        "n_patients": int(patients.sum()),
    }


def check_image_leak(leak: Mapping[str, Any]) -> list[Problem]:
    """Report the leak that a split by image would have, as `expected_image_leak` computed it."""
    if leak["expected_share"] < _SMALLEST_LEAK:
        return []
    text = (
        f"a split by image instead of by patient would put patients of {leak['expected_share']:.1%}"
        " of the test images into training, too"
    )
    advice = "split by patient, as cxr does; distrust published figures that did not"
    count = round(leak["expected_images"])
    return [Problem("split_by_image", "info", text, count, (), advice, "test image")]
