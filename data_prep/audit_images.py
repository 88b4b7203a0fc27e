"""Patients in two roles, pictures that stand twice, and facts about people that cannot be."""

from __future__ import annotations

import pandas as pd

from data_prep.audit_problem import Problem
from data_prep.membership import is_member

OLDEST_YEARS = 120.0
_JUDGED = ("train", "val", "test")


def find_leaks(images: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Find patients whose images have more than one role.

    Args:
        images: Reads ``image_id``, ``patient_id``.
        split: Reads ``image_id``, ``role``; unused images count for nothing.

    Returns:
        ``patient_id, image_id, role`` of every image of such patients, sorted; empty if none.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a", "b", "c"], "patient_id": ["p", "p", "q"]})
        >>> split = pd.DataFrame({"image_id": ["a", "b", "c"], "role": ["train", "test", "test"]})
        >>> find_leaks(images, split)["patient_id"].tolist()
        ['p', 'p']
    """
    used = split.loc[is_member(split["role"], _JUDGED), ["image_id", "role"]]
    rows = images[["patient_id", "image_id"]].merge(used, on="image_id")
    roles = rows.groupby("patient_id")["role"].transform("nunique")
    columns = ["patient_id", "image_id", "role"]
    return rows.loc[roles > 1, columns].sort_values(columns, ignore_index=True)


def find_duplicates(pictures: pd.DataFrame, column: str = "pixel_sha256") -> pd.DataFrame:
    """Find images that hold the same picture.

    Args:
        pictures: Reads ``image_id`` and the column; missing values match nothing.
        column: ``pixel_sha256`` (equal once decoded) or ``file_sha256`` (equal byte by byte).

    Returns:
        ``group, image_id``, sorted; images of one group are equal. Empty if none are.

    Example:
        >>> pictures = pd.DataFrame({"image_id": ["a", "b", "c"], "pixel_sha256": ["1", "2", "1"]})
        >>> find_duplicates(pictures)["image_id"].tolist()
        ['a', 'c']
    """
    known = pictures.loc[pictures[column].notna(), ["image_id", column]]
    twice = known[known[column].duplicated(keep=False)].sort_values("image_id")
    groups = twice.assign(group=pd.factorize(twice[column])[0])[["group", "image_id"]]
    return groups.sort_values(["group", "image_id"], ignore_index=True)


def check_leaks(images: pd.DataFrame, split: pd.DataFrame, name: str) -> list[Problem]:
    """Report patients in two roles of a split, and images that the split forgets or invents."""
    leaks = find_leaks(images, split)
    lost = images.loc[~is_member(images["image_id"], split["image_id"]), "image_id"]
    strange = split.loc[~is_member(split["image_id"], images["image_id"]), "image_id"]
    return [
        Problem.of(
            "patient_leak",
            "error",
            f"split '{name}': patient in more than one role, so test figures come out too good",
            leaks["patient_id"],
        ),
        Problem.of("split_lacks", "error", f"split '{name}': image without a role", lost),
        Problem.of("split_unknown", "error", f"split '{name}': image not in the set", strange),
    ]


def check_roles(split: pd.DataFrame, labels: pd.Series, target: str, name: str) -> list[Problem]:
    """Report roles in which a target has only one class, so that nothing can be learned or judged.

    Args:
        split: Reads ``image_id``, ``role``.
        labels: 1.0, 0.0 or NaN, indexed by ``image_id``.
        target: The target's name.
        name: The split's name.
    """
    roles = split.set_index("image_id")["role"].reindex(labels.index)
    problems = []
    for role in _JUDGED:
        if role == "train" and not (roles == role).any():
            continue  # a set to judge on needs none
        known = labels[(roles == role) & labels.notna()]
        lacking = [
            word for word, value in (("positive", 1), ("negative", 0)) if value not in set(known)
        ]
        if lacking:
            text = f"split '{name}': {role} has no {' and no '.join(lacking)} image of '{target}'"
            problems.append(Problem("one_class", "warning", text, 1))
    return problems


def check_duplicates(
    images: pd.DataFrame,
    decode: pd.DataFrame,
    labels: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
) -> list[Problem]:
    """Report equal pictures, the worse the more they disagree.

    Args:
        images: Reads ``image_id``, ``patient_id``.
        decode: Reads ``image_id``, ``pixel_sha256``.
        labels: One column a target, indexed by ``image_id``.
        splits: Splits by name.
    """
    twins = find_duplicates(decode).merge(images[["image_id", "patient_id"]], on="image_id")
    if twins.empty:
        return []
    problems = []
    for name, split in splits.items():
        used = split[is_member(split["role"], _JUDGED)]
        roles = twins.merge(used[["image_id", "role"]], on="image_id")
        problems.append(
            Problem.of(
                "picture_leak",
                "error",
                f"split '{name}': the same picture in more than one role",
                _differing(roles, "role"),
            )
        )
    for target in labels.columns:
        known = twins.assign(label=twins["image_id"].map(labels[target])).dropna(subset="label")
        problems.append(
            Problem.of(
                "picture_label",
                "error",
                f"the same picture is labelled differently for '{target}'",
                _differing(known, "label"),
            )
        )
    two_patients = _differing(twins, "patient_id")
    same = twins.loc[~is_member(twins["image_id"], two_patients), "image_id"]
    return [
        *problems,
        Problem.of(
            "picture_patients",
            "error",
            "the same picture under more than one patient: one of the patient ids is wrong",
            two_patients,
        ),
        Problem.of(
            "picture_repeated", "warning", "the same picture more than once for a patient", same
        ),
    ]


def _differing(twins: pd.DataFrame, column: str) -> pd.Series:
    """Images of the groups in which a column has more than one value."""
    values = twins.groupby("group")[column].transform("nunique")
    return twins.loc[values > 1, "image_id"]


def check_people(images: pd.DataFrame, splits: dict[str, pd.DataFrame]) -> list[Problem]:
    """Report impossible ages, patients of two sexes, and patients that are only assumed.

    Args:
        images: The images table, with ``age_years`` and ``sex``.
        splits: Splits by name; an unused image may have an unknown patient.
    """
    ages = images["age_years"]
    known = images[is_member(images["sex"], ["M", "F"])]
    sexes = known.groupby("patient_id")["sex"].transform("nunique")
    used = [s.loc[is_member(s["role"], _JUDGED), "image_id"] for s in splits.values()]
    assumed = images.loc[images["patient_id_source"] == "assumed_image", "image_id"]
    if used:
        assumed = assumed[is_member(assumed, pd.concat(used))]
    return [
        Problem.of(
            "age",
            "warning",
            f"age below 0 or above {OLDEST_YEARS:g} years",
            images.loc[(ages < 0) | (ages > OLDEST_YEARS), "image_id"],
        ),
        Problem.of(
            "two_sexes",
            "warning",
            "patient with images of both sexes: is the patient id right?",
            known.loc[sexes > 1, "patient_id"],
        ),
        Problem.of(
            "patient_assumed",
            "warning",
            "image whose patient is not known and counts as a patient of its own: the same person "
            "may be in training and test",
            assumed,
        ),
    ]
