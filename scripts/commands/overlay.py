"""`cxr overlay`: draw images with the truth and the answer of each system."""

from __future__ import annotations

import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from cxr_compare.data_prep.contracts.atomic_files import remove_old_temporary_files
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.overlays.draw import to_png
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import stored_decision
from cxr_compare.scripts import console
from cxr_compare.scripts.given_systems import SystemPaths, Systems, read_systems
from cxr_compare.scripts.options import DataFolder, choose_images, own_split
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.systems import is_run, predict_images, require_predictable


@command
def overlay(
    systems: Systems,
    *,
    data: DataFolder,
    out: AnyPath,
    target: str | None = None,
    image: list[str] | None = None,
    split: str | None = None,
    limit: Annotated[int, Argument(minimum=1)] = 20,
    policy: str | None = None,
) -> Outcome:
    """Draw image, truth and each system side by side, one PNG per image.

    A PNG is up to 2,000 px wide where the image has as many pixels.

    If cxr tune has chosen no threshold for a system, its boxes with a score of at least 0.5 are
    drawn, and its decision is marked as undecided.

    Args:
        systems: Predictions folders (of cxr predict, import or ensemble) or runs (folders of cxr
            train), each as PATH or NAME=PATH. A run predicts the images that are drawn.
        data: Data set that cxr prepare made.
        out: Folder for the PNG files.
        target: Target (a finding, or a group of findings) whose truth is drawn. Needed only if the
            data set has several targets.
        image: Id of an image to draw. Without it a random sample is drawn.
        split: Split (which images are for training, validation and test) whose test images are
            drawn. By default it is the split of the systems.
        limit: Largest number of images to draw. If there are more, a random sample is drawn.
        policy: Policy (rule that chose a threshold, such as max_f1) by whose threshold systems
            decide. cxr tune must have used it. By default it is the threshold that was declared
            for the system, or else that of max_f1.

    Returns:
        The files that were drawn.

    Raises:
        InputError: There is nothing to draw, or two systems have the same name.

    Example:
        cxr overlay RetinaNet=out/retinanet CheXNet=out/chexnet-predictions --data out/data
        --out out/overlays --limit 12
    """
    systems = read_systems(systems)
    data = as_path(data)
    out = as_path(out)
    require_predictable(systems)
    from cxr_compare.evaluation.report.cases import read_cases_of_images

    dataset = DataSet.open(data)
    of_target = dataset.target(target)
    split = own_split(split, [path for system in systems for path in system.paths], dataset)
    if not dataset.has_pixels:
        raise InputError(f"{data}: has no pixels, so there is nothing to draw on")
    image_ids = choose_images(dataset, image, split, limit)
    count = counted(len(image_ids), "image")
    if not systems:
        raise InputError("overlay: give at least one predictions folder or run")
    files = [out / image_file_name(image_id) for image_id in image_ids]
    with TemporaryDirectory() as scratch:
        test_set = LabelledSplit(dataset, of_target, split)
        opened = _open_systems(systems, test_set, image_ids, Path(scratch))
        cases = read_cases_of_images(opened, test_set, image_ids, policy=policy)
        make_folder(out)
        remove_old_temporary_files(out)
        with console.track("Drawing", len(image_ids)) as advance:
            for image_id, file in zip(image_ids, files, strict=True):
                to_png(cases.draw(image_id).sheet(), file)
                advance()
    return Outcome(
        f"Overlays: {count} in {out}",
        [str(file) for file in files],
        next_steps=(f"open {shlex.quote(str(files[0]))}",),
    )


def _open_systems(
    systems: list[SystemPaths], test_set: LabelledSplit, image_ids: list[str], scratch: Path
) -> dict[str, Predictions]:
    """Open systems by name; a run predicts the images into `scratch`."""
    opened: dict[str, Predictions] = {}
    for number, (name, paths) in enumerate(systems):
        if paths[1:]:
            raise InputError(f"overlay: {name}: is several training seeds; give one of them")
        (path,) = paths
        if is_run(path):
            predictions = predict_images(path, test_set, image_ids, scratch / str(number))
            if stored_decision(predictions, test_set.target.name) is None:
                console.say(
                    f"{path}: has no decision for these labels, so it is shown undecided; the same "
                    "cxr train command adds one"
                )
        else:
            predictions = Predictions.open(path)
        key = name or predictions.name
        if key in opened:
            raise InputError(
                f"overlay: two systems are called '{key}'; give each its own: NAME=PATH"
            )
        opened[key] = predictions
    return opened


def image_file_name(image_id: str) -> str:
    """Return a name of a PNG file for an image id.

    Characters that are neither letters, digits, dots, hyphens nor underscores become underscores.

    Example:
        >>> image_file_name("patient/1.png")
        'patient_1.png.png'
    """
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in image_id) + ".png"
