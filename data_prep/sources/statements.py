"""Statements, which readers of formats return, and a source while its reader gathers them.

A statement is a row: a reader says of a finding on an image that it is present, absent or
uncertain, and where. `build` makes the tables of a data set of them.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.box_check import FORMS, UNITS, BoxReading
from cxr_compare.data_prep.base.boxes import NUMBERS
from cxr_compare.data_prep.base.errors import InputError, Remedy, as_typed, counted
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.image_names import Names
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.images.stored_size import image_size
from cxr_compare.data_prep.sources.image_files import role_from_path, stem, unfit
from cxr_compare.data_prep.sources.record import ReadRecord
from cxr_compare.data_prep.sources.source import (
    Format,
    ReadOptions,
    empty_images,
    empty_roles,
    unlabelled_line,
)

STATEMENT = ["image_id", "finding", "state", "reader", "origin", *NUMBERS, "boxed", "implied"]
"""Columns of a table of statements: four numbers of a box (NaN without one), and True if the row
has a box, and if it only follows from what others say."""
_MOST_REASONS = 3  # for which images were left out, in one message
_TYPES = {
    **dict.fromkeys(STATEMENT[:5], TEXT),
    **dict.fromkeys(NUMBERS, "float64"),
    **dict.fromkeys(STATEMENT[-2:], "bool"),
}
_NO_STATEMENTS = pd.DataFrame(columns=STATEMENT).astype(_TYPES)


def joined_statements(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join tables of statements to one with all columns; some lack those of boxes and the flags."""
    typed = []
    for table in tables:
        full = table.reindex(columns=STATEMENT)
        if "boxed" not in table:
            full["boxed"] = full[NUMBERS].notna().any(axis=1)
        if "implied" not in table:
            full["implied"] = False
        untyped = {name: kind for name, kind in _TYPES.items() if full[name].dtype != kind}
        typed.append(full.astype(untyped) if untyped else full)
    return pd.concat(typed or [_NO_STATEMENTS], ignore_index=True)


