"""Reading of a log of answers, and of labels that people assigned to its images later.

The file of a day may be compressed by gzip, or renamed as logrotate does.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.pseudonyms import read_id_key
from cxr_compare.data_prep.contracts.table_files import read_text_table, refuse_line, to_numbers
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.hospital.answers.answer_log import (
    DAY_FILE_PREFIX,
    LOG_CLASSES,
    LOG_COLUMNS,
    log_pseudonym,
)

_NUMBERS = ("threshold", "score", "guard_distance", "seconds")
# Name of the file of a day, with the endings that logrotate and gzip may add.
_DAY_NAME = re.compile(r"answers-(\d{4}-\d\d-\d\d)\.jsonl(?:[.-]\d+)?(\.gz)?")
_MAX_LINE = 1 << 16  # characters; a row has some hundreds
_MAX_NAMED = 5  # files in a message
_CLOCK_TOLERANCE = timedelta(days=1)  # largest difference of the clocks of two machines
_COLUMN_SET = frozenset(LOG_COLUMNS)
_PLAIN_TYPES = {str, int, float, bool, type(None)}
_LABELS = {
    "1": True,
    "positive": True,
    "present": True,
    "true": True,
    "0": False,
    "negative": False,
    "absent": False,
    "false": False,
}


def read_log(
    path: Path, say: Callable[[str], object] = print, *, now: datetime | None = None
) -> pd.DataFrame:
    """Read a log of the scores and decisions that deployed systems gave for new images.

    The path is a folder that ``cxr log`` or ``cxr pacs`` wrote with the option ``--log``, or a CSV
    file with the same columns. The CSV needs ``time``, ``patient`` and ``score``; its ids are taken
    unchanged. `say` shows what was skipped: incomplete lines, as a full disk leaves them, and files
    whose names only begin like those of a log.

    There is one row for each image and system, sorted by time. ``time`` is in UTC; ``threshold``,
    ``score``, ``guard_distance`` and ``seconds`` are float64; ``decision`` is boolean or missing;
    all other columns are text, missing if unknown. The index counts from 0.

    Refused are a log without a row, a value that is not allowed in a log, a row that is more than a
    day later than `now` (None takes the machine's clock) or in the file of another day, and a path
    with the name of a day's file that is no file.

    Example:
        >>> read_log(Path("no-such-log"))
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: no-such-log: no such log; ...
    """
    path = Path(path)
    latest = (now or datetime.now(UTC)) + _CLOCK_TOLERANCE
    if path.is_dir():
        days = _day_files(path, say)
        if not days:
            raise InputError(f"{path}: holds no answers-*.jsonl; name the folder of a --log")
        tables = [_read_day(day, files, latest, say) for day, files in days.items()]
        rows = pd.concat(tables, ignore_index=True)
    elif path.is_file():
        rows = _typed(_read_csv(path), path, latest)
    else:
        raise InputError(f"{path}: no such log; name the folder of a --log, or a CSV file")
    if rows.empty:
        raise InputError(f"{path}: holds no answer yet")
    return rows.sort_values("time", kind="stable", ignore_index=True)


def _day_files(folder: Path, say: Callable[[str], object]) -> dict[date, list[Path]]:
    """Return the files of each day; files with a similar name are reported as not read."""
    days: dict[date, list[Path]] = {}
    unread = []
    for file in sorted(folder.iterdir()):
        if not file.name.startswith(DAY_FILE_PREFIX):
            continue
        day = _day_of(file.name)
        if day is None:
            unread.append(file.name)
        elif not stat.S_ISREG(file.lstat().st_mode):
            raise InputError(
                f"{file}: is a folder, a link or a pipe in the place of a day's "
                "file; put the file itself there"
            )
        else:
            days.setdefault(day, []).append(file)
    if unread:
        more = f" and {len(unread) - _MAX_NAMED} more" if len(unread) > _MAX_NAMED else ""
        say(
            f"{folder}: not read: {', '.join(unread[:_MAX_NAMED])}{more}; unpack or rename them "
            "to answers-2026-01-31.jsonl or .jsonl.gz if they belong to this log"
        )
    return dict(sorted(days.items()))


def _day_of(name: str) -> date | None:
    """Return the day in the name of a file; None if it is no name of a day's file."""
    match = _DAY_NAME.fullmatch(name)
    if match is None:
        return None
    try:
        return date.fromisoformat(match[1])
    except ValueError:  # such as 2026-02-31
        return None


def _read_day(
    day: date, files: Sequence[Path], latest: datetime, say: Callable[[str], object]
) -> pd.DataFrame:
    """Read the rows of a day, which a rotation may have put into several files."""
    tables = []
    for path in files:
        table = _typed(_read_lines(path, say), path, latest)
        is_of_another_day = table["time"].dt.normalize() != pd.Timestamp(day, tz="UTC")
        message = f" is not of {day}, the day of its file; correct or remove the row"
        refuse_line(is_of_another_day, path, message, table["time"].astype(TEXT))
        tables.append(table)
    if len(tables) == 1:
        return tables[0]
    # A file and its compressed copy may both be there. A row that occurs several times in one file
    # counts as often.
    numbered = [
        table.assign(nth=table.groupby(list(LOG_COLUMNS), dropna=False, sort=False).cumcount())
        for table in tables
    ]
    rows = pd.concat(numbered, ignore_index=True)
    repeated = rows.duplicated()
    if repeated.any():
        names = " and ".join(path.name for path in files)
        count = counted(int(repeated.sum()), "row")
        say(f"{files[0].parent}: {count} in both of {names}, counted once")
    return rows.loc[~repeated, list(LOG_COLUMNS)]


def _read_lines(path: Path, say: Callable[[str], object]) -> pd.DataFrame:
    """Read the rows of a file as texts, empty where unknown; the index is that of `refuse_line`."""
    rows: dict[int, list[str]] = {}
    cut_lines = 0
    for number, line in enumerate(_lines(path)):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            if line.strip():
                cut_lines += 1
            continue
        if not _is_row(row):
            raise InputError(f"{path}: line {number + 1}: is no row of a log of this version")
        # Line 2 has index 0, as in a CSV file with its header.
        rows[number - 1] = ["" if row[name] is None else str(row[name]) for name in LOG_COLUMNS]
    if cut_lines:
        say(f"{path}: {counted(cut_lines, 'line')} cut short, skipped")
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(LOG_COLUMNS), dtype=TEXT)


