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
from typing import IO, Any

from cxr_compare.data_prep.contracts.atomic_files import remove_old_temporary_files
from cxr_compare.data_prep.contracts.csv_files import inert_cell
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.images.loose_images import LooseImage, read_loose_images
from cxr_compare.data_prep.work.background_threads import write_behind
from cxr_compare.data_prep.work.progress import Progress, Silence
from cxr_compare.evaluation.overlays.draw import to_png
from cxr_compare.serving.answer import TABLE_COLUMNS, Answer, render_answers
from cxr_compare.serving.answer_summary import SystemTally, summary_lines
from cxr_compare.serving.answers import (
    Answers,
    left_out_entry,
    lines_of_image,
    remarks,
    run_lines,
)
from cxr_compare.serving.image_files import OVERLAY_END, AnswerOutput
from cxr_compare.serving.joint_answers import (
    AnsweredFile,
    Answering,
    OnAnswer,
    answered_files,
)

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
    runs: Sequence[Answering],
    files: tuple[list[LooseImage], list[Path]],
    progress: Progress,
    *,
    output: AnswerOutput | None = None,
    batch_size: int | None = None,
    strict: bool = False,
    on_answer: OnAnswer | None = None,
) -> Answers:
    """Predict image files with all systems, one file after another, and write the results.

    `files` are the images that `find_images` has already decoded, and the paths still to be read.
    The caller has locked the CSV table of `output` with `reserved_table`. `batch_size` None takes
    the smallest number that suits all models; `strict` leaves out an image with a warning.
    `on_answer` is called with each file, also with one that was left out, and may return a reason
    to leave it out; the predictions are then not kept in memory. Raises InputError if not a single
    file could be predicted.
    """
    output = output or AnswerOutput(None)
    begun, others = files
    # Processes: they decode while the networks compute.
    workers = min(cpu_count(), len(others)) if len(others) >= _WORTH_WORKERS else 0
    stream = read_loose_images(others, workers=workers)
    if batch_size is None:
        batch_size = min(run.batch_size for run in runs)
    is_new = output.overlays is not None and not output.overlays.exists()
    if output.overlays is not None:
        remove_old_temporary_files(output.overlays)
    count = len(begun) + len(others)
    # Lines and JSON on a terminal show the progress themselves, and a bar would get between them.
    on_terminal = output.printed_as is not None and sys.stdout.isatty()
    shows_itself = output.has_lines if output.printed_as == "text" else on_terminal
    bar = Silence() if shows_itself else progress
    writer = _Writer(output, progress, runs, strict=strict, on_answer=on_answer)
    with bar.track("Predicting images", count) as advance, writer:

        def add_seconds(position: int, seconds: float) -> None:
            writer.tallies[position].seconds += seconds

        def write(answered: AnsweredFile) -> None:
            writer.write(answered)
            advance(1)

        for file in begun[:-1]:  # none of them shows an image
            write(AnsweredFile(file, None, str(file.problem)))
        files_left = chain(begun[-1:], stream)
        write_behind(write, answered_files(runs, files_left, batch_size, add_seconds))
    if is_new and output.overlays is not None:
        with suppress(OSError):  # a folder that is not empty stays
            output.overlays.rmdir()
    if not writer.answered:
        first = next(iter(writer.left_out.values()))
        raise InputError(f"none of {counted(count, 'file')} was answered; the first: {first}")
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


@dataclass
class _Writer:
    """Prints, draws and writes answers as they come."""

    output: AnswerOutput
    progress: Progress
    runs: Sequence[Answering]
    strict: bool
    on_answer: OnAnswer | None
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
            self._rows = csv.DictWriter(self._table, TABLE_COLUMNS)
            self._rows.writeheader()
        return self

    def write(self, answered: AnsweredFile) -> None:
        """Write the answers for a file, or say why it has none."""
        path = answered.file.path
        if self.strict and answered.answers and (warned := Answer.joint_warnings(answered.answers)):
            problem = f"{path}: {warned[0]}; refused by --strict"
            answered = answered._replace(answers=None, problem=problem)
        refused = None if self.on_answer is None else self.on_answer(answered)
        if answered.answers is None or refused is not None:
            self._leave_out(path, refused or str(answered.problem))
        else:
            self._write_answers(answered.answers)

    def _write_answers(self, answers: Sequence[Answer]) -> None:
        """Print, draw and store the answers for one image, as the options of the command say."""
        for tally, answer in zip(self.tallies, answers, strict=True):
            tally.count(answer)
        if self.output.printed_as is not None:
            self._print(answers)
        elif self.on_answer is None:
            self.kept += answers
        if self._rows is not None:
            for answer in answers:
                self._rows.writerow(answer.to_row())
        if self.output.overlays is not None:
            self._draw(answers, self.output.overlays)
        self.answered += 1

    def _leave_out(self, path: Path, problem: str) -> None:
        """Record a file without an answer."""
        self.progress.say(f"left out: {problem}")
        entry = left_out_entry(str(path), problem)
        self._emit([entry])
        if self._rows is not None:
            self._rows.writerow({column: inert_cell(cell) for column, cell in entry.items()})
        self.left_out[str(path)] = problem

    def _print(self, answers: Sequence[Answer]) -> None:
        """Print the answers of all systems for an image, as lines or as JSON.

        Declared thresholds and cautions of the runs are the same for all images, and are printed
        once.
        """
        if self.output.printed_as == "json":
            for line in remarks(answers):
                self.progress.say(line)
            self._emit([answer.to_json() for answer in answers])
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
