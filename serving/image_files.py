"""Search for the image files to answer for, and the destinations of the answers.

The search needs neither pandas nor a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import file_lock
from cxr_compare.data_prep.images.loose_images import (
    LooseImage,
    find_image_files,
    read_loose_images,
)

OVERLAY_END = "-overlay.png"
"""End of the names of overlays."""


@dataclass(frozen=True)
class AnswerOutput:
    """Destinations of the predictions for image files; several destinations may be set.

    Raises InputError if `csv` is a folder or no regular file.

    Attributes:
        overlays: Folder for one PNG file of each image, with the boxes or maps drawn in.
        printed_as: Form in which predictions are printed; None in a call from Python, which prints
            nothing.
        has_lines: True if printed text has a line for each image and system.
        has_summary: True if printed text ends with a table that has a row for each system.
    """

    overlays: Path | None  # folder of the PNG files; None draws none
    csv: Path | None = None  # table to write
    # None prints nothing, and keeps the answers instead
    printed_as: Literal["text", "json"] | None = None
    has_lines: bool = True
    has_summary: bool = False

    def __post_init__(self) -> None:
        if self.csv is not None and self.csv.is_dir():
            raise InputError(f"--csv {self.csv}: is a folder; name a file in it")
        if self.csv is not None and self.csv.exists() and not self.csv.is_file():
            raise InputError(f"--csv {self.csv}: is no regular file; name another")

    def wrote(self, path: Path) -> bool:
        """Return True if an earlier call wrote this file into the folder of overlays."""
        if self.overlays is None or not path.name.endswith(OVERLAY_END):
            return False
        return path.parent.resolve() == self.overlays.resolve()


def find_images(
    sources: Sequence[Path], output: AnswerOutput
) -> tuple[list[LooseImage], list[Path]]:
    """Find the image files among files and folders, without those that an earlier call wrote.

    Files are decoded until one of them shows an image, so that no model is loaded without one. The
    result has the decoded files, of which the last one shows an image, and the paths of all others.
    Raises InputError if no file shows an image, or all of them were written by an earlier call.
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

    None locks nothing. Raises InputError if another command is writing the table.
    """
    if table is None:
        yield
        return
    make_folder(table.parent)
    with file_lock(table):
        yield
