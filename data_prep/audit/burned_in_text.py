"""Check for text that is burned into the pixels of images."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from cxr_compare.data_prep.audit.problem import Problem
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.images.burned_in_text import (
    NO_TEXT,
    TEXT_LINE_CHARACTERS,
    TextLine,
    find_text_line,
)
from cxr_compare.data_prep.store.dataset import DataSet, ImageFile
from cxr_compare.data_prep.work.map_images import Workers, map_images

TEXT_CHECK = "burned_in_text"
_TEXT_SHOWN = 24  # images with text that the page shows; its CSV lists all


def find_burned_in_text(dataset: DataSet, workers: Workers) -> pd.DataFrame:
    """Search the image files of a data set for lines of text, which takes as long as decoding them.

    Args:
        dataset: A prepared data set.
        workers: Number of processes, or the Ray cluster, that decode the images.

    Returns:
        One row for each image with such a line, the longest line first: ``image_id``, and the box
        ``x1, y1, x2, y2`` around the line in px of the original. A file that cannot be read has no
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
    """Report images that may show a name, a date or a hospital in their pixels.

    Args:
        decode: Decode table: one row for each image, with what its DICOM header says.
        lines: Lines of text in the pixels, from `find_burned_in_text`; None if none were sought.

    Returns:
        A list with one problem; its count is 0 if no image may contain text.
    """
    stated = decode.reindex(columns=["image_id", "burned_in_annotation"])
    stated = stated[is_member(stated["burned_in_annotation"], ["yes"])]
    cases = pd.concat([lines, stated[["image_id"]]]).drop_duplicates("image_id")
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
