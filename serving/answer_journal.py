"""Journal of the answers for a table, by which the same call of `cxr predict` goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cxr_compare.data_prep.base.files import disk_errors, make_folder, path_lock
from cxr_compare.data_prep.base.records import digest_of
from cxr_compare.serving.answer import Answer, Answering


@dataclass(frozen=True)
class Outcome:
    """What came of one file: the answers of all runs, or the reason for none.

    Attributes:
        drawn: Name of its overlay.
    """

    answers: Sequence[Answer] = ()
    problem: str = ""
    drawn: str = ""


@dataclass
class AnswerJournal:
    """Outcome of each file as a line of ``.NAME.part`` beside the table, which replaces it.

    Attributes:
        known: Lines of an interrupted call, by file.
    """

    file: BinaryIO | None = None
    known: dict[str, dict[str, object]] = field(default_factory=dict)

    def stored(self, path: Path) -> Outcome | None:
        """Return the outcome of a file that has not changed since an interrupted call."""
        line = self.known.get(str(path))
        if line is None or line["file"] != _state_of(path):
            return None
        answers = line["answers"]
        restored = [Answer.from_json(each) for each in answers] if isinstance(answers, list) else ()
        return Outcome(restored, str(line["problem"]), str(line["drawn"]))

    def add(self, path: Path, outcome: Outcome) -> None:
        """Write the outcome of a file."""
        if self.file is None:
            return
        line = {
            "path": str(path),
            "file": _state_of(path),
            "answers": [answer.to_json() for answer in outcome.answers],
            "problem": outcome.problem,
            "drawn": outcome.drawn,
        }
        self.file.write(f"{json.dumps(line)}\n".encode())
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
    head = json.dumps({"request": digest_of([[run.identity for run in runs], str(out)])}) + "\n"
    with path_lock(table), disk_errors(table):
        with path.open("a+b") as file:
            file.seek(0)
            known: dict[str, dict[str, object]] = {}
            n_valid = 0
            if file.readline() == head.encode():
                n_valid = len(head)
                for line in file:
                    if not line.endswith(b"\n"):  # torn
                        break
                    entry = json.loads(line)
                    known[entry["path"]] = entry
                    n_valid += len(line)
            file.truncate(n_valid)
            if not n_valid:
                file.write(head.encode())
                file.flush()
            yield AnswerJournal(file, known)
        path.unlink()
