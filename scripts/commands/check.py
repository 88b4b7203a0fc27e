"""`cxr check`: find faults of a data set, or of a split of others, that make results wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.sources.shortcuts import measure_shortcuts
from cxr_compare.scripts.next_steps import trainings
from cxr_compare.scripts.options import open_workers
from cxr_compare.scripts.parameters import AnyPath, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.split_lists import CheckedData, check_split_file

if TYPE_CHECKING:
    from cxr_compare.data_prep.audit.audit import Audit
    from cxr_compare.data_prep.audit.shared_patients import SplitCheck


@command
def check(
    data: CheckedData,
    *,
    split: str | None = None,
    strict: bool = False,
    no_pixels: bool = False,
    burned_in_text: bool = False,
    train: Sequence[AnyPath] = (),
    mapping: AnyPath | None = None,
) -> Audit | SplitCheck:
    """Audit a data set, or check how a published split shares patients.

    The command writes four files into the data set folder: audit.html (the page to read),
    audit_cases.csv (every case), audit.json (for programs) and exclude.csv (images to leave out,
    for cxr prepare --exclude). An exclude.csv that is already there is not changed. Exit
    status 1 means that the audit found an error.

    If DATA is a file with a split that somebody published, the command prints how many of its test
    images show a patient who is also in training (docs/splits.md). It writes nothing. Exit status 1
    means that there is such an image.

    Args:
        data: Data set that cxr prepare made. Or a split that somebody published: a table with a
            column of images or patients and a column of roles (train, val, test); or, with --train,
            the list of its test images.
        split: Report only on this split (which images are for training, validation and test) and on
            the images themselves. The files always cover all splits.
        strict: Exit with status 1 on warnings, too. Without it only errors do so.
        no_pixels: Read the tables only. This is faster, and the page shows no images.
        burned_in_text: Also search the pixels of all images for lines of text, which can name the
            patient. Every image file is decoded again.
        train: List of the training images of a published split, one image on each line. Give the
            option several times if there are several lists.
        mapping: File that names the patient of each image of a published split: rsna_to_nih.csv, a
            CSV with image_id and patient_id, or a prepared data set. The word rsna takes the RSNA
            mapping beside the split or in this folder.

    Returns:
        The problems that the audit found, the most serious first; or the counts of shared patients.

    Raises:
        InputError: The split does not exist, the Ray cluster cannot start, or a list or mapping
            cannot be read.

    Example:
        cxr check data/rsna

        cxr check test.txt --train train.txt --mapping rsna
    """
    data = as_path(data)
    if data.is_file():
        given = {
            "--split": split is not None,
            "--strict": strict,
            "--no-pixels": no_pixels,
            "--burned-in-text": burned_in_text,
        }
        return check_split_file(
            data,
            [as_path(path) for path in train],
            mapping,
            other_options=[option for option, is_given in given.items() if is_given],
        )
    if train or mapping is not None:
        option = "--train" if train else "--mapping"
        raise InputError(f"{option}: is for a split of others; {data} is a data set, leave it out")
    if no_pixels and burned_in_text:
        raise InputError("--burned-in-text: searches the pixels; leave out --no-pixels")
    from cxr_compare.data_prep.audit import audit, page
    from cxr_compare.data_prep.audit.images import find_burned_in_text

    dataset = DataSet.open(data)
    if split is not None:
        dataset.split(split)  # refuses a name that it does not have, before anything is measured
    with open_workers() as workers:
        found = audit.audit(
            dataset,
            pixels=not no_pixels,
            text=find_burned_in_text(dataset, workers) if burned_in_text else None,
            measure_shortcuts=measure_shortcuts,
            workers=workers,
        )
    with folder_lock(data):
        page.write_audit(dataset, found, data, pixels=not no_pixels)
    if split is not None:
        found = found.for_split(split)
    steps = trainings(dataset, split or "default") if found.passed else []
    return replace(found, folder=data, strict=strict, next_steps=tuple(steps))
