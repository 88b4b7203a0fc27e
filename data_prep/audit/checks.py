"""What an audit has to say, in plain words: of patients, roles, boxes, images and shortcuts.

What it says of copies and of text in images is in `data_prep.audit.copies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.data_prep.contracts.ids import is_member, positions
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.near_duplicates import patient_groups
from cxr_compare.data_prep.images.image_facts import read_border_greys

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
_SHOWN = 5


@dataclass(frozen=True)
class Problem:
    """A finding of the audit."""

    check: str  # short name of the check, for programs
    severity: Severity  # `error` makes results wrong, `warning` may, `info` is worth knowing
    message: str  # a sentence for the person who owns the data
    count: int  # how many images or patients are concerned
    examples: tuple[str, ...] = ()  # up to five of them by id
    advice: str = ""
    unit: str = "image"  # what is counted: image, patient, ...
    # the first cases to look at, each one image or a pair, by `image_id`; by path what was left out
    pictures: tuple[tuple[str, ...], ...] = ()
    split: str = ""  # name of the split that it is of; empty where it is of the whole set
    # all of them in the order of worth, not in `audit.json`: `image_id`, or `path` of files; and
    # `group`, where images belong together
    cases: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        check: str,
        severity: Severity,
        message: str,
        cases: pd.Series | np.ndarray,
        *,
        advice: str = "",
        unit: str = "image",
        contrast: tuple[pd.DataFrame, str, str] | None = None,
        shown: Sequence[str] | None = None,
    ) -> Problem:
        """Count cases and keep the first few in order; `shown` are to look at, else the examples.

        `contrast` are the images of the cases, with a column of what belongs together and one in
        which it differs: two images that differ are then to look at side by side.
        """
        unique = pd.Series(cases, dtype=TEXT).dropna().drop_duplicates()
        examples = tuple(unique.sort_values().head(_SHOWN))
        table = unique.to_frame("path" if unit == "file" else "image_id")
        if shown is None:
            shown = examples if unit == "image" else ()
        images: tuple[tuple[str, ...], ...] = tuple((case,) for case in shown)
        if contrast is not None:
            rows, group, column = contrast
            rows = rows.sort_values([group, column, "image_id"])
            table = pd.DataFrame({"image_id": rows["image_id"], "group": rows[group]})
            ends = table.groupby("group", sort=False)["image_id"].agg(["first", "last"])
            images = tuple(ends.head(_SHOWN).itertuples(index=False, name=None))
        return cls(
            check, severity, message, len(unique), examples, advice, unit, images, cases=table
        )

    @property
    def sizes(self) -> list[int]:
        """How many images belong together, group by group; empty where each stands alone."""
        if "group" not in self.cases:
            return []
        return [int(n) for n in self.cases.groupby("group", sort=False).size()]

    @property
    def said(self) -> str:
        """The finding with its count, as part of a sentence."""
        return f"{self.message} ({self.count:,} {self.unit}{'' if self.count == 1 else 's'})"

    @property
    def line(self) -> str:
        """The finding as one line."""
        more = ", ..." if self.count > len(self.examples) else ""
        shown = f" ({', '.join(self.examples)}{more})" if self.examples else ""
        return f"{self.severity}: {self.message}{shown}"


# A system has to beat these to have learned more than metadata and image borders tell.
SHORTCUT_AUROC = 0.65
_ADVICE = {
    "person": "report systems on its subgroups too; a difference in who was ill is not skill",
    "file": "a system may learn the kind of file instead of the disease: evaluate within one kind",
    "picture": "look whether the two classes were exposed or processed differently",
    "border": "little lung lies there: a system may learn how images are framed and marked. "
    "Evaluate it on images from elsewhere, and look at the maps of where it finds the disease",
    "siblings": "never split by image, and keep every figure of a patient in one role",
    "together": "read every result against this figure: it needs no look at the lungs",
}


def check_shortcuts(measured: list[dict[str, Any]]) -> list[Problem]:
    """Report facts that alone predict a target, of each kind of fact the strongest."""
    strong = [
        row
        for row in sorted(measured, key=lambda row: -row["auroc"])
        if row["auroc"] >= SHORTCUT_AUROC and (row["ci_low"] or 1.0) > 0.5
    ]
    kinds = [[row for row in strong if row["kind"] == kind] for kind in _ADVICE]
    return [_problem(rows[0], len(rows) - 1) for rows in kinds if rows]


def _problem(row: dict[str, Any], more: int) -> Problem:
    ends = f" ({row['ci_low']:.3f} to {row['ci_high']:.3f})" if row["ci_low"] else ""
    subject = {
        "together": "metadata and image borders together predict",
        "siblings": "other images of the same patient predict",
    }.get(row["kind"], f"{row['fact']} alone predict{'' if '+' in row['fact'] else 's'}")
    text = f"{subject} '{row['target']}' with AUROC {row['auroc']:.3f}{ends}"
    if more:
        text += f", and {more} more facts or targets have 0.65 or above"
    severity: Severity = "warning" if row["kind"] == "file" else "info"
    check = f"shortcut_{row['kind']}"
    advice = _ADVICE[row["kind"]]
    return Problem(check, severity, text, row["n_known"], (), advice)


OLDEST_YEARS = 120.0
SMALLEST_SIDE = 128
EVALUATED_ROLES = ("train", "val", "test")


def evaluated(split: pd.DataFrame) -> pd.DataFrame:
    """``image_id, role`` of the images of a split that are used."""
    return split.loc[is_member(split["role"], EVALUATED_ROLES), ["image_id", "role"]]


def _find_leaks(images: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Find patients whose images have more than one role."""
    rows = images[["patient_id", "image_id"]].merge(evaluated(split), on="image_id")
    rows["group"] = rows["image_id"].map(patient_groups(images))
    leaks = differing(rows, "group", "role")
    columns = ["patient_id", "image_id", "role"]
    return leaks[columns].sort_values(columns, ignore_index=True)


