"""Images that stand in a data set more than once, the worse the more their copies disagree."""

from __future__ import annotations

import base64
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd

from cxr_compare.data_prep.audit.checks import (
    Problem,
    Severity,
    aligned,
    differing,
    evaluated,
    find_duplicates,
)
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.duplicates.near_duplicates import NearDuplicates
from cxr_compare.data_prep.duplicates.set_copies import ImageReader, open_reader
from cxr_compare.data_prep.images.image_facts import TEXT_LINE_CHARACTERS
from cxr_compare.data_prep.store.dataset import DataSet

_PATIENTS = "find out whose image it is and correct the ids, or remove one of the two"
_LABELS = "read the image again and correct the label, or leave the image out"


def check_duplicates(
    images: pd.DataFrame,
    decode: pd.DataFrame,
    labels: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
) -> list[Problem]:
    """Report images that are equal pixel for pixel."""
    twins = find_duplicates(decode)
    return _check(twins, images, labels, splits, "picture", "the same image", "error", "")


def check_near_duplicates(
    near: NearDuplicates,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
) -> list[Problem]:
    """Report images that are copies of each other without being equal."""
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
    text = "pair of images that may be copies, not looked at"
    advice = (
        "make a pixel store (cxr prepare ... --size 256) and check again, so that more are read"
    )
    undecided = Problem("near_unchecked", "warning", text, near.undecided, (), advice, "pair")
    text = "very many images look alike, so the search for copies was cut short"
    advice = "look for blank or placeholder images and leave them out"
    cut = Problem("near_incomplete", "warning", text, int(not near.complete), (), advice, "search")
    problems = _check(near.groups, images, labels, splits, "near", what, "warning", note)
    return [*problems, undecided, cut]


def _check(
    copies: pd.DataFrame,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
    kind: str,
    what: str,
    severity: Severity,
    note: str,
) -> list[Problem]:
    """Report groups of copies that have two roles, two labels, two patients, or merely repeat."""
    if copies.empty:
        return []
    twins = copies.merge(images[["image_id", "patient_id", "patient_id_source"]], on="image_id")
    problems = []
    for name, split in splits.items():
        apart = differing(twins.merge(evaluated(split), on="image_id"), "group", "role")
        text = f"split '{name}': {what} in more than one role{note}"
        leak = _problem(f"{kind}_leak", "error", text, apart, "role", "")
        problems.append(replace(leak, split=name))
    truths = aligned(labels, twins["image_id"])
    for column, target in enumerate(labels.columns):
        apart = differing(twins.assign(label=truths[:, column]), "group", "label")
        text = f"{what} is labelled differently for '{target}'"
        problems.append(_problem(f"{kind}_label", severity, text, apart, "label", _LABELS))
    # Where each image counts as a patient of its own, two ids contradict nothing.
    named = twins[(twins["patient_id_source"] != "assumed_image").to_numpy()]
    apart = differing(named, "group", "patient_id")
    text = f"{what} under more than one patient: one of the patient ids is wrong"
    problems.append(_problem(f"{kind}_patients", severity, text, apart, "patient_id", _PATIENTS))
    rest = twins[~twins["group"].isin(apart["group"])]
    problems.append(
        Problem.of(
            f"{kind}_repeated",
            "warning" if severity == "error" else "info",
            f"{what} appears more than once{note}",
            rest["image_id"],
            advice="keep one: an image that appears more than once is counted more than once",
            contrast=(rest, "group", "image_id"),
        )
    )
    return problems


def _problem(
    check: str, severity: Severity, text: str, apart: pd.DataFrame, column: str, advice: str
) -> Problem:
    contrast = (apart, "group", column)
    return Problem.of(check, severity, text, apart["image_id"], advice=advice, contrast=contrast)


_REASONS_SHOWN = 20
_FILES_SHOWN = 8  # of a reason, where a box is wrong
_TEXT_SHOWN = 24
"""Images with burned-in text that the page shows; all are in its CSV."""


