"""Image files to answers, a table, and overlays."""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted, printable
from cxr_compare.data_prep.base.files import atomic_path, folder_lock, make_folder, path_lock
from cxr_compare.data_prep.base.provenance import cpu_count
from cxr_compare.data_prep.base.user_tables import write_csv
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.loose_images import LooseImage, read_loose_images
from cxr_compare.data_prep.parallel import Progress, Silence
from cxr_compare.evaluation.overlays.leaf_page import write_leaf_page
from cxr_compare.serving.answer import COLUMNS, Answer, Answering, Answers, to_png_bytes
from cxr_compare.serving.answer_journal import Outcome, journal_for

OVERLAY_END = "-overlay.png"
_PICTURE = ".png"
_WORTH_WORKERS = 16
_LONGEST_STEM = 230
"""Bytes of the name of an overlay, with its end and a number 255 at most."""


def answers_of(
    runs: Sequence[Answering], name: str, image: DecodedImage
) -> list[Answer] | InputError:
    """Return the answers of all runs for an image, or the first reason for none."""
    try:
        return [run.answer(name, image) for run in runs]
    except InputError as error:
        return error


def answer_files(
    runs: Sequence[Answering],
    paths: Sequence[Path],
    *,
    out: Path | None = None,
    csv: Path | None = None,
    progress: Progress = Silence(),  # noqa: B008 - it has no state
) -> Answers:
    """Answer for files; one that cannot be read is left out with its reason, the others go on.

    `out` is a folder that gets an overlay of each image and a page of all, or the PNG of one; `csv`
    is the table.
    """
    if csv is not None and csv.exists() and not csv.is_file():
        raise InputError(f"csv: {csv} is no file that can be replaced; name another")
    files = [path for path in paths if not path.name.endswith(OVERLAY_END)]
    if not files:
        raise InputError(f"{paths[0]}: holds overlays of an earlier call alone; give images")
    if out is not None and out.suffix.lower() == _PICTURE and len(files) > 1:
        raise InputError(
            f"out: {out} is one picture, and there are {len(files)} images; name a folder"
        )
    workers = min(cpu_count(), len(files)) if len(files) >= _WORTH_WORKERS else 1
    answers, drawn = Answers(), dict[Path, str]()
    shown = progress if len(files) > 1 else Silence()
    with (
        _drawing_into(out),
        journal_for(csv, runs, out) as journal,
        shown.track("Predicting images", len(files)) as advance,
    ):
        stored = {path: known for path in files if (known := journal.stored(path))}
        names = {path: problem for path in files if (problem := _problem_of_name(path))}
        todo = [path for path in files if path not in stored and path not in names]
        read = read_loose_images(todo, workers=workers)
        for path in files:
            outcome = stored.get(path)
            if outcome is None:
                outcome = Outcome(problem=names[path]) if path in names else None
                outcome = outcome or _answered(runs, next(read), out, drawn)
                journal.add(path, outcome)
            if out is not None and outcome.drawn:
                drawn[out.parent / outcome.drawn] = str(path)
            answers += [answer.without_pixels() for answer in outcome.answers]
            if outcome.problem:
                answers.left_out[printable(str(path))] = outcome.problem
            advance(1)
        if not answers:
            reason = next(iter(answers.left_out.values()))
            many = f"none of {counted(len(files), 'file')} was answered; the first: "
            raise InputError(reason if len(files) == 1 else many + reason)
        for reason in answers.left_out.values():
            progress.say(f"left out: {reason}")
        if out is not None and len(drawn) > 1:
            page = write_leaf_page(out, list(drawn.values()), list(drawn))
            n_drawn = counted(len(drawn), "image")
            progress.say(f"Overlays: {n_drawn} in {out}; to leaf through: {page}")
        if csv is not None:
            entries = (entry for entry in answers.to_dict() if "problem" in entry)
            rows = [dict.fromkeys(COLUMNS) | entry for entry in entries]
            table = answers.to_frame()
            write_csv(pd.concat([table, pd.DataFrame(rows)]) if rows else table, csv)
    return answers


def _drawing_into(out: Path | None) -> AbstractContextManager[None]:
    """Lock the folder of the overlays, or the one picture."""
    if out is None:
        return nullcontext()
    if out.suffix.lower() != _PICTURE:
        return folder_lock(out)
    make_folder(out.parent)
    return path_lock(out)


def _problem_of_name(path: Path) -> str:
    """Return why a file is left out whose name no table can hold; empty for any other."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f"{printable(str(path))}: the name is not UTF-8; rename the file"
    return ""


def _answered(
    runs: Sequence[Answering], file: LooseImage, out: Path | None, drawn: Container[Path]
) -> Outcome:
    """Answer for a file, one by one: an answer does not depend on the images beside it."""
    found: list[Answer] | InputError = InputError(str(file.problem))
    if file.image is not None:
        found = answers_of(runs, str(file.path), file.image)
    if isinstance(found, InputError):
        return Outcome(problem=str(found))
    if out is None:
        return Outcome(found)
    path = _draw(found, out, drawn)
    return Outcome(found, drawn=path.relative_to(out.parent).as_posix())


def _draw(answers: Sequence[Answer], out: Path, drawn: Container[Path]) -> Path:
    """Draw what all runs say of an image, and return the file."""
    path = out
    if out.suffix.lower() != _PICTURE:
        stem = Path(answers[0].image).stem
        while len(stem.encode()) > _LONGEST_STEM:
            stem = stem[:-1]
        names = (f"{stem}-{number}" if number > 1 else stem for number in count(1))
        paths = (out / f"{name}{OVERLAY_END}" for name in names)
        path = next(path for path in paths if path not in drawn)  # one name in two folders
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_png_bytes(answers))
    return path
