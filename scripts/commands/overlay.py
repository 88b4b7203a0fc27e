"""`cxr overlay`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cxr_compare.data_prep.base.errors import InputError, counted, require_extra
from cxr_compare.data_prep.base.folders import folder_kind
from cxr_compare.scripts import console
from cxr_compare.scripts.console import Shown
from cxr_compare.scripts.options import AnyPath, Named, Policy, Texts, run_names

if TYPE_CHECKING:
    import pandas as pd

    from cxr_compare.data_prep.base.names import Target
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.evaluation.compare import Request
    from cxr_compare.evaluation.drawn import DrawnSystem
    from cxr_compare.evaluation.report.case_selection import ImageKind
    from cxr_compare.evaluation.report.cases import CaseSource
    from cxr_compare.evaluation.report.overlay_page import Overlay
    from cxr_compare.evaluation.report.result import Result
    from cxr_compare.evaluation.truth import Truth

_SEED = 0


@dataclass
class _Drawing:
    """Images to draw, with their truth, answers and names.

    Attributes:
        names: Name of each image for the reader, by id; its id for others.
        find: Function from names that a user writes to the id of each.
        report: Report whose systems are drawn.
    """

    source: CaseSource
    find: Callable[[Sequence[str]], list[str]]
    names: Mapping[str, str] = field(default_factory=dict)
    report: Result | None = None


def overlay(
    *systems: Annotated[
        AnyPath,
        Parameter(help="A report, or predictions of the data set; NAME=PATH renames one of these."),
    ],
    data: Annotated[AnyPath | None, Parameter(help="Data set of cxr prepare.")] = None,
    images: AnyPath | None = None,
    out: AnyPath,
    target: str | None = None,
    image: Texts | None = None,
    split: str | None = None,
    limit: int = 20,
    policy: Policy = None,
) -> Shown:
    """Draw image, truth and each system side by side: one PNG an image, and a page of all.

    The page has a tab for each kind of image: missed by a system, its false alarms, those
    that it calls off the lesion, images on which the systems disagree.

    Args:
        images: Folder of the image files, for the report of a comparison that had a truth and no
            data set.
        out: Folder of the overlays. Those of a former call are replaced.
        target: Finding whose truth is drawn, where the data set has several.
        image: Id of an image to draw, or the name of its file; may be repeated. Without it the
            worst test images of each kind are drawn.
        split: Split whose test images are drawn.
        limit: Largest number of images of each kind of error.
    """
    require_extra("overlay", "images")
    from cxr_compare.data_prep.base.files import folder_lock
    from cxr_compare.evaluation.policies import parse
    from cxr_compare.evaluation.report import overlay_page as page

    if not systems:
        raise InputError("overlay: give a report of cxr compare, or predictions of cxr predict")
    if limit < 1:
        raise InputError(f"limit: {limit}; give 1 or more")
    if policy is not None:
        parse(policy)
    named_paths, out = run_names(systems), Path(out)
    kind = folder_kind(named_paths[0][1])
    if kind is not None and kind.name == "report":
        drawing = _of_report(named_paths, data, images, target, split, policy)
    elif kind is not None and kind.name == "report on several findings":
        raise InputError(
            f"{named_paths[0][1]}: is a report on several findings; give that of one in it"
        )
    elif images is not None:
        raise InputError("images: are for a report without a data set; give data for predictions")
    elif data is None:
        raise InputError("data: is needed; give the data set of the predictions")
    else:
        drawing = _of_predictions(named_paths, Path(data), target, split or "default", policy)
    image_names = [image] if isinstance(image, str) else image
    kinds = drawing.source.kinds()
    chosen = drawing.find(image_names) if image_names else _worst(drawing.source, kinds, limit)
    drawing.source.require_answers(chosen)
    page.require_overlay_folder(out)
    with folder_lock(out):
        page.remove_overlays(out)
        try:
            drawn = _draw(drawing, chosen, out, may_lack=not image_names)
        except InputError:
            page.remove_overlays(out)
            raise
        page_path = page.write_overlay_page(
            out,
            drawing.source.truth.finding_title,
            list(drawn.values()),
            [
                kind.named({image_id: drawn_image.image for image_id, drawn_image in drawn.items()})
                for kind in kinds
            ],
            total=len(drawing.source.truth.of("test").ids),
            report=None if drawing.report is None else drawing.report.page,
        )
        files = [out / drawn_image.file for drawn_image in drawn.values()]
        page.write_overlay_record(out, files)
    line = f"Overlays: {counted(len(files), 'image')} in {out}; to look through: {page_path}"
    return Shown(line, list(map(str, files)))


def _draw(
    drawing: _Drawing, chosen: Sequence[str], out: Path, *, may_lack: bool
) -> dict[str, Overlay]:
    """Draw images into a folder; one without a file is left out with its reason, if it may be."""
    from cxr_compare.data_prep.base.files import atomic_path
    from cxr_compare.evaluation.report import overlay_page as page

    source, drawn, problems = drawing.source, dict[str, page.Overlay](), list[InputError]()
    has_numbers = drawing.report is not None and drawing.report.answer.numbers_for_ids
    files: list[Path] = []
    with console.track("Drawing", len(chosen)) as advance:
        for number, image_id in enumerate(chosen, start=1):
            name = f"image-{number}" if has_numbers else drawing.names.get(image_id, image_id)
            try:
                panels = source.panels(image_id, title=name)
            except InputError as problem:
                problems.append(problem)
                continue
            files.append(page.overlay_file(out, name, files))
            with atomic_path(files[-1]) as temporary:
                source.sheet(panels).save(temporary, "png")
            key = name if has_numbers else image_id
            drawn[image_id] = page.overlay_of(key, name, files[-1].name, panels)
            advance()
    if problems and not (may_lack and drawn):
        raise problems[0]
    if problems:
        console.say(f"{counted(len(problems), 'image', 'are')} not drawn: {problems[0]}")
    return drawn


def _of_report(
    named_paths: Sequence[Named],
    data: AnyPath | None,
    images: AnyPath | None,
    target: str | None,
    split: str | None,
    policy: str | None,
) -> _Drawing:
    """Return what is drawn of a report, in its order, by its policy unless another is given."""
    from cxr_compare.evaluation.inputs.folders import truth_of
    from cxr_compare.evaluation.report.inputs import stored_request
    from cxr_compare.evaluation.report.result import Result

    (name, path), *others = named_paths
    if others or name is not None:
        problem = "is a report, which no name renames" if name else "is a report"
        raise InputError(f"{path}: {problem}; give it alone, or folders of predictions")
    result = Result.open(path)
    fixed = {"target": target, "split": split}
    for option in (option for option, value in fixed.items() if value is not None):
        raise InputError(f"{option}: the report {path} fixes it; leave it out")
    answer, made_on = result.answer, result.answer.provenance.data_set
    if made_on is None or made_on.content_id is None:
        if data is not None or images is None:
            raise InputError(
                f"images: is needed, because {path} is of a truth and no data set; give the folder "
                "of its image files, without data"
            )
        if policy not in (None, *result.policies):
            policies = ", ".join(result.policies) or "none"
            raise InputError(f"policy: {policy} is none of this report; it has {policies}")
        drawing = _of_truth(result, stored_request(Path(path), answer), Path(images), policy)
    else:
        if images is not None:
            raise InputError(f"images: {path} is of a data set, which has them; give data instead")
        if data is None:
            raise InputError(f"data: give the data set of which {path} was made; it has the images")
        dataset = _with_pixels(Path(data))
        if dataset.ids.content_id != made_on.content_id:
            raise InputError(f"data: {dataset.folder} is not the data set of {path}; give that one")
        request, finding = stored_request(Path(path), answer), dataset.target(answer.target)
        truth = truth_of(dataset, finding, str(made_on.split))
        drawing = _of_data(_systems_of(result, request, policy), dataset, truth, finding)
    source = drawing.source.in_order(result.systems, result.ordered)
    return replace(drawing, source=source, report=result)


def _systems_of(result: Result, request: Request, policy: str | None) -> tuple[DrawnSystem, ...]:
    """Return the answers of the systems of a report, by its policy unless another is given."""
    from cxr_compare.evaluation.report.drawn_systems import decided_system

    answer = result.answer
    return tuple(
        decided_system(name, request.outputs[name], request.truth, policy or answer.policy)
        for name in answer.single
    )


def _of_truth(result: Result, request: Request, images: Path, policy: str | None) -> _Drawing:
    """Return what is drawn of a report without a data set."""
    import pandas as pd

    from cxr_compare.data_prep.base.image_names import Names
    from cxr_compare.evaluation.inputs.image_sizes import files_of_folder
    from cxr_compare.evaluation.report.cases import CaseSource
    from cxr_compare.evaluation.report.pixels import pixels_of_files

    files = files_of_folder(images)
    ids = pd.Index(result.decisions["image_id"].unique())
    if not any(map(files.find, ids)):
        raise InputError(f"images: {images}: no file has the name of an image, such as {ids[0]}")
    systems = _systems_of(result, request, policy)
    source = CaseSource(request.truth.select(ids), pixels_of_files(files), systems)
    names = Names(ids)

    def find(image_names: Sequence[str]) -> list[str]:
        return list(names.match(image_names, "image", str(result.folder))[0].values())

    return _Drawing(source, find)


def _of_predictions(
    named_paths: Sequence[Named], data: Path, target: str | None, split: str, policy: str | None
) -> _Drawing:
    """Return what is drawn of folders of predictions."""
    from cxr_compare.data_prep.predictions import Predictions
    from cxr_compare.evaluation.inputs.folders import output_of, truth_of
    from cxr_compare.evaluation.policies import USUAL_POLICY
    from cxr_compare.evaluation.report.drawn_systems import decided_system

    dataset = _with_pixels(data)
    opened: dict[str, Predictions] = {}
    for new_name, path in named_paths:
        kind = folder_kind(path)
        if kind is not None and kind.name == "run":
            raise InputError(
                f"{path}: is a run, whose answers are drawn; give the report of cxr compare, or "
                f"write first: cxr predict {path} --data {data} --out PREDICTIONS"
            )
        predictions = Predictions.open(path)
        name = new_name or predictions.name
        if name in opened:
            raise InputError(f"overlay: two systems are called '{name}'; write NAME=PATH")
        made_on = predictions.info.data_set
        is_same = made_on is not None and made_on.content_id == dataset.ids.content_id
        if made_on is not None and is_same and made_on.split not in (None, split):
            raise InputError(f"{path}: is of split '{made_on.split}'; give split {made_on.split}")
        opened[name] = predictions
    finding = dataset.target(target)
    truth = truth_of(dataset, finding, split)
    if not (truth.images["role"] == "test").any():
        raise InputError(f"{dataset.folder}: split '{split}' has no test image")
    systems = tuple(
        decided_system(
            name, output_of(name, predictions, truth, finding), truth, policy or USUAL_POLICY
        )
        for name, predictions in opened.items()
    )
    drawing = _of_data(systems, dataset, truth, finding)
    return replace(drawing, source=drawing.source.in_order(list(opened)))


def _of_data(
    systems: tuple[DrawnSystem, ...], dataset: DataSet, truth: Truth, finding: Target
) -> _Drawing:
    """Return what is drawn of a data set; an image is named by its id or its file."""
    from cxr_compare.evaluation.report.cases import CaseSource
    from cxr_compare.evaluation.report.pixels import readings_of

    paths = dataset.images.set_index("image_id")["path"]
    readings = readings_of(dataset, finding.any_of)
    source = CaseSource(truth, dataset.read_original, systems, readings)

    def find(images: Sequence[str]) -> list[str]:
        return _found(images, paths, dataset.folder)

    return _Drawing(source, find, _names_of(paths))


def _with_pixels(data: Path) -> DataSet:
    from cxr_compare.data_prep.dataset import DataSet

    dataset = DataSet.open(data)
    if not dataset.has_pixels:
        raise InputError(f"{dataset.folder}: has no pixels to draw on")
    return dataset


def _names_of(paths: pd.Series) -> dict[str, str]:
    """Return the name of the file of each image, with its folders where two have one name."""
    last = paths.map(lambda path: PurePosixPath(path).name)
    return dict(last.where(~last.duplicated(keep=False), paths))


def _found(images: Sequence[str], paths: pd.Series, folder: Path) -> list[str]:
    """Return the ids of images, each named by its id or its file."""
    from cxr_compare.data_prep.base.image_names import Names

    by_path = {path: image_id for image_id, path in paths.items()}
    others = [name for name in images if name not in paths.index]
    remedy = "give the id of an image, or the name of its file"
    path_of, _ = Names(by_path).match(others, "image", str(folder), remedy)
    ids = [name if name in paths.index else str(by_path[path_of[name]]) for name in images]
    return list(dict.fromkeys(ids))


def _worst(source: CaseSource, kinds: Sequence[ImageKind], limit: int) -> list[str]:
    """Return the first images of each kind; of images that are not decided some at random."""
    if kinds:
        return list(dict.fromkeys(image for kind in kinds for image in kind.image_ids[:limit]))
    import numpy as np

    images = source.truth.images
    ids = images.index[images["role"] == "test"].to_numpy()
    drawn = np.random.default_rng(_SEED).choice(ids, min(limit, len(ids)), replace=False)
    return sorted(map(str, drawn))
