"""`cxr reading-form` and `cxr import-form`: a study without hints, and what a reader filled in."""

from __future__ import annotations

import shlex
from typing import Annotated

from cxr_compare import DataSet, InputError, Predictions
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.scripts import console
from cxr_compare.scripts.command_frame import (
    AnyPath,
    Argument,
    DataFolder,
    Outcome,
    as_path,
    choose_images,
    command,
)

_PANEL = 1024  # side of an image, px
_SEED = 0  # random seed of the order in which readers see images


@command
def reading_form(
    data: DataFolder,
    *,
    out: AnyPath,
    target: str | None = None,
    image: list[str] | None = None,
    split: str = "default",
    limit: Annotated[int, Argument(minimum=1)] = 20,
) -> Outcome:
    """Write a form on which readers mark images without hints.

    The folder has numbered images in random order, read.html to mark and rate them on, review.csv
    for ratings alone, and key.csv with the names of the images, which is not for readers. The
    commands cxr readers --key and cxr import-form read the filled-in forms.

    Args:
        data: Data set that cxr prepare made.
        out: Folder of the study to make.
        target: Target (a finding, or a group of findings) that readers look for. Needed only if the
            data set has several targets.
        image: Id of an image to read. Without it a random sample of the test images is read.
        split: Split (which images are for training, validation and test) whose test images are
            read. By default it is the split that cxr prepare made.
        limit: Largest number of images. If there are more test images, a random sample is read.

    Returns:
        The images that were drawn.

    Raises:
        InputError: An image is unknown, there are no pixels, or the folder holds a study already.

    Example:
        cxr reading-form out/data --out out/study --limit 50
    """
    from cxr_compare.studies.readers.reader_form import write_reader_study

    data = as_path(data)
    out = as_path(out)
    dataset = DataSet.open(data)
    finding = dataset.target(target).display_name
    if not dataset.has_pixels:
        raise InputError(f"{data}: has no pixels, so there is nothing to read")
    image_ids = choose_images(dataset, image, split, limit)
    with console.track("Drawing", len(image_ids)) as advance:
        write_reader_study(
            dataset, image_ids, out, finding=finding, panel=_PANEL, seed=_SEED, progress=advance
        )
    key = shlex.quote(str(out / "key.csv"))
    steps = (
        f"open {shlex.quote(str(out / 'read.html'))} in a browser, to read",
        f"from what readers save there: cxr readers READER=FILE ... --key {key} --data "
        f"{shlex.quote(str(data))} --out OUT",
    )
    text = (
        f"Reader study: {counted(len(image_ids), 'image')} in {out}; keep key.csv from the readers"
    )
    return Outcome(text, sorted(map(str, out.glob("panels/*.png"))), next_steps=steps)


@command
def import_form(
    form: AnyPath,
    *,
    key: AnyPath,
    data: DataFolder,
    out: AnyPath,
    name: str,
    finding: str | None = None,
    split: str = "default",
) -> Predictions:
    """Import the form that one reader filled in, as a system.

    An image that was not read counts as failed, and one that was read without a mark as an image
    without a box.

    Args:
        form: Form that the reader filled in: the file that read.html saved, or review.csv.
        key: key.csv of the same study (cxr reading-form), which names the image behind each number.
        data: Data set that cxr prepare made.
        out: Predictions folder to make.
        name: Name of the reader in the report.
        finding: Finding that was looked for, such as lung_opacity. Needed only if the data set has
            several findings.
        split: Split (which images are for training, validation and test) whose images were read.
            By default it is the split that cxr prepare made.

    Returns:
        The readings as predictions.

    Raises:
        InputError: The form is empty, a cell is no number, or an image is not in the key or the
            data set. The message names the row.

    Example:
        cxr import-form marks-Ann.csv --key out/study/key.csv --data out/data --out out/ann
        --name Ann
    """
    from cxr_compare.evaluation.boxes.read_table import ColumnNames
    from cxr_compare.evaluation.boxes.reading_advice import ReadingAdvice
    from cxr_compare.evaluation.sources.import_folder import import_file
    from cxr_compare.evaluation.sources.import_options import ImportOptions
    from cxr_compare.studies.readers.reader_form import read_review

    form = as_path(form)
    rows = read_review(form, as_path(key))
    read = rows["image_id"].unique().tolist()
    rows = rows.set_index("row")
    rows.index.name = None  # messages name a row by it, and line 1 of the form is its header
    if set(EDGES) <= set(rows):
        rows = rows[rows["x1"].notna()]
    options = ImportOptions(
        name,
        columns=ColumnNames(score_is_named=True),
        finding=finding,
        split=split,
        images=read,
        advice=ReadingAdvice(frame=str(form)),
    )
    predictions = import_file(rows, as_path(data), as_path(out), options)
    for note in predictions.info.notes:
        console.say(note)
    return predictions