@dataclass
class Source:
    """A source while its reader gathers images, statements and notes; `build` makes its tables.

    The fields from `images` on become those of the same name in `SourceTables`.

    Attributes:
        format: Format that is read.
        root: Folder of the images.
        options: Options of the user.
        record: What is read, and the lines that the user is shown.
        index: Image files of the folder; None if the source is one file.
        labels_alone: True for a truth of cxr compare without a folder of images.
        unnamed: Finding of boxes in tables that name none; empty where the user is asked.
        measure: Function from an image id to width and height (px) of a file, of which boxes in
            shares are; None for the files of `root`.
        unlabelled: An image by each finding of boxes that no table of labels without boxes has.
        size: Published width and height, px, that boxes are of where their images state none.
        stretched: Image files of any shape are copies of images of the stated sizes.
        statements: Tables of what readers say of the images, as `joined_statements` takes them.
        reading: How the numbers of boxes are read.
        unread: Image of each mark that cannot be read, and why.
        partial: Images and findings of which only some lesions are boxed.
        normal: Images and readers who say that nothing is found.
        counts: Number of cases by the phrase that tells of them.
        left_out: Reason by image, or by file without an image, that is left out.
        ambiguous: Images that fit each name of several.
        label_files: Label files that were read, for messages.
    """

    format: Format
    root: Path
    options: ReadOptions = field(default_factory=ReadOptions)
    record: ReadRecord = field(default_factory=ReadRecord)
    index: Names | None = None
    _: KW_ONLY
    labels_alone: bool = field(init=False)
    unnamed: str = ""
    measure: Callable[[str], tuple[int, int] | None] | None = None
    unlabelled: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    stretched: bool = False
    statements: list[pd.DataFrame] = field(default_factory=list)
    reading: BoxReading = BoxReading()  # noqa: RUF009 - it never changes
    unread: list[tuple[str, InputError]] = field(default_factory=list)
    partial: set[tuple[str, str]] = field(default_factory=set)
    normal: set[tuple[str, str]] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)
    label_files: list[str] = field(default_factory=list)
    images: pd.DataFrame = field(default_factory=empty_images)
    split: pd.DataFrame = field(default_factory=empty_roles)
    official: pd.DataFrame = field(default_factory=empty_roles)
    targets: dict[str, Target] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    implied_note: str = ""
    categories: dict[str, str] = field(default_factory=dict)
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labels_alone = self.options.caller.compares and not self.root.is_dir()
        self.record.add("format", self.format.name)

    def show(self, line: str) -> None:
        """Show the user a line on how files are read, which is kept in the record."""
        self.record.show(line)

    def exclude(self, ids: Iterable[Any], reason: str) -> None:
        """Leave images, or files without an image, out; the first reason of each counts."""
        for image_id in ids:
            self.left_out.setdefault(str(image_id), reason)

    def keep(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table without those of images that are left out."""
        return table[~is_member(table["image_id"], self.left_out)].reset_index(drop=True)

    def image_size(self, path: str) -> tuple[int, int]:
        """Return width and height (px) of an image as it is displayed."""
        if path not in self._sizes:
            self._sizes[path] = image_size(self.root / path)
        return self._sizes[path]

    def has_image(self, name: str) -> bool:
        """Return True if a name is of an image file of the user."""
        if self.index is not None:
            return bool(self.index.find(name, ("", "images")))
        return self.measure is not None and self.measure(name) is not None

    @property
    def files(self) -> Names:
        """Image files of the user's folder."""
        if self.index is None:
            raise InputError(f"{self.root}: a file; give the folder that holds it")
        return self.index

    def fitting(self, names: Iterable[str], folders: Sequence[str] = ()) -> dict[str, list[str]]:
        """Return the image files that each name fits, and note how names differ from these."""
        fits, note = self.files.fitting(names, folders)
        self.notes += [note] if note else []
        return fits

    def find_images(
        self,
        names: Iterable[str],
        file: str = "",
        folders: Sequence[str] = ("", "images"),
        role: str | None = None,
    ) -> dict[str, str]:
        """Return the path of each image that a file of labels names.

        A name that is not of exactly one image is left out. Without a folder each name is one.
        """
        if self.labels_alone:
            return {name: name for name in names}
        path_of: dict[str, str] = {}
        fits = self.fitting(names, folders)
        for name, matches in fits.items():
            if len(matches) > 1 and role:
                of_role = [p for p in matches if role_from_path(posixpath.dirname(p)) == role]
                matches = of_role or matches
            if len(matches) == 1:
                path_of[name] = matches[0]
                continue
            if matches:
                self.ambiguous[name] = matches
            reason = unfit(matches)
            if not matches and (near := self.files.find(stem(name), ())):
                reason += f"; {near[0]} has its name, but is in another folder: correct the path"
            self.exclude([f"{file}: {name}" if file else name], reason)
        return path_of

    def cannot_read(self, path: str, error: InputError) -> None:
        """Leave out an image of which a mark cannot be read: its findings are unknown."""
        self.exclude([path], error.problem)
        self.unread.append((path, error))

    @contextmanager
    def reading_mark(self, path: str, position: str) -> Iterator[None]:
        """Leave out the image if a mark cannot be read, which an `InputError` says."""
        try:
            yield
        except InputError as error:
            self.cannot_read(path, InputError(f"{position}: {error.problem}", error.remedies))


def take_user_reading(source: Source) -> None:
    """Read boxes as the user answered a question about them."""
    for kind, allowed in (("form", FORMS), ("unit", UNITS)):
        answer: Any = source.options.role(f"box_{kind}")
        if answer is None:
            continue
        if answer not in allowed:
            ways = [source.options.caller.remedy({f"box_{kind}": choice}) for choice in allowed]
            given = as_typed({"columns": [f"box_{kind}={answer}"]})
            raise InputError(f"{given}: is none of {', '.join(allowed)}", ways)
        source.reading = replace(source.reading, answered=True, **{kind: answer})


def note_unlabelled(source: Source, *, unused: bool, way: str) -> None:
    """Note the images without a label, and with `unused` give them that role if none has one.

    `way` says how they are called negative.
    """
    unlabelled = source.keep(source.images)["image_id"]
    for table in source.statements:
        unlabelled = unlabelled[~is_member(unlabelled, table["image_id"])]
    if unlabelled.empty:
        return
    status = "unknown, not negative"
    if unused and source.split.empty:
        status = "unknown, so that no split uses them"
        source.split = pd.DataFrame({"image_id": unlabelled, "role": "unused"}, dtype=TEXT)
    source.notes.append(unlabelled_line(len(unlabelled), status, way))


def no_finding(source: Source, where: str, problem: str) -> InputError:
    """Return the error of a source in which no image shows a finding, with what was left out."""
    first: dict[str, str] = {}
    for name, reason in source.left_out.items():
        first.setdefault(reason, name)
    reasons = [f"{name}: {reason}" for reason, name in first.items()][:_MOST_REASONS]
    left_out = f" ({counted(len(source.left_out), 'image')} left out: {'; '.join(reasons)})"
    use = "compare" if source.options.caller.compares else "learn"
    ways = next((error.remedies for _, error in source.unread), ())
    return InputError(
        f"{where}: {problem}{left_out if reasons else ''}: there is no finding to {use}",
        ways or [Remedy(words="add images that show one")],
    )