def _is_row(row: object) -> bool:
    """Return True if a row has the columns of a log, and plain values."""
    if not isinstance(row, dict) or row.keys() != _COLUMN_SET:
        return False
    return set(map(type, row.values())) <= _PLAIN_TYPES


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file, unpacked if it is compressed, and cut if they are too long."""
    try:
        file: IO[str]
        if path.suffix == ".gz":
            file = gzip.open(path, "rt", encoding="utf-8", errors="replace")  # noqa: SIM115
        else:
            file = path.open(encoding="utf-8", errors="replace")
        with file:
            while line := file.readline(_MAX_LINE):
                yield line
                while len(line) == _MAX_LINE and not line.endswith("\n"):
                    line = file.readline(_MAX_LINE)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(
            f"{path}: is damaged: it cannot be unpacked to its end; bring back an unchanged copy"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: cannot be read ({reason}); put that right") from None


def _read_csv(path: Path) -> pd.DataFrame:
    text = read_text_table(path, ("time", "patient", "score"), LOG_COLUMNS)
    defaults = {"image": "line " + text.index.astype(TEXT), "status": "ok", "system": "system"}
    for name, default in defaults.items():
        text[name] = text[name].where(text[name] != "", default)
    decisions = {cell: "positive" if label else "negative" for cell, label in _LABELS.items()}
    text["decision"] = text["decision"].str.lower().replace(decisions)
    return text[list(LOG_COLUMNS)]


def _typed(text: pd.DataFrame, path: Path, latest: datetime) -> pd.DataFrame:
    """Check a table of texts, empty where unknown, and give its columns their types."""
    times = pd.to_datetime(text["time"], utc=True, format="ISO8601", errors="coerce")
    refuse_line(times.isna(), path, " is no time such as 2026-01-31T08:30:00Z", text["time"])
    message = " lies in the future; correct or remove the row, and the clock that wrote it"
    refuse_line(times > pd.Timestamp(latest), path, message, text["time"])
    typed = text[list(LOG_COLUMNS)].mask(text == "").assign(time=times)
    for name, members in LOG_CLASSES.items():
        is_unknown = typed[name].notna() & ~typed[name].isin(members)
        refuse_line(is_unknown, path, f" is none of {', '.join(members)}", text[name])
    for name in _NUMBERS:
        typed[name] = to_numbers(text[name], path, name)
        refuse_line(typed[name].abs() == math.inf, path, " is not finite", text[name])
    for name in ("patient", "status"):
        refuse_line(typed[name].isna(), path, f"{name} is empty")
    unscored = (typed["status"] == "ok") & typed["score"].isna()
    refuse_line(unscored, path, "score is empty; write status=failed where there is no answer")
    decisions = typed["decision"].map({"positive": True, "negative": False})
    return typed.assign(decision=decisions.astype("boolean"))


def read_audit(path: Path, key: Path | None = None) -> pd.DataFrame:
    """Read true labels that people later assigned to images in a log of a deployed model.

    The CSV file has ``label`` (1 or 0, or one of positive, present, negative, absent) and either
    ``image_id`` (the original id of the image) or ``image`` (the pseudonym of the image in the
    log). `key` is the file of the log's secret key, with which ``image_id`` is turned into
    pseudonyms; None if the log contains original ids. An image with two labels is refused. The
    result has ``image`` (unique, as in the log) and ``label``, bool.
    """
    path = Path(path)
    text = read_text_table(path, ("label",), ("image_id", "image"))
    has_ids = bool((text["image_id"] != "").any())
    ids = text["image_id" if has_ids else "image"]
    refuse_line(ids == "", path, "no image_id, nor an image of the log")
    if has_ids and key is not None:
        secret = read_id_key(Path(key))
        ids = ids.map(lambda name: log_pseudonym(secret, f"image:{name}"))
    labels = text["label"].str.strip().str.lower().map(_LABELS)
    refuse_line(labels.isna(), path, " is no label; write 1 or 0", text["label"])
    rows = pd.DataFrame({"image": ids, "label": labels.astype(bool)}).drop_duplicates()
    refuse_line(rows["image"].duplicated(), path, "this image has another label above; keep one")
    return rows.reset_index(drop=True)
