"""The result of a command that writes files or prints a text, and has no class of its own."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.notebook import ShownAsText, html_lines, html_records
from cxr_compare.data_prep.contracts.text_files import read_json_file


@dataclass(frozen=True, repr=False)
class Outcome(ShownAsText):
    """Result of a command; `str` of it is the text that the command line shows.

    Attributes:
        text: Lines for the user.
        payload: Values that ``--json`` prints if `file` is None.
        file: JSON file of the result, whose presence marks the folder as complete; None if there is
            none. Its name without the suffix is the name of its schema.
        page: HTML page or image for the user to look at; None if there is none.
        next_steps: Command lines that are usually useful next. If there are none and `page` is
            given, a line that says to open the page.
        exit_status: Exit status of the command: 1 if it found a problem in the data, else 0.
        piped: True if the text itself is the result, which another program may read from stdout.

    Example:
        >>> Outcome("3 images", {"images": 3}).to_dict()
        {'images': 3}
    """

    text: str
    payload: Any = None
    file: Path | None = None
    page: Path | None = None
    next_steps: tuple[str, ...] = ()
    exit_status: int = 0
    piped: bool = False

    def __post_init__(self) -> None:
        if self.page is not None and not self.next_steps:
            viewer = " in a browser" if self.page.suffix == ".html" else ""
            step = f"open {shlex.quote(str(self.page))}{viewer}"
            object.__setattr__(self, "next_steps", (step,))

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        rows = self.payload
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            return html_records(rows)
        return html_lines(self.text)

    def to_dict(self) -> Any:
        """Return the content of the JSON file `file`, or `payload` if there is no file."""
        if self.file is None:
            return self.payload
        return read_json_file(self.file)