def text_suspects(decode: pd.DataFrame) -> pd.Series:
    """Images with burned-in text, as their header says or their pixels look."""
    said = pd.Series(False, index=decode.index)
    score = pd.Series(0.0, index=decode.index)
    if "burned_in_annotation" in decode.columns:
        said |= is_member(decode["burned_in_annotation"], ["yes"])
    if "text_score" in decode.columns:
        score = decode["text_score"].fillna(0.0)
    suspects = decode.assign(_score=score)[(said | (score >= TEXT_LINE_CHARACTERS)).to_numpy()]
    return suspects.sort_values(["_score", "image_id"], ascending=[False, True])["image_id"]


def check_burned_in_text(decode: pd.DataFrame) -> list[Problem]:
    """Report images that may show a name, a date or a hospital in their pixels."""
    suspects = text_suspects(decode)
    return [
        Problem.of(
            "burned_in_text",
            "warning",
            "image that seems to hold a line of text: a name, or a mark that gives the label away",
            suspects,
            advice="look at each; leave out or black out what identifies a person",
            shown=tuple(suspects.head(_TEXT_SHOWN)),
        )
    ]


def check_excluded(excluded: pd.DataFrame) -> list[Problem]:
    """Say what was left out when the set was prepared; missing files are no fault of the set."""
    # What follows the colon of these is the single case: a size, an edge.
    measured = is_member(excluded["stage"], ["boxes", "size"])
    reasons = excluded["reason"].mask(measured, excluded["reason"].str.split(":").str[0])
    reasons = reasons.mask(excluded["stage"] == "list", "named in the list of --exclude")
    code, kinds = pd.factorize(reasons)
    common = pd.Series(code).value_counts().index[:_REASONS_SHOWN]
    problems = []
    for kind_code in sorted(int(kind) for kind in common):
        rows = excluded[code == kind_code]
        stage = rows["stage"].iloc[0]
        seen = rows["path"][rows.reindex(columns=["file_sha256"])["file_sha256"].notna()]
        expected = stage == "list" or "no image file" in str(kinds[kind_code])
        problems.append(
            Problem.of(
                f"excluded_{stage}",
                "info" if expected else "warning",
                f"left out when prepared: {kinds[kind_code]}",
                rows["path"],
                advice="make sure that this is no surprise, else mend the source and prepare again",
                unit="file",
                shown=tuple(seen.head(_FILES_SHOWN)),
            )
        )
    rest = excluded[~pd.Series(code).isin(common).to_numpy()]
    text = f"left out when prepared, for {len(kinds) - len(common):,} other reasons"
    advice = "read excluded.parquet"
    return [
        *problems,
        Problem.of("excluded_other", "warning", text, rest["path"], advice=advice, unit="file"),
    ]


THUMBNAIL_PX = 166
ILLEGIBLE_PX = 72
"""Longest side of an image that may show a name; lines of text cannot be read at this size."""
_QUALITY = 72


def open_images(dataset: DataSet) -> tuple[ImageReader | None, Problem | None]:
    """Find out where the images can be read: from a pixel store, else from their files."""
    n_paths = int(dataset.images["path"].notna().sum())
    if not n_paths:
        text = "the set has no images, so tables only were checked"
        return None, Problem("pictures_none", "info", text, len(dataset.images))
    read, lacking = open_reader(dataset)
    if lacking is None:
        return read, None
    text = lacking.text + ("; tables only were checked" if read is None else "")
    severity: Severity = "warning" if lacking.lost else "info"
    return read, Problem("pictures_gone", severity, text, n_paths, (), lacking.advice)


def thumbnail(pixels: np.ndarray, longest: int = THUMBNAIL_PX) -> str:
    """A small copy of an image for a page."""
    height, width = pixels.shape
    scale = min(longest / max(height, width), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
