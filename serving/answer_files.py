"""Image files to answers, a table, and overlays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from cxr_compare.data_prep.base.errors import InputError, counted, printable
from cxr_compare.data_prep.base.files import atomic_path, folder_lock, make_folder, path_lock
from cxr_compare.data_prep.base.provenance import cpu_count
from cxr_compare.data_prep.base.user_tables import write_csv
from cxr_compare.data_prep.images.loose_images import (
    LooseImage,
    read_dicom_ids,
    read_loose_images,
)
from cxr_compare.data_prep.parallel import Progress, Silence
from cxr_compare.evaluation.report import overlay_page
from cxr_compare.evaluation.report.case_selection import ImageKind
from cxr_compare.evaluation.report.overlay_page import OVERLAY_END, Overlay
from cxr_compare.serving.answer import Answer, Answers, to_png_bytes
from cxr_compare.serving.run import Run

_PICTURE = ".png"
_WORTH_WORKERS = 16
_MOST_NAMED = 10
"""Files without an answer that the page names."""


@dataclass
class Outcome:
    """What came of one file: the answers of all runs, or the reason for none.

    Attributes:
        drawn: Name of its overlay.
    """

    answers: Sequence[Answer] = ()
    problem: str = ""
    drawn: str = ""


def answer_files(
    runs: Sequence[Run],
    paths: Sequence[Path],
    *,
    out: Path | None = None,
    csv: Path | None = None,
    dicom_ids: bool = False,
    progress: Progress = Silence(),  # noqa: B008 - it has no state
) -> Answers:
    """Answer for files; one that cannot be read is left out with its reason, the others go on.

    `out` is a folder that gets an overlay of each image and a page of all, in place of those of a
    former call, or the PNG of one; `csv` is the table, which also has a file without an answer.
    """
    if csv is not None and csv.exists() and not csv.is_file():
        raise InputError(f"csv: {csv} is no file that can be replaced; name another")
    files = [path for path in paths if not path.name.endswith(OVERLAY_END)]
    if paths and not files:
        raise InputError(f"{paths[0]}: holds overlays of an earlier call alone; give images")
    folder = None if out is None or out.suffix.lower() == _PICTURE else out
    if out is not None and folder is None and len(files) > 1:
        raise InputError(
            f"out: {out} is one picture, and there are {len(files)} images; name a folder"
        )
    workers = min(cpu_count(), len(files)) if len(files) >= _WORTH_WORKERS else 1
    answers = Answers()
    answers.dicom_ids = {} if dicom_ids else None
    overlays: list[Overlay] = []
    tracker = progress if len(files) > 1 else Silence()
    names = _names_of(files)
    with (
        _lock(out, is_folder=folder is not None),
        _lock(csv),
        tracker.track("Predicting images", len(files)) as advance,
    ):
        if folder is not None:
            overlay_page.remove_overlays(folder)
        taken_files: list[Path] = []
        for path, file in zip(files, read_loose_images(files, workers=workers), strict=True):
            outcome = _answered(runs, file)
            if out is not None and outcome.answers:
                picture = out
                if folder is not None:
                    picture = overlay_page.overlay_file(folder, names[path], taken_files)
                with atomic_path(picture) as temporary:
                    temporary.write_bytes(to_png_bytes(outcome.answers, names[path]))
                taken_files.append(picture)
                outcome.drawn = picture.name
                overlays.append(_overlay(path, names[path], outcome))
            _add(answers, path, outcome)
            advance(1)
        if answers.left_out and not answers and csv is None:
            reason = next(iter(answers.left_out.values()))
            many = f"none of {counted(len(files), 'file')} was answered; the first: "
            raise InputError(reason if len(files) == 1 else many + reason)
        if folder is not None and overlays:
            unread = [
                printable(name)
                for path, name in names.items()
                if printable(str(path)) in answers.left_out
            ]
            page = _write_page(folder, overlays, answers, unread)
            overlay_page.write_overlay_record(folder, taken_files)
            n_drawn = counted(len(overlays), "image")
            progress.say(f"Overlays: {n_drawn} in {out}; to look through: {page}")
        if csv is not None:
            write_csv(answers.to_frame(), csv)
    return answers


def _names_of(files: Sequence[Path]) -> dict[Path, str]:
    """Return the path of each file below the folder that all files share."""
    whole = {path: path.absolute().parts for path in files}
    levels = zip(*(parts[:-1] for parts in whole.values()), strict=False)
    n_shared = sum(1 for _ in takewhile(lambda folders: len({*folders}) == 1, levels))
    return {path: "/".join(parts[n_shared:]) for path, parts in whole.items()}


def _lock(out: Path | None, *, is_folder: bool = False) -> AbstractContextManager[None]:
    """Lock a file that is written, or a folder of files; nothing where none is asked for."""
    if out is None:
        return nullcontext()
    if is_folder:
        return folder_lock(out)
    make_folder(out.parent)
    return path_lock(out)


def _add(answers: Answers, path: Path, outcome: Outcome) -> None:
    """Add the outcome of a file to the answers, with its identifiers if they are asked for."""
    answers += [answer.without_pixels() for answer in outcome.answers]
    name = printable(str(path)) if outcome.problem else str(path)
    if outcome.problem:
        answers.left_out[name] = outcome.problem
    if outcome.drawn:
        answers.overlays[name] = outcome.drawn
    if answers.dicom_ids is not None:
        answers.dicom_ids[name] = read_dicom_ids(path)


def _answered(runs: Sequence[Run], file: LooseImage) -> Outcome:
    """Answer for a file, one by one: an answer does not depend on the images beside it."""
    if file.image is None:
        return Outcome(problem=str(file.problem))
    try:
        return Outcome([run.answer(str(file.path), file.image) for run in runs])
    except InputError as error:
        return Outcome(problem=str(error))


def _overlay(path: Path, name: str, outcome: Outcome) -> Overlay:
    """Return the drawing of an image as the page has it."""
    answers = outcome.answers
    remarks = [text for answer in answers for text in (*answer.warnings, *answer.notes)]
    lines = [f"{text[:1].upper()}{text[1:]}." for text in dict.fromkeys(remarks)]
    for answer in answers:
        line = str(answer).removeprefix(answer.image).strip()
        lines.append(line.replace("  ", ", "))
    thumbnail = overlay_page.thumbnail_of(answers[0].pixels)
    return Overlay(str(path), name, outcome.drawn, lines, thumbnail)


def _write_page(
    folder: Path, overlays: Sequence[Overlay], answers: Sequence[Answer], unread: Sequence[str]
) -> Path:
    """Write the page of all drawings, with a tab for what each system calls positive.

    Positive images come first, then those without an answer; files that were not read are named.
    """
    by_score = sorted(answers, key=lambda answer: -(answer.score or 0))
    positive: dict[str, list[str]] = {answer.system: [] for answer in answers}
    decisions: dict[str, set[bool | None]] = {answer.image: set() for answer in by_score}
    for answer in by_score:
        decisions[answer.image].add(answer.decision)
        if answer.decision:
            positive[answer.system].append(answer.image)
    kinds = [
        ImageKind(f"positive-{name}", f"Called positive by {name}", tuple(images))
        for name, images in positive.items()
    ]
    disputed = tuple(
        image for image, image_decisions in decisions.items() if {True, False} <= image_decisions
    )
    unanswered = tuple(
        image for image, image_decisions in decisions.items() if None in image_decisions
    )
    kinds.append(ImageKind("disagree", "The systems disagree", disputed))
    kinds.append(ImageKind("no-answer", "No answer", unanswered))
    titles = ", ".join(dict.fromkeys(answer.finding for answer in answers))
    more = f" and {len(unread) - _MOST_NAMED:,} more" if len(unread) > _MOST_NAMED else ""
    named = f"{', '.join(unread[:_MOST_NAMED])}{more}"
    return overlay_page.write_overlay_page(
        folder,
        titles,
        sorted(overlays, key=lambda o: (True not in decisions[o.image], o.image not in unanswered)),
        kinds,
        total=len(overlays),
        remark=f"{counted(len(unread), 'file')} without an answer: {named}" if unread else "",
    )
