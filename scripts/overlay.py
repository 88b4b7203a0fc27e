"""`cxr overlay`: images of what each system sees on chosen images."""

from __future__ import annotations

import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import counted
from scripts import console
from scripts.options import own_split

if TYPE_CHECKING:
    from data_prep.store.dataset import DataSet
    from data_prep.store.predictions import Predictions
    from evaluation.decisions.test_set import TestSet


def overlay(
    systems: Annotated[
        list[str] | None,
        typer.Argument(
            help="Predictions folders or runs, each as PATH or NAME=PATH; a run predicts the "
            "images that are drawn."
        ),
    ] = None,
    *,
    data: Annotated[Path, typer.Option(help="Data set that cxr prepare made.")],
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")],
    target: Annotated[
        str | None, typer.Option(help="What is shown; may be left out where there is one.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="An image id; may be repeated. Goes before --role.")
    ] = None,
    role: Annotated[str, typer.Option(help="Sample from these images: train, val, test.")] = "test",
    split: Annotated[
        str | None, typer.Option(help="Name of the split; by default the systems'.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Draw at most this many, at random.")] = 20,
    policy: Annotated[str, typer.Option(help="Decide at this policy's threshold.")] = "max_f1",
    panel: Annotated[int, typer.Option(min=64, max=2048, help="Side of a panel, px.")] = 480,
    seed: Annotated[int, typer.Option(help="Seed of the random sample.")] = 0,
    faint: Annotated[
        bool, typer.Option("--faint", help="Draw boxes below the threshold, too, thin and grey.")
    ] = False,
    blind: Annotated[
        bool,
        typer.Option(
            "--blind",
            help="For a reader study: plain numbered images in random order, key.csv, and an "
            "empty review.csv that cxr import --key reads back. Takes no systems.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the files that were drawn.")
    ] = False,
) -> None:
    """Draw the plain image, the truth and each system side by side, one PNG an image.

    A system that cxr tune has not tuned is shown undecided, with boxes from score 0.5.

    Example: cxr overlay RetinaNet=out/retinanet CheXNet=out/chexnet-predictions --data out/data
    --out out/overlays --limit 12
    """
    from data_prep.store.folder_kinds import require_kind

    require_kind(data, "data set")  # before what is heavy: a wrong folder is said at once
    from data_prep.contracts.folders import make_folder
    from data_prep.store.dataset import DataSet
    from evaluation.decisions.test_set import TestSet
    from evaluation.overlays.draw import to_png
    from evaluation.report.cases import read_systems
    from scripts.options import split_name

    dataset = DataSet.open(data)
    shown = dataset.target(target)
    split = own_split(split, [split_name(each)[1] for each in systems or ()], dataset)
    if not dataset.has_pixels:
        raise InputError(f"{data}: has no pixels, so there is nothing to draw on")
    image_ids = choose_images(dataset, image, role, split, limit, seed)
    if blind:
        write_study(dataset, image_ids, out, shown.display_name, panel, seed, systems)
        files = sorted(out.glob("*.png"))
        place = shlex.quote(str(out))
        console.next_step(
            f"cxr import {place}/review.csv --key {place}/key.csv --data {shlex.quote(str(data))} "
            "--name READER --out READINGS, once review.csv is filled in"
        )
    elif not systems:
        raise InputError("overlay: give at least one predictions folder or run, or --blind")
    else:
        files = [out / file_name(image_id) for image_id in image_ids]
        with TemporaryDirectory() as scratch:
            test_set = TestSet(dataset, shown, split)
            opened = open_systems(systems, test_set, image_ids, Path(scratch))
            cases = read_systems(opened, test_set, image_ids, policy=policy)
            make_folder(out)
            with console.progress("Drawing", len(image_ids)) as advance:
                for image_id, file in zip(image_ids, files, strict=True):
                    to_png(cases.draw(image_id, panel=panel, faint=faint), file)
                    advance()
        console.say(f"Overlays: {counted(len(files), 'image')} in {out}")
        console.next_step(f"open {shlex.quote(str(files[0]))}")
    if as_json:
        console.emit_json([str(file) for file in files])


def write_study(
    dataset: DataSet,
    image_ids: list[str],
    out: Path,
    finding: str,
    panel: int,
    seed: int,
    systems: list[str] | None,
) -> None:
    """Write a reader study of the images."""
    from evaluation.overlays.reader_study import write_reader_study

    if systems:
        raise InputError("overlay --blind: takes no systems; leave them out")
    with console.progress("Drawing", len(image_ids)) as advance:
        write_reader_study(
            dataset, image_ids, out, finding=finding, panel=panel, seed=seed, progress=advance
        )
    images = counted(len(image_ids), "image")
    console.say(f"Reader study: {images} in {out}; keep key.csv from the readers")


def choose_images(
    dataset: DataSet, named: list[str] | None, role: str, split: str, limit: int, seed: int
) -> list[str]:
    """The named images, or a random sample of a role's, sorted."""
    import numpy as np

    if named:
        known = set(dataset.images["image_id"])
        unknown = [image_id for image_id in named if image_id not in known]
        if unknown:
            raise InputError(f"{dataset.folder}: has no image '{unknown[0]}'")
        return list(dict.fromkeys(named))
    ids = dataset.image_ids(role, split)
    if not len(ids):
        raise InputError(f"{dataset.folder}: split '{split}' has no image with the role '{role}'")
    count = min(limit, len(ids))
    return sorted(np.random.default_rng(seed).choice(ids.to_numpy(), count, replace=False))


def open_systems(
    systems: list[str], test_set: TestSet, image_ids: list[str], scratch: Path
) -> dict[str, Predictions]:
    """Open systems given as ``PATH`` or ``NAME=PATH``; a run predicts the images into `scratch`."""
    from data_prep.store.predictions import Predictions
    from scripts.options import split_name
    from scripts.systems import is_run, predict_images

    opened: dict[str, Predictions] = {}
    for number, each in enumerate(systems):
        name, path = split_name(each)
        if is_run(path):
            folder = scratch / str(number)
            predictions = predict_images(path, test_set, image_ids, folder)
            if predictions.decision(test_set.target.name) is None:
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


def file_name(image_id: str) -> str:
    """A file name for an image id, which may hold slashes.

    Example:
        >>> file_name("patient/1.png")
        'patient_1.png.png'
    """
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in image_id) + ".png"
