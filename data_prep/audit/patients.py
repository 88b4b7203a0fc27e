"""Patients in two roles, roles without a class, and impossible facts of people and images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from data_prep.audit.problem import Problem
from data_prep.contracts.tables import is_member, positions
from data_prep.duplicates.near_duplicates import patient_groups

OLDEST_YEARS = 120.0
SMALLEST_SIDE = 128
JUDGED_ROLES = ("train", "val", "test")


def find_leaks(images: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Find patients whose images have more than one role."""
    used = split.loc[is_member(split["role"], JUDGED_ROLES), ["image_id", "role"]]
    rows = images[["patient_id", "image_id"]].merge(used, on="image_id")
    rows["group"] = rows["image_id"].map(patient_groups(images))
    leaks = differing(rows, "group", "role")
    columns = ["patient_id", "image_id", "role"]
    return leaks[columns].sort_values(columns, ignore_index=True)


def find_duplicates(images: pd.DataFrame, column: str = "pixel_sha256") -> pd.DataFrame:
    """Find images that are equal."""
    present = images.loc[images[column].notna(), ["image_id", column]]
    repeated = present[present[column].duplicated(keep=False)].sort_values("image_id")
    groups = repeated.assign(group=pd.factorize(repeated[column])[0])[["group", "image_id"]]
    return groups.sort_values(["group", "image_id"], ignore_index=True)


def differing(rows: pd.DataFrame, group: str, column: str) -> pd.DataFrame:
    """The rows of the groups in which a column has more than one value; missing is none."""
    present = rows[rows[column].notna()]
    group_codes = pd.factorize(present[group])[0]
    values = pd.DataFrame({"group": group_codes, "value": pd.factorize(present[column])[0]})
    lowest = values.groupby("group")["value"].transform("min").to_numpy()
    highest = values.groupby("group")["value"].transform("max").to_numpy()
    return present[lowest != highest]


def contrasting_pairs(rows: pd.DataFrame, group: str, column: str) -> pd.DataFrame:
    """Two images a group that differ in a column, to be shown side by side."""
    ordered = rows.sort_values([group, column, "image_id"])
    one = ordered.drop_duplicates(group)["image_id"].to_numpy()
    other = ordered.drop_duplicates(group, keep="last")["image_id"].to_numpy()
    return pd.DataFrame({"one": one, "other": other})


def aligned(labels: pd.DataFrame, image_ids: pd.Series) -> np.ndarray:
    """The labels of the images named, NaN for one that has none."""
    rows = positions(image_ids, labels.index)
    values = labels.to_numpy(dtype="float64")
    chosen = values[rows] if len(values) else np.full((len(rows), values.shape[1]), np.nan)
    chosen[rows < 0] = np.nan
    return chosen


def check_leaks(images: pd.DataFrame, split: pd.DataFrame, name: str) -> list[Problem]:
    """Report patients in two roles of a split, and images that the split forgets or invents."""
    leaks = find_leaks(images, split)
    missing = images.loc[~is_member(images["image_id"], split["image_id"]), "image_id"]
    unknown = split.loc[~is_member(split["image_id"], images["image_id"]), "image_id"]
    problems = [
        Problem.of(
            "patient_leak",
            "error",
            f"split '{name}': patient in more than one role, so test figures come out too good",
            leaks["patient_id"],
            unit="patient",
            pairs=contrasting_pairs(leaks, "patient_id", "role"),
        ),
        Problem.of("split_lacks", "error", f"split '{name}': image without a role", missing),
        Problem.of(
            "split_unknown",
            "error",
            f"split '{name}': image not in the set",
            unknown,
            unit="foreign image",
        ),
    ]
    return [replace(problem, split=name) for problem in problems]


def check_roles(split: pd.DataFrame, labels: pd.DataFrame, name: str) -> list[Problem]:
    """Report roles in which a target has only one class: nothing can be learned or judged."""
    lacking = []
    for role in JUDGED_ROLES:
        chosen = labels[is_member(labels.index, split.loc[split["role"] == role, "image_id"])]
        if role == "train" and not len(chosen):
            continue  # a set to judge on needs none
        for target in labels.columns:
            for word, value in (("positive", 1.0), ("negative", 0.0)):
                if not (chosen[target] == value).any():
                    lacking.append(f"{role} has no {word} image of '{target}'")
    more = f", and {len(lacking) - 3} more such" if len(lacking) > 3 else ""
    text = f"split '{name}': {', '.join(lacking[:3])}{more}"
    advice = "add images, or draw a split with other shares; nothing can be judged there"
    return [Problem("one_class", "warning", text, len(lacking), (), advice, "case", split=name)]


def check_people(images: pd.DataFrame, splits: dict[str, pd.DataFrame]) -> list[Problem]:
    """Report impossible ages, patients of two sexes, and patients that are only assumed."""
    ages = images["age_years"]
    impossible = (ages < 0) | (ages > OLDEST_YEARS)
    sexes = differing(images[is_member(images["sex"], ["M", "F"])], "patient_id", "sex")
    used = [s.loc[is_member(s["role"], JUDGED_ROLES), "image_id"] for s in splits.values()]
    assumed = images.loc[(images["patient_id_source"] == "assumed_image").to_numpy(), "image_id"]
    if used:
        assumed = assumed[is_member(assumed, pd.concat(used))]
    return [
        Problem.of(
            "age",
            "warning",
            f"age below 0 or above {OLDEST_YEARS:g} years",
            images.loc[impossible.to_numpy(), "image_id"],
            advice="correct the source or take the age as unknown; subgroups by age are off",
        ),
        Problem.of(
            "two_sexes",
            "warning",
            "patient with images of both sexes: is the patient id right?",
            sexes["patient_id"],
            advice="compare the images; if they show two people, give them two ids",
            unit="patient",
            pairs=contrasting_pairs(sexes, "patient_id", "sex"),
        ),
        Problem.of(
            "patient_assumed",
            "warning",
            "image whose patient is not known and counts as a patient of its own: the same person "
            "may be in training and test",
            assumed,
            advice="give patient ids (--patient-pattern, or a patient_id column); until then read "
            "every interval as too narrow",
            pairs=pd.DataFrame(),
        ),
    ]


def check_images(images: pd.DataFrame) -> list[Problem]:
    """Report laterals among frontals, images of no known view, and images too small to judge."""
    view = images["view"]
    lateral = is_member(view, ["LL"])
    unknown = is_member(view, ["other"])
    problems = []
    if not lateral.all():
        text = f"lateral view among {int((~lateral).sum()):,} that are not"
        advice = "leave laterals out, or judge them as a subgroup: another image of the chest"
        problems.append(
            Problem.of("view_lateral", "warning", text, images.loc[lateral, "image_id"],
                       advice=advice)
        )  # fmt: skip
    short = images[["width", "height"]].min(axis=1)
    return [
        *problems,
        Problem.of(
            "view_other",
            "warning",
            "view that is neither PA nor AP nor lateral",
            images.loc[unknown, "image_id"],
            advice="look at them: oblique and special images may have to be left out",
        ),
        Problem.of(
            "picture_small",
            "warning",
            f"image with a side below {SMALLEST_SIDE} px: small lesions are lost",
            images.loc[(short < SMALLEST_SIDE).fillna(False).to_numpy(dtype=bool), "image_id"],
            advice="go back to the originals; a model cannot find what the image does not show",
        ),
    ]
