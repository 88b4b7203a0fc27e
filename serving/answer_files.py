"""Image files to answers, a table, and overlays."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import count
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.files import atomic_path, make_folder
from cxr_compare.data_prep.base.provenance import cpu_count
from cxr_compare.data_prep.base.user_tables import write_csv
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.loose_images import read_loose_images
from cxr_compare.data_prep.parallel import Progress, Silence
from cxr_compare.evaluation.overlays.leaf_page import write_leaf_page
from cxr_compare.serving.answer import COLUMNS, Answer, Answering, Answers, to_png_bytes

OVERLAY_END = "-overlay.png"
_PICTURE = ".png"
_WORTH_WORKERS = 16


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
    with shown.track("Predicting images", len(files)) as advance:
        for file in read_loose_images(files, workers=workers):
            # One by one: an answer does not depend on the images beside it.
            outcome: list[Answer] | InputError = InputError(str(file.problem))
            if file.image is not None:
                outcome = answers_of(runs, str(file.path), file.image)
            advance(1)
            if isinstance(outcome, InputError):
                answers.left_out[str(file.path)] = str(outcome)
                continue
            if out is not None:
                drawn[_draw(outcome, out, drawn)] = str(file.path)
            answers += [answer.without_pixels() for answer in outcome]
    if not answers:
        reason = next(iter(answers.left_out.values()))
        many = f"none of {counted(len(files), 'file')} was answered; the first: "
        raise InputError(reason if len(files) == 1 else many + reason)
    for reason in answers.left_out.values():
        progress.say(f"left out: {reason}")
    if out is not None and len(drawn) > 1:
        page = write_leaf_page(out, list(drawn.values()), list(drawn))
        progress.say(f"Overlays: {counted(len(drawn), 'image')} in {out}; to leaf through: {page}")
    if csv is not None:
        make_folder(csv.parent)
        rows = [dict.fromkeys(COLUMNS) | entry for entry in answers.to_dict() if "problem" in entry]
        table = pd.concat([answers.to_frame(), pd.DataFrame(rows)]) if rows else answers.to_frame()
        write_csv(table, csv)
    return answers


def _draw(answers: Sequence[Answer], out: Path, drawn: Container[Path]) -> Path:
    """Draw what all runs say of an image, and return the file."""
    path = out
    if out.suffix.lower() != _PICTURE:
        stem = Path(answers[0].image).stem
        names = (f"{stem}-{number}" if number > 1 else stem for number in count(1))
        paths = (out / f"{name}{OVERLAY_END}" for name in names)
        path = next(path for path in paths if path not in drawn)  # one name in two folders
    make_folder(path.parent)
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_png_bytes(answers))
    return path
