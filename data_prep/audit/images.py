"""Checks of images: copies, unusual views and sizes, people, burned-in text, files left out.

The functions take tables and return problems. Labels have a row for each image (indexed by
``image_id``) and a column for each target: 1 positive, 0 negative, NaN unknown. ``splits`` has, by
name, tables with ``image_id`` and ``role``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from cxr_compare.data_prep.audit.problem import (
    Problem,
    Severity,
    evaluated_images,
    rows_that_differ,
)
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import OLDEST_YEARS
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.dataset import DataSet, ImageFile
from cxr_compare.data_prep.duplicates.near_duplicates import NearDuplicates
from cxr_compare.data_prep.images.burned_in_text import (
    NO_TEXT,
    TEXT_LINE_CHARACTERS,
    TextLine,
    find_text_line,
)
from cxr_compare.data_prep.work.map_images import Workers, map_images

TEXT_CHECK = "burned_in_text"
_SMALLEST_SIDE = 128
_TEXT_SHOWN = 24  # images with text that the page shows; its CSV lists all
_REASONS_SHOWN = 20
_POSITION = r"^(label file), \w+ \d+(?=: )"  # such as "label file, line 3: "


def find_duplicates(decode: pd.DataFrame) -> pd.DataFrame:
    """Group the images that are equal pixel for pixel.

    Args:
        decode: Table with columns ``image_id`` and ``pixel_sha256``, the digest of the pixels.

    Returns:
        A table with columns ``group`` (number of the group) and ``image_id``, with only those
        images that have an equal one.
    """
    known = decode.loc[decode["pixel_sha256"].notna(), ["image_id", "pixel_sha256"]]
    repeated = known[known["pixel_sha256"].duplicated(keep=False)].sort_values("image_id")
    groups = repeated.assign(group=pd.factorize(repeated["pixel_sha256"])[0])
    return groups[["group", "image_id"]].sort_values(["group", "image_id"], ignore_index=True)


def check_duplicates(
    twins: pd.DataFrame,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    splits: Mapping[str, pd.DataFrame],
) -> list[Problem]:
    """Report images that are equal pixel for pixel.

    Args:
        twins: Groups of equal images, from `find_duplicates`.
        images: Table with ``image_id``, ``patient_id`` and ``patient_id_source``.
        labels: Labels, indexed by ``image_id``.
        splits: Splits by name.

    Returns:
        Problems: images that occur more than once, and more serious ones if copies have different
        labels, patients or roles.
    """
    return _check_copies(twins, images, labels, splits, "image", "the same image")


def check_near_duplicates(
    near: NearDuplicates,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    splits: Mapping[str, pd.DataFrame],
) -> list[Problem]:
    """Report copies of images that are not equal pixel for pixel, such as a compressed copy.

    Args:
        near: Pairs of images that look alike, from the search for near duplicates.
        images: Table with ``image_id``, ``patient_id`` and ``patient_id_source``.
        labels: Labels, indexed by ``image_id``.
        splits: Splits by name.

    Returns:
        Problems: such copies, and more serious ones if copies have different labels, patients or
        roles.
    """
    notes = []
    turned = int((near.pairs["turn"] != "as it is").sum())
    unseen = int(near.pairs["correlation"].isna().sum())
    pairs = counted(len(near.pairs), "pair")
    if turned:
        notes.append(f"{turned:,} of {pairs} mirrored, turned or inverted")
    if unseen:
        notes.append(f"{unseen:,} of {pairs} by fingerprint alone")
    note = f" ({'; '.join(notes)})" if notes else ""
    what = "a copy of the image (stretched, compressed, resized or turned)"
    text = "pair of images that may be copies, but whose pixels were not compared"
    advice = (
        "make a pixel store (cxr prepare ... --size 256) and check again, so that more images are "
        "compared"
    )
    unchecked = Problem("near_unchecked", "warning", text, near.undecided, (), advice, "pair")
    text = "very many images look alike, so the search for copies was cut short"
    advice = "look for blank or placeholder images and leave them out"
    cut = Problem("near_incomplete", "warning", text, int(not near.complete), (), advice, "search")
    problems = _check_copies(near.groups, images, labels, splits, "near", what, note)
    return [*problems, unchecked, cut]


def _check_copies(
    copies: pd.DataFrame,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    splits: Mapping[str, pd.DataFrame],
    kind: str,
    what: str,
    note: str = "",
) -> list[Problem]:
    """Report groups of copies with several roles, labels or patients, and other repeats."""
    if copies.empty:
        return []
    severity: Severity = "error" if kind == "image" else "warning"
    # A merge would look at all images, although there are few copies.
    is_copy = is_member(images["image_id"], copies["image_id"])
    of_copies = images.loc[is_copy, ["image_id", "patient_id", "patient_id_source"]]
    twins = copies.merge(of_copies.astype({"patient_id": TEXT}), on="image_id")
    problems = []
    for name, split in splits.items():
        roles = evaluated_images(split[is_member(split["image_id"], twins["image_id"])])
        apart = rows_that_differ(twins.merge(roles, on="image_id"), "group", "role")
        text = f"split '{name}': {what} in more than one role{note}"
        problems.append(
            Problem.from_groups(f"{kind}_leak", "error", text, apart, differ="role", split=name)
        )
    truths = labels.reindex(twins["image_id"])
    for target in labels.columns:
        apart = rows_that_differ(twins.assign(label=truths[target].array), "group", "label")
        text = f"{what} is labelled differently for '{target}'"
        advice = "read the image again and correct the label, or leave the image out"
        problems.append(
            Problem.from_groups(
                f"{kind}_label", severity, text, apart, differ="label", advice=advice
            )
        )
    # Where each image counts as a patient of its own, two ids do not contradict each other.
    named = twins[(twins["patient_id_source"] != "assumed_image").to_numpy()]
    apart = rows_that_differ(named, "group", "patient_id")
    text = f"{what} under more than one patient: one of the patient ids is wrong"
    advice = "find out whose image it is and correct the ids, or remove one copy"
    problems.append(
        Problem.from_groups(
            f"{kind}_patients", severity, text, apart, differ="patient_id", advice=advice
        )
    )
    rest = twins[~twins["group"].isin(apart["group"])]
    problems.append(
        Problem.from_groups(
            f"{kind}_repeated",
            "warning" if severity == "error" else "info",
            f"{what} appears more than once{note}",
            rest,
            differ="image_id",
            advice="keep one: an image that appears more than once is counted more than once",
        )
    )
    return problems


def check_people(images: pd.DataFrame, splits: Mapping[str, pd.DataFrame]) -> list[Problem]:
    """Report impossible ages, patients with two sexes, and images of unknown patients.

    Args:
        images: Table with ``image_id``, ``patient_id``, ``patient_id_source``, ``age_years`` and
            ``sex``.
        splits: Splits by name. If there are any, an image of an unknown patient is reported only if
            a split gives it a role other than unused.

    Returns:
        One problem for each kind of fault; its count is 0 if there is none.
    """
    ages = images["age_years"]
    impossible = ((ages < 0) | (ages > OLDEST_YEARS)).to_numpy()
    sexes = rows_that_differ(images[is_member(images["sex"], ["M", "F"])], "patient_id", "sex")
    sexes = sexes[["image_id", "patient_id", "sex"]].astype({"patient_id": TEXT})
    assumed = images.loc[(images["patient_id_source"] == "assumed_image").to_numpy(), "image_id"]
    if splits:
        used = pd.concat([evaluated_images(split)["image_id"] for split in splits.values()])
        assumed = assumed[is_member(assumed, used)]
    return [
        Problem.from_cases(
            "age",
            "warning",
            f"age below 0 or above {OLDEST_YEARS:g} years",
            images.loc[impossible, "image_id"],
            advice="correct the source or leave the age empty; until then subgroups by age are "
            "wrong",
        ),
        Problem.from_groups(
            "two_sexes",
            "warning",
            "patient with images of both sexes, so the patient id may be wrong",
            sexes,
            group="patient_id",
            differ="sex",
            advice="compare the images; if they show two people, give them two ids",
            unit="patient",
        ),
        Problem.from_cases(
            "patient_assumed",
            "warning",
            "image of an unknown patient, which counts as a patient of its own: the same person "
            "may be in training and test",
            assumed,
            advice="give patient ids (--patient-pattern, or a patient_id column); until then every "
            "interval is too narrow",
            shown=(),
        ),
    ]


def check_images(images: pd.DataFrame) -> list[Problem]:
    """Report images with lateral or unusual views, and small images.

    Args:
        images: Table with ``image_id``, ``view``, ``width`` and ``height``.

    Returns:
        One problem for each kind of fault; its count is 0 if there is none.
    """
    ids = images["image_id"]
    lateral = is_member(images["view"], ["LL"])
    small = (images[["width", "height"]].min(axis=1) < _SMALLEST_SIDE).fillna(False)
    return [
        Problem.from_cases(
            "view_lateral",
            "warning",
            f"lateral view among {int((~lateral).sum()):,} images of other views",
            ids[lateral & ~lateral.all()],
            advice="leave lateral views out, or evaluate them as a subgroup",
        ),
        Problem.from_cases(
            "view_other",
            "warning",
            "view that is neither PA nor AP nor lateral",
            ids[is_member(images["view"], ["other"])],
            advice="look at them, since oblique and special images may have to be left out",
        ),
        Problem.from_cases(
            "image_small",
            "warning",
            f"image with a side below {_SMALLEST_SIDE} px, which does not show small lesions",
            ids[small.to_numpy(dtype=bool)],
            advice="use the original images",
        ),
    ]


def check_excluded(excluded: pd.DataFrame) -> list[Problem]:
    """Report the files that were left out when the data set was prepared, one problem a reason.

    The columns are ``path``, ``stage`` (step that left the file out) and ``reason``.
    """
    # In these reasons, the text after the colon describes the single case, such as a size.
    measured = excluded["stage"] == "size"
    reasons = excluded["reason"].mask(measured, excluded["reason"].str.split(":").str[0])
    reasons = reasons.str.replace(_POSITION, r"\1", regex=True)
    reasons = reasons.mask(excluded["stage"] == "list", "named in the list of --exclude")
    common = reasons.value_counts().index[:_REASONS_SHOWN]
    advice = "check if this is intended; otherwise correct the source and prepare again"
    problems = []
    for reason, rows in excluded.groupby(reasons, sort=False):
        if reason not in common:
            continue
        stage = rows["stage"].iloc[0]
        expected = stage == "list" or "no image file" in str(reason)
        problems.append(
            Problem.from_cases(
                f"excluded_{stage}",
                "info" if expected else "warning",
                f"left out when prepared: {reason}",
                rows["path"],
                advice=advice,
                unit="file",
            )
        )
    rest = excluded.loc[~reasons.isin(common), "path"]
    text = f"left out when prepared, for {reasons.nunique() - len(common):,} other reasons"
    advice = "read excluded.parquet"
    other = Problem.from_cases("excluded_other", "warning", text, rest, advice=advice, unit="file")
    return [*problems, other]


def find_burned_in_text(dataset: DataSet, workers: Workers) -> pd.DataFrame:
    """Search the image files of a data set for lines of text, which takes as long as decoding them.

    There is one row for each image with such a line, the longest line first: ``image_id``, and the
    box ``x1, y1, x2, y2`` around the line in px of the original. A file that cannot be read has no
    row.
    """
    ids = dataset.images.loc[dataset.images["path"].notna().to_numpy(), "image_id"].tolist()
    lines = map_images(
        _find_text_line,
        [dataset.image_file(image_id) for image_id in ids],
        workers,
        on_crash=lambda file: NO_TEXT,
        reads=[dataset.source_root],
    )
    found = [
        (image_id, line.characters, *line.box)
        for image_id, line in zip(ids, lines, strict=True)
        if line.box is not None and line.characters >= TEXT_LINE_CHARACTERS
    ]
    table = pd.DataFrame(found, columns=["image_id", "characters", *EDGES])
    table = table.sort_values(["characters", "image_id"], ascending=[False, True])
    return table.drop(columns="characters")


def _find_text_line(file: ImageFile) -> TextLine:
    try:
        return find_text_line(file.read())
    except InputError:
        return NO_TEXT


def check_burned_in_text(decode: pd.DataFrame, lines: pd.DataFrame | None = None) -> list[Problem]:
    """Report images that may show a name, a date or a hospital in their pixels, as one problem.

    `decode` has ``image_id`` and ``burned_in_annotation`` (what the DICOM header says); `lines` is
    from `find_burned_in_text`, None if no text was sought. The count is 0 without such an image.
    """
    stated = decode.reindex(columns=["image_id", "burned_in_annotation"])
    stated = stated.loc[is_member(stated["burned_in_annotation"], ["yes"]), ["image_id"]]
    cases = pd.concat([lines, stated]).drop_duplicates("image_id")
    problem = Problem.from_cases(
        TEXT_CHECK,
        "warning",
        "image that seems to contain a line of text, such as a name or a mark that reveals the "
        "label",
        cases["image_id"],
        advice="look at each image; leave out or black out what identifies a person",
        shown=tuple(cases["image_id"].head(_TEXT_SHOWN)),
    )
    return [replace(problem, cases=cases.reindex(columns=["image_id", *EDGES]))]
