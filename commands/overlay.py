"""`cxr overlay`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cxr_compare.commands import console
from cxr_compare.commands.console import Shown
from cxr_compare.commands.options import (
    AnyColumns,
    AnyPath,
    Policy,
    Texts,
    comma_parts,
    roles_of,
)
from cxr_compare.data_prep.base.errors import InputError, as_typed, counted, require_extra

if TYPE_CHECKING:
    import pandas as pd

    from cxr_compare.commands.compared_systems import Systems
    from cxr_compare.commands.questions import Question
    from cxr_compare.evaluation.report.case_selection import ImageKind
    from cxr_compare.evaluation.report.cases import CaseSource
    from cxr_compare.evaluation.report.overlay_page import Overlay

_SEED = 0


def overlay(
    *systems: Annotated[
        AnyPath,
        Parameter(help="Runs, predictions folders and result files; NAME=PATH renames."),
    ],
    data: Annotated[AnyPath | None, Parameter(help="Data set of cxr prepare.")] = None,
    truth: AnyPath | None = None,
    boxes: AnyPath | None = None,
    images: AnyPath | None = None,
    columns: AnyColumns | None = None,
    out: AnyPath,
    target: str | None = None,
    image: Texts | None = None,
    split: str | None = None,
    limit: int = 20,
    policy: Policy = None,
) -> Shown:
    """Draw image, truth and each system side by side: one PNG an image, and a page of all.

    The page has a tab for each kind of image: found by one system alone, missed by all,
    called off the lesion, false alarms of a system, right ones.

    Args:
        truth: Labels in place of a data set.
        boxes: Boxes of the lesions, for a truth.
        images: Folder of the image files, for a truth.
        columns: Names of columns as ROLE=COLUMN, as of cxr compare.
        out: Folder of the overlays. Those of a former call are replaced.
        target: Finding whose truth is drawn, where there are several.
        image: Id of an image to draw, or the name of its file; may be repeated. Without it the
            worst test images of each kind are drawn.
        split: Split whose test images are drawn.
        limit: Largest number of images of each kind of error.
    """
    require_extra("overlay", "images")
    from cxr_compare.commands.compared_systems import (
        Systems,
        read_systems,
        shared_question,
        split_roles,
    )
    from cxr_compare.commands.questions import read_questions
    from cxr_compare.evaluation.policies import parse

    if not systems:
        raise InputError("overlay: give the systems that are drawn")
    if limit < 1:
        raise InputError(f"{as_typed({'limit': limit})}: give 1 or more")
    if policy is not None:
        parse(policy)
    inputs = read_systems(systems)
    of_truth, of_results = split_roles(roles_of(columns))
    targets, split = shared_question(inputs, data, list(comma_parts(target)), split)
    question, *others = read_questions(
        data, truth, boxes=boxes, images=images, columns=of_truth, target=targets, split=split
    )
    if others:
        raise InputError("target: an overlay is of one finding; name it")
    reading = Systems(inputs, of_results)
    image_names = [image] if isinstance(image, str) else list(image or ())
    with tempfile.TemporaryDirectory(prefix="cxr-") as folder:  # of predictions of runs
        source = _source(question, reading, policy, Path(folder))
        kinds, paths = source.kinds(), _paths_of(question)
        chosen = _found(image_names, paths, str(data or truth)) or _worst(source, kinds, limit)
        source.require_answers(chosen)
        page_path, files = _write(
            source, chosen, _names_of(paths), Path(out), may_lack=not image_names
        )
    line = f"Overlays: {counted(len(files), 'image')} in {out}; to look through: {page_path}"
    return Shown(line, list(map(str, files)))


def _source(question: Question, reading: Systems, policy: str | None, folder: Path) -> CaseSource:
    """Return what draws the images of a question; runs are predicted into a folder."""
    from cxr_compare.evaluation.drawn import DrawnSystem
    from cxr_compare.evaluation.policies import USUAL_POLICY
    from cxr_compare.evaluation.report.cases import CaseSource

    truth = question.truth
    if question.pixels is None:
        if question.dataset is None:
            raise InputError("images: give the folder of the image files, which are drawn")
        raise InputError(f"data: {question.dataset.folder} has no pixels to draw on")
    if not (truth.images["role"] == "test").any():
        raise InputError(f"split: '{question.split}' has no test image")
    systems = tuple(
        DrawnSystem.of(name, output, truth, policy or USUAL_POLICY)
        for name, output in reading.outputs(question, folder).items()
    )
    source = CaseSource(truth, question.pixels, systems, question.readings)
    return source.in_order([system.name for system in systems])


def _write(
    source: CaseSource,
    chosen: Sequence[str],
    names: Mapping[str, str],
    out: Path,
    *,
    may_lack: bool,
) -> tuple[Path, list[Path]]:
    """Draw images into a folder, with a page of all; return the page and the pictures."""
    from cxr_compare.data_prep.base.files import folder_lock
    from cxr_compare.evaluation.report import overlay_page as page

    page.require_overlay_folder(out)
    with folder_lock(out):
        page.remove_overlays(out)
        try:
            drawn = _draw(source, names, chosen, out, may_lack=may_lack)
        except InputError:
            page.remove_overlays(out)
            raise
        total = len(source.truth.of("test").ids)
        title = source.truth.finding_title
        page_path = page.write_overlay_page(out, title, drawn, source.kinds(), total=total)
        files = [out / each.file for each in drawn]
        page.write_overlay_record(out, files)
    return page_path, files


def _draw(
    source: CaseSource,
    names: Mapping[str, str],
    chosen: Sequence[str],
    out: Path,
    *,
    may_lack: bool,
) -> list[Overlay]:
    """Draw images into a folder; one without a file is left out with its reason, if it may be."""
    from cxr_compare.data_prep.base.files import atomic_path
    from cxr_compare.evaluation.report import overlay_page as page

    drawn, problems, files = list[page.Overlay](), list[InputError](), list[Path]()
    with console.track("Drawing", len(chosen)) as advance:
        for image_id in chosen:
            name = names[image_id]
            try:
                panels = source.panels(image_id, title=name)
            except InputError as problem:
                problems.append(problem)
                continue
            files.append(page.overlay_file(out, name, files))
            with atomic_path(files[-1]) as temporary:
                source.sheet(panels).save(temporary, "png")
            drawn.append(page.overlay_of(image_id, name, files[-1].name, panels))
            advance()
    if problems and not (may_lack and drawn):
        raise problems[0]
    if problems:
        console.say(f"{counted(len(problems), 'image', 'are')} not drawn: {problems[0]}")
    return drawn


def _paths_of(question: Question) -> pd.Series:
    """Return the path of each image in its data set, or its id."""
    if question.dataset is not None:
        return question.dataset.images.set_index("image_id")["path"]
    return question.truth.ids.to_series()


def _names_of(paths: pd.Series) -> dict[str, str]:
    """Return the name of the file of each image, with its folders where two have one name."""
    last = paths.map(lambda path: PurePosixPath(path).name)
    return dict(last.where(~last.duplicated(keep=False), paths))


def _found(images: Sequence[str], paths: pd.Series, where: str) -> list[str]:
    """Return the ids of images, each named by its id or its file."""
    from cxr_compare.data_prep.base.image_names import Names

    by_path = {path: image_id for image_id, path in paths.items()}
    others = [name for name in images if name not in paths.index]
    remedy = "give the id of an image, or the name of its file"
    path_of, _ = Names(by_path).match(others, "image", where, remedy)
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