def find_duplicates(images: pd.DataFrame) -> pd.DataFrame:
    """Find images that are equal."""
    present = images.dropna(subset="pixel_sha256")
    repeated = present[present["pixel_sha256"].duplicated(keep=False)].sort_values("image_id")
    groups = repeated.assign(group=pd.factorize(repeated["pixel_sha256"])[0])[["group", "image_id"]]
    return groups.sort_values(["group", "image_id"], ignore_index=True)


def differing(rows: pd.DataFrame, group: str, column: str) -> pd.DataFrame:
    """The rows of the groups in which a column has more than one value; missing is none."""
    present = rows[rows[column].notna()]
    group_codes = pd.factorize(present[group])[0]
    values = pd.DataFrame({"group": group_codes, "value": pd.factorize(present[column])[0]})
    lowest = values.groupby("group")["value"].transform("min").to_numpy()
    highest = values.groupby("group")["value"].transform("max").to_numpy()
    return present[lowest != highest]


def aligned(labels: pd.DataFrame, image_ids: pd.Series) -> np.ndarray:
    """The labels of the images named, NaN for one that has none."""
    rows = positions(image_ids, labels.index)
    values = labels.to_numpy(dtype="float64")
    chosen = values[rows] if len(values) else np.full((len(rows), values.shape[1]), np.nan)
    chosen[rows < 0] = np.nan
    return chosen


def check_leaks(images: pd.DataFrame, split: pd.DataFrame, name: str) -> list[Problem]:
    """Report patients in two roles of a split, and images that the split forgets or invents."""
    leaks = _find_leaks(images, split)
    missing = images.loc[~is_member(images["image_id"], split["image_id"]), "image_id"]
    unknown = split.loc[~is_member(split["image_id"], images["image_id"]), "image_id"]
    problems = [
        Problem.of(
            "patient_leak",
            "error",
            f"split '{name}': patient in more than one role, so test figures come out too good",
            leaks["patient_id"],
            unit="patient",
            contrast=(leaks, "patient_id", "role"),
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
    """Report roles in which a target has only one class: nothing can be learned or evaluated."""
    lacking = []
    for role in EVALUATED_ROLES:
        chosen = labels[is_member(labels.index, split.loc[split["role"] == role, "image_id"])]
        if role == "train" and not len(chosen):
            continue  # a set to evaluate on needs none
        for target in labels.columns:
            for word, value in (("positive", 1.0), ("negative", 0.0)):
                if not (chosen[target] == value).any():
                    lacking.append(f"{role} has no {word} image of '{target}'")
    more = f", and {len(lacking) - 3} more such" if len(lacking) > 3 else ""
    text = f"split '{name}': {', '.join(lacking[:3])}{more}"
    advice = "add images, or draw a split with other shares; nothing can be evaluated there"
    return [Problem("one_class", "warning", text, len(lacking), (), advice, "case", split=name)]


def check_people(images: pd.DataFrame, splits: dict[str, pd.DataFrame]) -> list[Problem]:
    """Report impossible ages, patients of two sexes, and patients that are only assumed."""
    ages = images["age_years"]
    impossible = (ages < 0) | (ages > OLDEST_YEARS)
    sexes = differing(images[is_member(images["sex"], ["M", "F"])], "patient_id", "sex")
    assumed = images.loc[(images["patient_id_source"] == "assumed_image").to_numpy(), "image_id"]
    if splits:
        used = pd.concat([evaluated(split)["image_id"] for split in splits.values()])
        assumed = assumed[is_member(assumed, used)]
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
            contrast=(sexes, "patient_id", "sex"),
        ),
        Problem.of(
            "patient_assumed",
            "warning",
            "image whose patient is not known and counts as a patient of its own: the same person "
            "may be in training and test",
            assumed,
            advice="give patient ids (--patient-pattern, or a patient_id column); until then read "
            "every interval as too narrow",
            shown=(),
        ),
    ]


