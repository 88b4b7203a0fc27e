"""Search for the image files to answer for, and the destinations of the answers.

The search needs neither pandas nor a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, require_packages
from cxr_compare.data_prep.contracts.locks import file_lock
from cxr_compare.data_prep.store.loose_images import LooseImage, find_image_files, read_loose_images

if TYPE_CHECKING:
    from cxr_compare.data_prep.images.decoded_image import DecodedImage
    from cxr_compare.data_prep.store.answer_log import AnswerLog
    from cxr_compare.serving.answer import Answer
    from cxr_compare.serving.run import Run

# Ends of the names of files that are written
OVERLAY_END = "-overlay.png"
REPORT_END = "-sr.dcm"
CAPTURE_END = "-sc.dcm"


@dataclass(frozen=True)
class AnswerOutput:
    """Destinations of the predictions for image files; several destinations may be set.

    Attributes:
        overlays: Folder for one PNG file of each image, with the boxes or maps drawn in; None draws
            none.
        csv: CSV table to write; None writes none.
        dicom: Folder for two DICOM objects of each DICOM image: a structured report, and an image
            with the overlay. None writes neither.
        log: Open log of predictions, which ``cxr monitor`` reads; None writes no log.
        printed_as: ``text`` or ``json``, the form in which predictions are printed; None in a call
            from Python, which prints nothing.
        has_lines: True if printed text has a line for each image and system.
        has_summary: True if printed text ends with a table that has a row for each system.

    Raises:
        InputError: `csv` is a folder or no regular file, or a package for `dicom` is missing.
    """

    overlays: Path | None  # folder of the PNG files; None draws none
    csv: Path | None = None  # table to write
    dicom: Path | None = None  # folder of a report and an overlay for each DICOM image
    log: AnswerLog | None = None  # log that cxr monitor reads
    # None prints nothing, and keeps the answers instead
    printed_as: Literal["text", "json"] | None = None
    has_lines: bool = True
    has_summary: bool = False

    def __post_init__(self) -> None:
        if self.csv is not None and self.csv.is_dir():
            raise InputError(f"--csv {self.csv}: is a folder; name a file in it")
        if self.csv is not None and self.csv.exists() and not self.csv.is_file():
            raise InputError(f"--csv {self.csv}: is no regular file; name another")
        if self.dicom is not None:
            require_packages("--dicom", "dicom", ("highdicom",))

    def wrote(self, path: Path) -> bool:
        """Return True if an earlier call wrote this file into one of the output folders.

        Args:
            path: Path of the file.
        """
        written = ((self.overlays, (OVERLAY_END,)), (self.dicom, (REPORT_END, CAPTURE_END)))
        return any(
            folder is not None
            and path.parent.resolve() == folder.resolve()
            and path.name.endswith(ends)
            for folder, ends in written
        )


def find_images(
    sources: Sequence[Path], output: AnswerOutput
) -> tuple[list[LooseImage], list[Path]]:
    """Find the image files among some files and folders.

    Files are decoded until one of them shows an image, so that no model is loaded without one.

    Args:
        sources: Files and folders that the user named.
        output: Where predictions are written. Files that an earlier call wrote there are left out.

    Returns:
        The files that were decoded, of which the last one shows an image, and the paths of all
        other files, which are not decoded yet.

    Raises:
        InputError: No file shows an image, or all of them were written by an earlier call.
    """
    files = [path for path in find_image_files(sources) if not output.wrote(path)]
    if not files:
        raise InputError(f"{sources[-1]}: holds the output of an earlier call alone; give images")
    begun: list[LooseImage] = []
    for file in read_loose_images(files):
        begun.append(file)
        if file.problem is None:
            return begun, files[len(begun) :]
    reason = str(begun[0].problem)
    many = f"none of {len(files)} files is an image; the first: "
    raise InputError(reason if len(files) == 1 else many + reason)


@contextmanager
def reserved_table(table: Path | None) -> Iterator[None]:
    """Lock the CSV table of predictions for a ``with`` block, so that no other command writes it.

    Args:
        table: Path of the table; None locks nothing.

    Raises:
        InputError: Another command is writing the table.
    """
    if table is None:
        yield
        return
    make_folder(table.parent)
    with file_lock(table):
        yield


def note_answers(
    log: AnswerLog | None,
    runs: Sequence[Run],
    file: str,
    image: DecodedImage | None,
    answers: Sequence[Answer] | InputError | None,
    seconds: float | None,
) -> None:
    """Write the predictions of systems for one file into a log; without a log nothing happens.

    Args:
        log: Open log of predictions, or None.
        runs: Systems that were to predict the image.
        file: Path of the file.
        image: The decoded image; None if it could not be read.
        answers: One prediction of each system in `runs`, or the error with which a network failed.
            None for a file that was not predicted.
        seconds: Time that the predictions took, in seconds; None if unknown.
    """
    if log is None:
        return
    rows = [run.log_row() for run in runs]
    if answers is not None and not isinstance(answers, InputError):
        for row, answer in zip(rows, answers, strict=True):
            row |= {key: getattr(answer, key) for key in ("score", "decision", "guard_distance")}
            row["status"] = "ok" if answer.status == "ok" else "refused"
    log.add_file(file, image, rows, seconds)
