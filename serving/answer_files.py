"""Answers for image files.

They are printed, drawn and written one by one, so that memory does not grow with their number.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cxr_compare.data_prep.contracts.atomic_files import remove_old_temporary_files
from cxr_compare.data_prep.contracts.csv_files import inert_cell
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.images.loose_images import LooseImage, read_loose_images
from cxr_compare.data_prep.work.background_threads import write_behind
from cxr_compare.data_prep.work.progress import Progress, Silence
from cxr_compare.evaluation.overlays.draw import to_png
from cxr_compare.serving.answer import ANSWER_COLUMNS, Answer, answer_row, render_answers
from cxr_compare.serving.answer_summary import SystemTally, summary_lines
from cxr_compare.serving.answers import Answers, lines_of_image, remarks, run_lines
from cxr_compare.serving.image_files import OVERLAY_END, AnswerOutput
from cxr_compare.serving.joint_answers import AnsweredBatch, answered_batches

if TYPE_CHECKING:
    from cxr_compare.serving.run import Run

# Number of files from which worker processes pay: starting one takes as long as a few files.
_WORTH_WORKERS = 16


def _free_stem(stem: str, taken: set[str]) -> str:
    """Return the start of a file name that no other image of this command has."""
    free = stem
    number = 1
    while free in taken:
        number += 1
        free = f"{stem}-{number}"
    taken.add(free)
    return free


def answer_files(
    runs: Sequence[Run],
    files: tuple[list[LooseImage], list[Path]],
    output: AnswerOutput,
    progress: Progress,
    *,
    batch_size: int | None,
    strict: bool,
) -> Answers:
    """Predict image files with all systems, one file after another, and write the results.

    Args:
        runs: Trained systems that predict: folders of `cxr train` (runs), or exports of their
            networks by `cxr export`.
        files: Pair from `find_images`: the images that it has already decoded, and the paths of
            image files that are still to be read.
        output: Where results are written: overlays and CSV table. The caller
            has locked the CSV table with `reserved_table`.
        progress: Shows messages and the progress.
        batch_size: Number of images that are predicted at a time; None takes the smallest number
            that suits all models.
        strict: True leaves out an image with a warning, such as one that is no frontal chest X-ray.

    Returns:
        The predictions of all systems for all images, and the files that were left out.

    Raises:
        InputError: Not a single file could be predicted.
    """
    begun, others = files
    # Processes: they decode while the networks compute.
    workers = min(cpu_count(), len(others)) if len(others) >= _WORTH_WORKERS else 0
    stream = read_loose_images(others, workers=workers)
    if batch_size is None:
        batch_size = min(run.model.batch_size for run in runs)
    is_new = output.overlays is not None and not output.overlays.exists()
    if output.overlays is not None:
        remove_old_temporary_files(output.overlays)
    count = len(begun) + len(others)
    # Lines and JSON on a terminal show the progress themselves, and a bar would get between them.
    on_terminal = output.printed_as is not None and sys.stdout.isatty()
    shows_itself = output.has_lines if output.printed_as == "text" else on_terminal
    bar = Silence() if shows_itself else progress
    writer = _Writer(output, progress, runs)
    with bar.track("Predicting images", count) as advance, writer:
        _write_batch(begun[:-1], [], writer, strict=strict)
        advance(len(begun) - 1)

        def add_seconds(position: int, seconds: float) -> None:
            writer.tallies[position].seconds += seconds

        files_left = chain(begun[-1:], stream)
        answered = answered_batches(runs, files_left, batch_size, add_seconds)

        def write(batch: AnsweredBatch) -> None:
            _write_batch(batch.files, batch.answered, writer, strict=strict)
            advance(len(batch.files))

        write_behind(write, answered)
    if is_new and output.overlays is not None:
        with suppress(OSError):  # a folder that is not empty stays
            output.overlays.rmdir()
    if not writer.answered:
        raise InputError(f"none of {counted(count, 'file')} was answered; see above")
    if writer.left_out:
        left_out = counted(len(writer.left_out), "file")
        progress.say(f"{left_out} left out of {count}, see above")
    writer.print_summary()
    status = int(bool(writer.left_out))
    return Answers(
        tuple(writer.kept),
        writer.left_out,
        status,
        output.printed_as is not None,
        tuple(writer.tallies),
    )


def _write_batch(
    files: Sequence[LooseImage],
    answered: Sequence[list[Answer] | InputError],
    writer: _Writer,
    *,
    strict: bool,
) -> None:
    of_image = iter(answered)
    for file in files:
        answers = None if file.image is None else next(of_image)
        if answers is None:
            writer.leave_out(file.path, str(file.problem))
        elif isinstance(answers, InputError):
            writer.leave_out(file.path, str(answers))
        elif strict and (warned := Answer.joint_warnings(answers)):
            writer.leave_out(file.path, f"{file.path}: {warned[0]}; refused by --strict")
        else:
            writer.write(answers)


@dataclass
class _Writer:
    """Prints, draws and writes answers as they come."""

    output: AnswerOutput
    progress: Progress
    runs: Sequence[Run]
    answered: int = 0  # number of images so far
    # Reason for each file that was left out so far.
    left_out: dict[str, str] = field(default_factory=dict)
    kept: list[Answer] = field(default_factory=list)
    _stems: set[str] = field(default_factory=set)
    _last: Path | None = None
    _replaced: int = 0  # number of overlays of earlier calls that were replaced
    _table: IO[str] | None = None
    _rows: Any = None
    _is_first: bool = True
    tallies: list[SystemTally] = field(init=False)

    def __post_init__(self) -> None:
        self.tallies = [SystemTally(run.name, run_cautions=run.cautions) for run in self.runs]

    def __enter__(self) -> _Writer:
        if self.output.overlays is not None:
            make_folder(self.output.overlays)
        if self.output.csv is not None:
            make_folder(self.output.csv.parent)
            self._table = _unfinished(self.output.csv).open("w", newline="", encoding="utf-8")
            self._rows = csv.DictWriter(self._table, (*ANSWER_COLUMNS, "problem"))
            self._rows.writeheader()
        return self

    def write(self, answers: Sequence[Answer]) -> None:
        """Print, draw and store the answers for one image, as the options of the command say.

        Args:
            answers: Scores and decisions for the image, one answer of each system, in the order of
                the systems.
        """
        for tally, answer in zip(self.tallies, answers, strict=True):
            tally.count(answer)
        if self.output.printed_as is None:
            self.kept += answers
        else:
            self._print(answers)
        if self._rows is not None:
            for answer in answers:
                self._rows.writerow(answer_row(answer.to_dict()))
        if self.output.overlays is not None:
            self._draw(answers, self.output.overlays)
        self.answered += 1

    def leave_out(self, path: Path, problem: str) -> None:
        """Record a file without an answer."""
        self.progress.say(f"left out: {problem}")
        self._emit([Answer.refused(str(path), problem)])
        if self._rows is not None:
            row = {
                "image": str(path),
                "status": "refused",
                "problem": problem,
            }
            self._rows.writerow({column: inert_cell(cell) for column, cell in row.items()})
        self.left_out[str(path)] = problem

    def _print(self, answers: Sequence[Answer]) -> None:
        """Print the answers of all systems for an image, as lines or as JSON.

        Declared thresholds and cautions of the runs are the same for all images, and are printed
        once.
        """
        if self.output.printed_as == "json":
            for line in remarks(answers):
                self.progress.say(line)
            self._emit([answer.to_dict() for answer in answers])
        elif self.output.has_lines:
            _print_lines(lines_of_image(answers))
            if not self.answered:
                _print_lines([*run_lines(answers), *Answer.declared_lines(answers)])
        elif not self.answered:
            _print_lines(Answer.declared_lines(answers))

    def print_summary(self) -> None:
        """Print the table of all systems if there are many images; as JSON only the cautions."""
        if self.output.printed_as == "json":
            for tally in self.tallies:
                for caution in tally.cautions:
                    self.progress.say(f"CAUTION: {caution}")
        elif self.output.printed_as == "text" and self.output.has_summary:
            _print_lines(summary_lines(self.tallies))

    def _emit(self, entries: Sequence[dict[str, Any]]) -> None:
        """Append to the JSON list on stdout, if JSON is printed."""
        if self.output.printed_as != "json":
            return
        for entry in entries:
            sys.stdout.write("[\n" if self._is_first else ",\n")
            self._is_first = False
            sys.stdout.write(json.dumps(entry, ensure_ascii=False))

    def _draw(self, answers: Sequence[Answer], folder: Path) -> None:
        path = folder / (_free_stem(Path(answers[0].image).stem, self._stems) + OVERLAY_END)
        self._replaced += path.exists()
        to_png(render_answers(answers), path)
        self._last = path

    def __exit__(self, *error: object) -> None:
        if self.output.printed_as == "json":
            sys.stdout.write("[]\n" if self._is_first else "\n]\n")
        self._close_table(complete=error[0] is None)
        if error[0] is not None or self._last is None:
            return
        where = self._last if self.answered == 1 else self.output.overlays
        before = f" ({self._replaced} in place of an earlier one; another --out keeps both)"
        words = f"Overlay{'' if self.answered == 1 else 's'}: {where}"
        self.progress.say(words + (before if self._replaced else ""))

    def _close_table(self, *, complete: bool) -> None:
        """Give the table its name; one that was interrupted keeps its rows under another."""
        if self._table is None or self.output.csv is None:
            return
        self._table.close()
        written = _unfinished(self.output.csv)
        if complete:
            written.replace(self.output.csv)
            written = self.output.csv
        self.progress.say(f"Table{'' if complete else ' so far'}: {written}")


def _print_lines(lines: Iterable[str]) -> None:
    sys.stdout.writelines(line + "\n" for line in lines)
    sys.stdout.flush()


def _unfinished(table: Path) -> Path:
    return table.with_name(f"{table.name}.unfinished")