def check_images(images: pd.DataFrame, decode: pd.DataFrame) -> list[Problem]:
    """Report laterals among frontals, views not known, turned images, and those too small."""
    ids = images["image_id"]
    lateral, unknown = (is_member(images["view"], [view]) for view in ("LL", "other"))
    small = (images[["width", "height"]].min(axis=1) < SMALLEST_SIDE).fillna(False)
    kinds = [
        (
            "view_lateral",
            f"lateral view among {int((~lateral).sum()):,} that are not",
            ids[lateral & ~lateral.all()],
            "leave laterals out, or evaluate them as a subgroup: another image of the chest",
        ),
        (
            "picture_turned",
            "image whose border looks like that of a turned image or of a negative",
            _turned(decode),
            "look at each; mend the file, or leave the image out",
        ),
        (
            "view_other",
            "view that is neither PA nor AP nor lateral",
            ids[unknown],
            "look at them: oblique and special images may have to be left out",
        ),
        (
            "picture_small",
            f"image with a side below {SMALLEST_SIDE} px: small lesions are lost",
            ids[small.to_numpy(dtype=bool)],
            "go back to the originals; a model cannot find what the image does not show",
        ),
    ]
    return [
        Problem.of(check, "warning", text, cases, advice=advice)
        for check, text, cases, advice in kinds
    ]


_LEAST_BORDERS = 50
_TURNED = -0.4  # 1: an upright image as expected, -1: a turned one


def _turned(decode: pd.DataFrame) -> pd.Series:
    """Images of which the border greys fit those of the others better once the image is turned.

    Least squares with a ridge weigh them, so that images differ by 1 from themselves turned.
    Measured with turned images: 97 % of RSNA are found, 95 % of NIH, 70 % (180 degrees) and 98 %
    (90) of Kermany; of 5,196 as they are 9, one of which was upside down and one a negative.
    """
    known = decode[decode.reindex(columns=["border_greys"])["border_greys"].notna()]
    if len(known) < _LEAST_BORDERS:
        return pd.Series(dtype=TEXT)
    greys = read_border_greys(known["border_greys"]).astype(np.float64)
    greys = greys - greys.mean(axis=1, keepdims=True)
    turned = [greys / (greys.std(axis=1, keepdims=True) + 1)]
    for _ in range(3):
        top, bottom, left, right = np.split(turned[-1], 4, axis=1)
        turned.append(np.hstack([left[:, ::-1], right[:, ::-1], bottom, top]))
    rows = turned[0][:, None] - np.stack(turned[1:], axis=1)  # (N, 3, 16)
    product = np.tensordot(rows, rows, ([0, 1], [0, 1])) / (3 * len(rows))
    weights = np.linalg.solve(product + 0.01 * np.eye(len(product)), rows.mean(axis=(0, 1)))
    fit = (rows @ weights).min(axis=1)
    return known["image_id"].iloc[np.argsort(fit)[: (fit < _TURNED).sum()]]


# The smallest RSNA box has sides of 40 px on 1024, the largest covers 48 % of its image.
_TINY_SIDE = 0.01
_HUGE_AREA = 0.6
_SAME_BOX_IOU = 0.9
_REDRAW = "draw the box again, or remove it"
_WHICH = "ask who labelled it: either the box or the label is wrong"
_KEY = ["image_id", "finding", "reader"]


def check_boxes(
    boxes: pd.DataFrame, images: pd.DataFrame, findings: pd.DataFrame, coverage: pd.DataFrame
) -> list[Problem]:
    """Check the boxes of all readers against their images and the labels of the reference."""
    alike = Problem.of(
        "box_repeated",
        "warning",
        f"two boxes overlap by IoU above {_SAME_BOX_IOU:g}, so one lesion counts as two",
        boxes["image_id"].to_numpy()[_overlapping(boxes)],
        advice="keep one of the two",
    )
    geometry = _check_geometry(boxes, images)
    labels = _check_labels(boxes, findings, coverage)
    return [problem for problem in (*geometry, alike, *labels) if problem.count]


