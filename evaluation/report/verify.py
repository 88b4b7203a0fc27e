"""Comparison of a report with the one that was written again: which files differ, and where.

Tables and records are compared by value, all other files byte for byte. Other versions or another
commit may write words and drawings otherwise: then tables and the names of files decide alone.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from itertools import zip_longest
from os.path import commonprefix
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.testing import assert_frame_equal

from cxr_compare.data_prep.base.errors import ShownAsText, counted, printable
from cxr_compare.evaluation.report import files

_TOLERANCE = 1e-9
"""Largest difference of two equal numbers, relative for numbers above 1."""
_RESAMPLED = ("ci_low", "ci_high", "p_value", "p_holm")
"""Columns whose numbers may differ by two resamples under other versions."""
_PICTURES = re.compile(r'(?<="data:image/jpeg;base64,)[A-Za-z0-9+/]+=*(?=")')
_DIGESTS = re.compile(r'(?m)^  "files": \{[^}]*\},$|(?<=^  "sha256": ").*(?="$)')
"""Digests of other files, and of a record, which are compared with these files by themselves."""
_NUMBER = re.compile(r".* -?\d+\.?\d*(e[-+]?\d+)?")
_SHOWN = 3


@dataclass(repr=False)
class Verification(ShownAsText):
    """Result of `cxr_compare.verify`.

    Attributes:
        sha256: Digest in the record of the report, which names all its files.
        differences: Where and how each file differs that does, by its name.
        uncompared: The same of files that another program may have written otherwise.
        equal: Names of the files that are equal.
        remarks: What was not compared, and which other program made the report.
        source: What the report was written again from, if files were given.
    """

    folder: Path
    sha256: str
    differences: dict[str, str] = field(default_factory=dict)
    uncompared: dict[str, str] = field(default_factory=dict)
    equal: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)
    source: str = ""

    @property
    def is_equal(self) -> bool:
        """True if the report was written again, and no file differs."""
        return not self.exit_status

    @property
    def exit_status(self) -> int:
        """0 for a report that is equal, 1 if a file differs, 5 if that cannot be told."""
        if self.differences:
            return 1
        return 5 if self.uncompared else 0

    def __str__(self) -> str:
        verdict = "equal"
        if found := self.differences or self.uncompared:
            one = len(found) == 1
            verb = ("differs" if one else "differ") if self.differences else "cannot be compared"
            shown = [f"{name}{where}" for name, where in [*found.items()][:_SHOWN]]
            more = [f"{len(found) - _SHOWN:,} more (--json)"] if len(found) > _SHOWN else []
            verdict = f"{counted(len(found), 'file')} {verb}: {'; '.join([*shown, *more])}"
        figures = f", {files.FIGURES_CSV} among them" if files.FIGURES_CSV in self.equal else ""
        of_what = "of this report, to compare with the paper"
        if self.differences:
            of_what = "that this report states, not that of the files that are there"
        lines = [
            f"{self.folder}: {verdict}",
            f"equal: {counted(len(self.equal), 'file')}{figures}{self.source}",
            f"not compared: {'; '.join(self.remarks)}",
            f"fingerprint {of_what}: {self.sha256}",
        ]
        return "\n  ".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``cxr verify --json`` prints."""
        names = ("differences", "uncompared", "remarks", "sha256")
        return {"equal": self.is_equal, **{name: getattr(self, name) for name in names}}

    def compare(self, folder: Path, again: Path, limit: float, *, has_pixels: bool) -> None:
        """Compare the files of a report with those of the report that was written again.

        Where another program made the report, `limit` is the largest difference of two numbers by
        resamples, else 0. Without the pixels of X-rays (`has_pixels`) pictures are not compared.
        """
        ours, right = _names(folder), _names(again)
        self.differences |= dict.fromkeys(sorted(right - ours), " is missing")
        self.differences |= dict.fromkeys(sorted(ours - right), " was added")
        for name in sorted(ours & right):
            pair = folder / name, again / name
            where = certain = _difference(*pair, has_pixels=has_pixels)
            if limit:
                certain = ""
                if name.endswith(".parquet"):
                    certain = table_difference(read_table(pair[0]), read_table(pair[1]), limit)
            if where:
                lines = self.differences if certain else self.uncompared
                lines[name] = certain or where
            else:
                self.equal.add(name)


def _names(folder: Path) -> set[str]:
    """Return the names of all files; that of a link says so, as its content is elsewhere."""
    return {
        path.relative_to(folder).as_posix() + (" (a link)" if path.is_symlink() else "")
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def _difference(path: Path, again: Path, *, has_pixels: bool) -> str:
    """Return where a file differs from the right one; empty if it does not."""
    stored, right = path.read_bytes(), again.read_bytes()
    if stored == right or (path.suffix == ".png" and not has_pixels):
        return ""
    if path.suffix == ".parquet":
        return table_difference(read_table(path), read_table(again))
    is_record = path.suffix == ".json"
    texts = [content.decode("utf-8", "backslashreplace") for content in (stored, right)]
    if is_record or (path.suffix == ".html" and not has_pixels):
        free = _DIGESTS if is_record else _PICTURES
        texts = [free.sub("", text) for text in texts]
    lines = zip_longest(*(text.split("\n") for text in texts), fillvalue="no line\n")
    for number, (one, other) in enumerate(lines, start=1):
        if one != other and not (is_record and _are_near(one, other)):
            first = max(0, len(commonprefix([one, other])) - 20)  # noqa: RUF071 - texts, no paths
            excerpts = (text[first : first + 60].strip() for text in (one, other))
            shown = [printable(text.replace("\N{NO-BREAK SPACE}", " ")) for text in excerpts]
            return f", line {number}: {shown[0]}, computed again {shown[1]}"
    return ""


def _are_near(one: str, other: str) -> bool:
    """Return True for two lines of records with one key and numbers that count as equal."""
    (key, number), (other_key, other_number) = (
        line.rpartition(" ")[::2] if _NUMBER.fullmatch(line) else (line, "nan")
        for line in (one.rstrip(","), other.rstrip(","))
    )
    gap = math.isclose(float(number), float(other_number), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return key == other_key and gap


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of a report; one of means is a CSV file."""
    if path.suffix == ".csv":
        return files.read_means(path)
    return files.with_texts(pd.read_parquet(path))


def table_difference(stored: pd.DataFrame, right: pd.DataFrame, limit: float = 0.0) -> str:
    """Return the first cell of a table that differs from the right one; empty if none does.

    Numbers by resamples may differ by a limit.
    """
    exact = [name for name in right if name not in _RESAMPLED]
    try:
        for columns, near in ((exact, 0.0), ([*right], limit)):
            near = max(near, _TOLERANCE)
            kept = stored.drop(columns=right.columns.difference(columns))
            assert_frame_equal(kept, right[columns], check_dtype=False, rtol=near, atol=near)
    except AssertionError as error:
        lines = str(error).splitlines()
        return f", {lines[0]}: {lines[-1]}"
    return ""
