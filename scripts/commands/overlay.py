"""`cxr overlay`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from cyclopts import Parameter

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.folders import folder_kind
from cxr_compare.scripts import console
from cxr_compare.scripts.console import Shown
from cxr_compare.scripts.options import AnyPath, DataFolder, Named, Policy, Texts, run_names

if TYPE_CHECKING:
    from cxr_compare.data_prep.dataset import DataSet

_SEED = 0


def overlay(
    *systems: Annotated[
        AnyPath,
        Parameter(
            help="Report of trained runs, or predictions of the data set; NAME=PATH renames one."
        ),
    ],
    data: DataFolder,
    out: AnyPath,
    target: str | None = None,
    image: Texts | None = None,
    split: str = "default",
    limit: int = 20,
    policy: Policy = None,
) -> Shown:
    """Draw image, truth and each system side by side: one PNG an image, and a page of all.

    Args:
        out: Folder of the overlays.
        target: Finding whose truth is drawn, where the data set has several.
        image: Id of an image to draw; may be repeated. Without it test images are drawn at random.
        split: Split whose test images are drawn.
        limit: Number of test images that are drawn at random.
    """
    from cxr_compare.data_prep.base.files import atomic_path, folder_lock
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.data_prep.predictions import Predictions
    from cxr_compare.evaluation.inputs.folders import output_of, truth_of
    from cxr_compare.evaluation.overlays.leaf_page import write_leaf_page
    from cxr_compare.evaluation.policies import USUAL_POLICY, parse
    from cxr_compare.evaluation.report.cases import cases_of_images
    from cxr_compare.evaluation.report.pixels import readings_of

    if not systems:
        raise InputError("overlay: give a report of cxr compare, or predictions of cxr predict")
    if limit < 1:
        raise InputError(f"limit: {limit}; give 1 or more")
    dataset, out = DataSet.open(Path(data)), Path(out)
    if not dataset.has_pixels:
        raise InputError(f"{dataset.folder}: has no pixels to draw on")
    chosen = _chosen(dataset, [image] if isinstance(image, str) else image, split, limit)
    opened: dict[str, Predictions] = {}
    folders, of_reports = _predictions_of(systems, dataset.folder)
    for given, path in folders:
        predictions = Predictions.open(path)
        name = given or predictions.name
        if name in opened:
            raise InputError(f"overlay: two systems are called '{name}'; write NAME=PATH")
        made_on = predictions.info.data_set
        is_same = made_on is not None and made_on.content_id == dataset.ids.content_id
        if made_on is not None and is_same and made_on.split not in (None, split):
            raise InputError(f"{path}: is of split '{made_on.split}'; give split {made_on.split}")
        opened[name] = predictions
    wanted = policy or USUAL_POLICY
    parse(wanted)
    finding = dataset.target(target)
    truth = truth_of(dataset, finding, split)
    outputs = {name: output_of(name, each, truth, finding) for name, each in opened.items()}
    readings = readings_of(dataset, finding.any_of)
    pixels = dataset.read_original
    cases = cases_of_images(outputs, truth, pixels, chosen, wanted, readings, of_reports)
    files = [out / _file_name(image_id) for image_id in chosen]
    with folder_lock(out), console.track("Drawing", len(chosen)) as advance:
        for image_id, file in zip(chosen, files, strict=True):
            with atomic_path(file) as temporary:
                cases.draw(image_id).save(temporary, "png")
            advance()
        page = write_leaf_page(out, chosen, files)
    line = f"Overlays: {counted(len(files), 'image')} in {out}; to leaf through: {page}"
    return Shown(line, list(map(str, files)))


def _predictions_of(systems: Sequence[AnyPath], data: Path) -> tuple[list[Named], list[str]]:
    """Return the folders of predictions that are given, and all systems of the reports among them.

    A report has the predictions of its runs, and decides the order of the systems.
    """
    from cxr_compare.data_prep.predictions import Predictions
    from cxr_compare.evaluation.report.result import Result

    found: list[Named] = []
    of_reports: list[str] = []
    for name, path in run_names(systems):
        kind = folder_kind(path)
        if kind is not None and kind.name == "run":
            raise InputError(
                f"{path}: is a run, whose answers are drawn; give the report of cxr compare, or "
                f"write first: cxr predict {path} --data {data} --out PREDICTIONS"
            )
        if kind is None or kind.name != "report":
            found.append((name, path))
            continue
        stored = [each.parent for each in (path / "systems").glob("*/predictions.json")]
        of_runs = {Predictions.open(each).name: each for each in stored}
        if name is not None or not of_runs:
            problem = "is a report, which no name renames" if of_runs else "keeps no predictions"
            raise InputError(f"{path}: {problem}; give the folders of predictions")
        of_reports += Result.open(path).systems
        found += [(None, each) for each in stored]
    return found, of_reports


def _chosen(dataset: DataSet, image: Sequence[str] | None, split: str, limit: int) -> list[str]:
    """Return the images that are named, or some test images."""
    if image:
        unknown = sorted(set(image) - set(dataset.images["image_id"]))
        if unknown:
            raise InputError(f"{dataset.folder}: has no image '{unknown[0]}'")
        return list(dict.fromkeys(image))
    ids = dataset.image_ids("test", split).to_numpy()
    if not len(ids):
        raise InputError(f"{dataset.folder}: split '{split}' has no test image")
    drawn = np.random.default_rng(_SEED).choice(ids, min(limit, len(ids)), replace=False)
    return sorted(map(str, drawn))


def _file_name(image_id: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in image_id) + ".png"