def _check_geometry(boxes: pd.DataFrame, images: pd.DataFrame) -> list[Problem]:
    edges = boxes[EDGES].to_numpy(dtype="float64")
    places = positions(boxes["image_id"], images["image_id"])
    sizes = images[["width", "height"]].astype("float64").to_numpy()
    width, height = np.where(places[:, None] >= 0, sizes[places], np.nan).T
    x1, y1, x2, y2 = edges.T
    finite = np.isfinite(edges).all(axis=1)
    real = finite & (x1 < x2) & (y1 < y2)
    outside = real & ((x1 < 0) | (y1 < 0) | (x2 > width) | (y2 > height))
    narrow = np.minimum((x2 - x1) / width, (y2 - y1) / height) < _TINY_SIDE
    vast = (x2 - x1) * (y2 - y1) / (width * height) > _HUGE_AREA
    tiny = f"box with a side below {_TINY_SIDE:.0%} of the image: a slip of the mouse?"
    huge = f"box that covers more than {_HUGE_AREA:.0%} of the image: does it outline a lesion?"
    kinds: list[tuple[str, Severity, str, np.ndarray]] = [
        ("box_not_finite", "error", "box with a missing or infinite edge", ~finite),
        ("box_empty", "error", "box without area", finite & ~real),
        ("box_outside", "error", "box that leaves its image", outside),
        ("box_tiny", "warning", tiny, real & ~outside & narrow),
        ("box_huge", "warning", huge, real & ~outside & vast),
    ]
    ids = boxes["image_id"].to_numpy()
    return [
        Problem.of(check, severity, text, ids[bad], advice=_REDRAW)
        for check, severity, text, bad in kinds
    ]


def _overlapping(boxes: pd.DataFrame) -> np.ndarray:
    """Rows of the boxes that another box of the same image, finding and reader nearly equals."""
    keys = [pd.factorize(boxes[column])[0] for column in _KEY]
    order = np.lexsort(keys)
    image, finding, reader = (key[order] for key in keys)
    corners = boxes[EDGES].to_numpy(dtype="float64")[order]
    live = np.arange(len(boxes))
    step = 1
    found = [np.empty(0, dtype=np.int64)]
    while len(live):
        live = live[live + step < len(boxes)]
        other = live + step
        alike = (image[live] == image[other]) & (finding[live] == finding[other])
        live = live[alike & (reader[live] == reader[other])]
        other = live + step
        same = box_iou(corners[live], corners[other]) > _SAME_BOX_IOU
        found.append(order[other[same]])
        step += 1
    return np.concatenate(found)


def _check_labels(
    boxes: pd.DataFrame, findings: pd.DataFrame, coverage: pd.DataFrame
) -> list[Problem]:
    boxed = boxes[_KEY].drop_duplicates()
    on_boxed = findings.loc[is_member(findings["image_id"], boxed["image_id"]), [*_KEY, "state"]]
    absent = on_boxed.loc[on_boxed["state"] == "absent", _KEY]
    # A finding that nobody boxed is a finding without boxes, not one with missing boxes.
    may_be_boxed = pd.concat([boxes["finding"], coverage["finding"]]).unique()
    present = findings.loc[(findings["state"] == "present").to_numpy(), _KEY]
    present = present[is_member(present["finding"], may_be_boxed)]
    unboxed = _without(present, boxed)
    complete = coverage.loc[(coverage["coverage"] == "all").to_numpy(), _KEY]
    complete = complete[is_member(complete["image_id"], unboxed["image_id"])]
    expected = unboxed[is_member(unboxed["finding"], boxes["finding"])]
    bare = _without(expected, complete)
    drawn = boxed[_KEY[:2]].drop_duplicates()
    by_readers = bare.merge(drawn, how="left", indicator="_in")["_in"].to_numpy() == "both"
    lost = "the detector does not learn from it, and localisation is not evaluated on it"
    kinds: list[tuple[str, Severity, str, pd.DataFrame, str]] = [
        (
            "box_on_negative",
            "error",
            "box of a finding that the label says is absent",
            boxed.merge(absent, on=_KEY),
            _WHICH,
        ),
        (
            "box_promised",
            "error",
            "all lesions are said to be boxed, the finding is present, and there is no box",
            unboxed.merge(complete, on=_KEY),
            _WHICH,
        ),
        (
            "positive_without_box",
            "warning",
            f"positive image whose lesions are not boxed: {lost}",
            bare[~by_readers],
            "have the lesions boxed, or train the classifier only on these",
        ),
        (
            "box_disputed",
            "warning",
            f"positive image whose readers agree that the finding is there, not where: {lost}",
            bare[by_readers],
            "let another reader decide where (label_review.html shows the readers' "
            "boxes), or prepare with --reference any or reader:NAME",
        ),
    ]
    return [
        Problem.of(check, severity, text, rows["image_id"], advice=advice)
        for check, severity, text, rows, advice in kinds
    ]


def _without(rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """The rows whose key is not among the others."""
    merged = rows.merge(others, on=_KEY, how="left", indicator="_where")
    return merged.loc[merged["_where"] == "left_only", _KEY]
