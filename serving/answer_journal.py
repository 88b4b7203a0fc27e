"""Journal of the answers for a table, by which the same call of `cxr predict` goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel

from cxr_compare.data_prep.base.files import disk_errors, make_folder, path_lock, whole_lines
from cxr_compare.data_prep.base.records import digest_of
from cxr_compare.serving.answer import Answer, Answering


class Outcome(BaseModel):
    """What came of one file: the answers of all runs, or the reason for none.

    Attributes:
        drawn: Name of its overlay.
    """

    answers: list[Answer] = []
    problem: str = ""
    drawn: str = ""


@dataclass
class AnswerJournal:
    """Outcome of each file as a line of ``.NAME.part`` beside the table, which replaces it.

    Attributes:
        lines: Those of an interrupted call, by file.
    """

    file: BinaryIO | None = None
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)

    def stored(self, path: Path) -> Outcome | None:
        """Return the outcome of a file that has not changed since an interrupted call."""
        line = self.lines.get(str(path))
        same = line is not None and line["file"] == _state_of(path)
        return Outcome.model_validate(line) if same else None

    def add(self, path: Path, outcome: Outcome) -> None:
        """Write the outcome of a file."""
        if self.file is not None:
            name = {"path": str(path), "file": _state_of(path)}
            self.file.write(f"{json.dumps(name | outcome.model_dump(mode='json'))}\n".encode())
            self.file.flush()


def _state_of(path: Path) -> list[int]:
    """Return size and time of a file, by which a changed one is recognised."""
    if not path.exists():
        return []
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


@contextmanager
def journal_for(
    table: Path | None, runs: Sequence[Answering], out: Path | None
) -> Iterator[AnswerJournal]:
    """Open the journal of a table, and remove it when the block ends without an error.

    A journal of other runs, options or overlays does not count. Without a table there is none.
    """
    if table is None:
        yield AnswerJournal()
        return
    make_folder(table.parent)
    path = table.with_name(f".{table.name}.part")
    request = {"request": digest_of([[run.identity for run in runs], str(out)])}
    with path_lock(table), disk_errors(table):
        with path.open("a+b") as file:
            lines = whole_lines(file)
            if lines[:1] != [request]:
                lines = []
                file.truncate(0)
                file.write(f"{json.dumps(request)}\n".encode())
                file.flush()
            yield AnswerJournal(file, {line["path"]: line for line in lines[1:]})
        path.unlink()
