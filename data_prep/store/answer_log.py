"""The log of answers: what `cxr predict`, `serve` and `pacs` note for `cxr monitor`.

A folder of JSON Lines, one file a UTC day, a row an image and system. Patients and images stand in
it as keyed hashes, what the header says as classes of closed lists; nothing else of an image.

A day's file may be compressed by gzip or renamed as logrotate does: `read_log` reads these, too.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import stat
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pandas as pd

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.pseudonyms import keyed_hash, read_id_key
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.tables import refuse_line, to_numbers
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.dicom_header import MAKERS, OTHER

LOG_KEY = "key"
"""Name of the key's file in a log: HMAC-SHA256 of an id by it is the id's pseudonym."""
AGE_BANDS = {"0-1": 2, "2-11": 12, "12-17": 18, "18-39": 40, "40-64": 65, "65-79": 80, "80+": 121}
"""Bands of age, and the age in years at which each ends; what lies beyond the last is unknown."""
_CLASSES = {
    "status": ("ok", "refused", "failed"),
    "decision": ("positive", "negative"),
    "view": ("PA", "AP", "LL", OTHER),
    "sex": ("M", "F", OTHER),
    "age_band": tuple(AGE_BANDS),
    "maker": (*MAKERS, OTHER),
}
_NUMBERS = ("threshold", "score", "guard_distance", "seconds")
_COLUMNS = (
    "time",  # of the answer, ISO 8601 in UTC
    "system",  # name of what answered
    "target",  # name of what it is asked for
    "policy",  # operating point that decides
    "threshold",  # on the score; null where it decides nothing
    "patient",  # keyed hash; an image without a patient id is a patient of its own
    "image",  # keyed hash
    # ok; refused: a warning speaks against the image, so nothing is decided; failed: no answer
    "status",
    "score",  # of the image, raw, in [0, 1]; null where it failed
    "decision",  # positive or negative; null where it was refused, failed or is undecided
    # log odds that the image is no frontal chest X-ray, by the system's guard; null without one
    "guard_distance",
    "seconds",  # that the answer took: of the request, or the image's share of its batch
    "view", "sex", "age_band", "maker",  # of the header; null where unknown
)  # fmt: skip
_DAY_PREFIX = "answers-"  # of the name of a day's file
# A day's file, as it is written, or with the ends that logrotate and gzip give it.
_DAY_NAME = re.compile(r"answers-(\d{4}-\d\d-\d\d)\.jsonl(?:[.-]\d+)?(\.gz)?")
_LONGEST_LINE = 1 << 16  # characters; a row has some hundreds
_MOST_NAMED = 5  # files that a note names
_CLOCK_TOLERANCE = timedelta(days=1)  # by which the clocks of two machines may differ
_COLUMN_NAMES = frozenset(_COLUMNS)
_PLAIN = {str, int, float, bool, type(None)}  # types of a row's values
_WORDS = {True: "positive", False: "negative", None: None}  # of a decision
_HASH_DIGITS = 16  # 64 bits: any two of 10^6 ids get one hash with a chance of 3e-8
_LABELS = {"1": True, "positive": True, "present": True, "true": True,
           "0": False, "negative": False, "absent": False, "false": False}  # fmt: skip


def _pseudonym(key: bytes, text: str) -> str:
    return keyed_hash(key, text)[:_HASH_DIGITS]


def _class_of(column: str, value: Any) -> str | None:
    if value is None or pd.isna(value):
        return None
    return str(value) if value in _CLASSES[column] else OTHER


def _age_band(years: float | None) -> str | None:
    if years is None or not years >= 0:
        return None
    return next((band for band, end in AGE_BANDS.items() if years < end), None)


class AnswerLog:
    """Appends rows to a log; several threads and processes of one machine may do so at once.

    A row is written whole by one `os.write` to a file that is open for appending. A disk that is
    lost is told once and its rows are counted: answers go on.

    Args:
        folder: The log; made where there is none. Others may not read it.
        say: Shows a line to the person.

    Raises:
        InputError: The log cannot be written, others may read it, or it has rows and no key.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = AnswerLog(Path(folder), print)
        ...     header = {"sex": "F", "age_years": 71.0}
        ...     answer = {"system": "CheXNet", "status": "ok", "score": 0.81, "decision": True}
        ...     log.add("1.2.840.1", "JANE-1", header, [answer], seconds=0.2)
        ...     rows = read_log(Path(folder))
        >>> rows[["system", "score", "sex", "age_band"]].values.tolist()
        [['CheXNet', 0.81, 'F', '65-79']]
    """

    def __init__(self, folder: Path, say: Callable[[str], object]) -> None:
        self.lost = 0  # rows that could not be written
        self._folder, self._say = Path(folder), say
        self._lock = threading.Lock()
        make_folder(self._folder.parent)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if self._others_may_read():
                raise InputError(f"--log {folder}: others may read it; run: chmod 700 {folder}")
            # First whether there are rows, as another process may begin the same log: it makes the
            # key before it writes a row.
            folder_files = list(self._folder.iterdir())
            has_rows = any(file.name.startswith(_DAY_PREFIX) for file in folder_files)
            if has_rows and not (self._folder / LOG_KEY).exists():
                raise InputError(
                    f"--log {folder}: has answers but no longer its file '{LOG_KEY}'; bring that "
                    "back, or name a new folder: with another key each patient would count twice"
                )
            self._key = read_id_key(self._folder / LOG_KEY)
            self._append(datetime.now(UTC), b"")
        except OSError as error:
            raise InputError(
                f"--log {folder}: cannot be written ({os.strerror(error.errno or 0)}); put that "
                "right, or name another folder"
            ) from None

    def add_file(
        self,
        file: str,
        image: DecodedImage | None,
        answers: Sequence[Mapping[str, Any]],
        seconds: float | None,
    ) -> None:
        """Note what each system said of a file, as `add` does; None: it could not be read."""
        name, patient, header = Path(file).name, None, {}
        if image is not None:
            # Without a patient id two names of the same pixels are one patient.
            patient = image.patient or f"pixels:{image.record['pixel_sha256']}"
            name, header = image.instance or name, image.header
        self.add(name, patient, header, answers, seconds)

    def add(
        self,
        name: str,
        patient: str | None,
        header: Mapping[str, Any],
        answers: Sequence[Mapping[str, Any]],
        seconds: float | None,
    ) -> None:
        """Note what each system said of an image; its ids are hashed before they are written.

        Args:
            name: Its id: a DICOM file's SOPInstanceUID, else the name of the file.
            patient: The patient's; None: the image is a patient of its own.
            header: ``view, sex, age_years, maker``, some of them, as the loader found them.
            answers: Of each system the columns from ``system`` to ``threshold`` and ``status``
                to ``guard_distance``, the decision as a flag; those left out are null.
            seconds: That the answer took.
        """
        now = datetime.now(UTC)
        whose = f"image:{name}" if patient is None else f"patient:{patient}"
        known = {
            "time": now.isoformat(timespec="milliseconds"),
            "patient": _pseudonym(self._key, whose),
            "image": _pseudonym(self._key, f"image:{name}"),
            "seconds": None if seconds is None else round(seconds, 4),
            **{key: _class_of(key, header.get(key)) for key in ("view", "sex", "maker")},
            "age_band": _age_band(header.get("age_years")),
        }
        rows = [
            {**dict.fromkeys(_COLUMNS), **known, **answer, "decision": _WORDS[answer["decision"]]}
            for answer in answers
        ]
        lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        with self._lock:
            try:
                self._append(now, lines.encode())
            except OSError as error:
                if not self.lost:
                    self._say(
                        f"--log {self._folder}: cannot be written any more ({error.strerror}); "
                        "answers go on, and what the log misses is counted"
                    )
                self.lost += len(answers)

    def _others_may_read(self) -> bool:
        return bool(stat.S_IMODE(self._folder.stat().st_mode) & 0o077)

    def _append(self, time: datetime, lines: bytes) -> None:
        """Append to the file of a day; a line that was cut short before gets its end."""
        if self._others_may_read():  # the folder may have been made anew since the start
            raise OSError(0, "others may read it")
        path = self._folder / f"{_DAY_PREFIX}{time.date()}.jsonl"
        # O_BINARY is of Windows, which has no O_NOFOLLOW.
        flags = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | flags, 0o600)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, f"{path.name} is no regular file")
            if status.st_size:
                os.lseek(file, -1, os.SEEK_END)
                if os.read(file, 1) != b"\n":
                    os.write(file, b"\n")
            if os.write(file, lines) < len(lines):
                raise OSError(0, "the disk is full")
        finally:
            os.close(file)

    def close(self) -> None:
        """Say how many rows are missing."""
        if self.lost:
            self._say(f"--log {self._folder}: misses {counted(self.lost, 'row')}")


def read_log(
    path: Path, say: Callable[[str], object] = print, *, now: datetime | None = None
) -> pd.DataFrame:
    """Read a log, or a table in its place.

    Args:
        path: Folder that ``--log`` wrote; or a CSV file with the same columns, of which ``time``,
            ``patient`` and ``score`` are needed; its ids are taken as they stand.
        say: Shows what was passed over: lines that were cut short, as by a full disk, and files
            whose names begin like those of a log and end otherwise.
        now: What no row may be later than by more than a day; by default the machine's clock.

    Returns:
        A row an image and system, by time: ``time`` in UTC; ``threshold``, ``score``,
        ``guard_distance`` and ``seconds`` float64; ``decision`` boolean, missing where there is
        none; all else text, missing where unknown. The index counts from 0.

    Raises:
        InputError: There is no row, a value is none that a log holds, a row lies in the future or
            in the file of another day, or what has a day's name is no file.

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
    """The files of each day, in order; names that begin alike and are not read are said."""
    days: dict[date, list[Path]] = {}
    unread = []
    for file in sorted(folder.iterdir()):
        if not file.name.startswith(_DAY_PREFIX):
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
        more = f" and {len(unread) - _MOST_NAMED} more" if len(unread) > _MOST_NAMED else ""
        say(
            f"{folder}: not read: {', '.join(unread[:_MOST_NAMED])}{more}; unpack or rename them "
            "to answers-2026-01-31.jsonl or .jsonl.gz if they belong to this log"
        )
    return dict(sorted(days.items()))


def _day_of(name: str) -> date | None:
    """The day of a file, by its name; None where it has no name of a day's file."""
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
    """The rows of a day, which a rotation may have put into several files."""
    tables = []
    for path in files:
        table = _typed(_read_lines(path, say), path, latest)
        elsewhere = table["time"].dt.normalize() != pd.Timestamp(day, tz="UTC")
        message = f" is not of {day}, the day of its file; correct or remove the row"
        refuse_line(elsewhere, path, message, table["time"].astype(TEXT))
        tables.append(table)
    if len(tables) == 1:
        return tables[0]
    # A file and its compressed copy may both be there. A row that a file itself repeats counts as
    # often as there.
    numbered = [
        table.assign(nth=table.groupby(list(_COLUMNS), dropna=False, sort=False).cumcount())
        for table in tables
    ]
    rows = pd.concat(numbered, ignore_index=True)
    repeated = rows.duplicated()
    if repeated.any():
        names = " and ".join(path.name for path in files)
        count = counted(int(repeated.sum()), "row")
        say(f"{files[0].parent}: {count} in both of {names}, counted once")
    return rows.loc[~repeated, list(_COLUMNS)]


def _read_lines(path: Path, say: Callable[[str], object]) -> pd.DataFrame:
    """The rows of a file as texts, empty where unknown; the index is that of `refuse_line`."""
    rows: dict[int, list[str]] = {}
    cut = 0
    for number, line in enumerate(_lines(path)):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            cut += bool(line.strip())
            continue
        if not _is_row(row):
            raise InputError(f"{path}: line {number + 1}: is no row of a log of this version")
        # Line 2 has index 0, as in a CSV file with its header.
        rows[number - 1] = ["" if row[name] is None else str(row[name]) for name in _COLUMNS]
    if cut:
        say(f"{path}: {counted(cut, 'line')} cut short, passed over")
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(_COLUMNS), dtype=TEXT)


def _is_row(row: object) -> bool:
    """Return True if a row has the columns of a log, and plain values."""
    if not isinstance(row, dict) or row.keys() != _COLUMN_NAMES:
        return False
    return set(map(type, row.values())) <= _PLAIN


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, unpacked where it is compressed; of a line that is too long the start.

    Raises:
        InputError: The file cannot be read or unpacked.
    """
    try:
        file: IO[str]
        if path.suffix == ".gz":
            file = gzip.open(path, "rt", encoding="utf-8", errors="replace")  # noqa: SIM115
        else:
            file = path.open(encoding="utf-8", errors="replace")
        with file:
            while line := file.readline(_LONGEST_LINE):
                yield line
                while len(line) == _LONGEST_LINE and not line.endswith("\n"):
                    line = file.readline(_LONGEST_LINE)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(
            f"{path}: is damaged: it cannot be unpacked to its end; bring back an unchanged copy"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: cannot be read ({reason}); put that right") from None


def _read_csv(path: Path) -> pd.DataFrame:
    text = read_text_table(path, ("time", "patient", "score"), _COLUMNS)
    for name, instead in (
        ("image", "line " + text.index.astype(TEXT)), ("status", "ok"), ("system", "system")
    ):  # fmt: skip
        text[name] = text[name].where(text[name] != "", instead)
    words = {cell: "positive" if is_one else "negative" for cell, is_one in _LABELS.items()}
    text["decision"] = text["decision"].str.lower().replace(words)
    return text[list(_COLUMNS)]


def _typed(text: pd.DataFrame, path: Path, latest: datetime) -> pd.DataFrame:
    """Check a table of texts, empty where unknown, and give its columns their types."""
    times = pd.to_datetime(text["time"], utc=True, format="ISO8601", errors="coerce")
    refuse_line(times.isna(), path, " is no time such as 2026-01-31T08:30:00Z", text["time"])
    message = " lies in the future; correct or remove the row, and the clock that wrote it"
    refuse_line(times > pd.Timestamp(latest), path, message, text["time"])
    typed = text[list(_COLUMNS)].mask(text == "").assign(time=times)
    for name, members in _CLASSES.items():
        strange = typed[name].notna() & ~typed[name].isin(members)
        refuse_line(strange, path, f" is none of {', '.join(members)}", text[name])
    for name in _NUMBERS:
        typed[name] = numbers = to_numbers(text[name], path, name)
        refuse_line(numbers.abs() == math.inf, path, " is not finite", text[name])
    for name in ("patient", "status"):
        refuse_line(typed[name].isna(), path, f"{name} is empty")
    unscored = (typed["status"] == "ok") & typed["score"].isna()
    refuse_line(unscored, path, "score is empty; write status=failed where there is no answer")
    flags = {word: flag for flag, word in _WORDS.items()}
    return typed.assign(decision=typed["decision"].map(flags).astype("boolean"))


def read_audit(path: Path, key: Path | None = None) -> pd.DataFrame:
    """Read labels that were given later.

    Args:
        path: CSV file of ``image_id,label``, as the images are called, or of ``image,label``, as
            the log calls them. A label is 1 or 0, or positive, present, negative, absent.
        key: Key of the log, which finds the images of ``image_id`` in it; None where the log calls
            images by their ids.

    Returns:
        ``image`` as the log calls it, unique, and ``label``, bool.

    Raises:
        InputError: A column is missing, a label is none, or an image has both.
    """
    path = Path(path)
    text = read_text_table(path, ("label",), ("image_id", "image"))
    in_clear = bool((text["image_id"] != "").any())
    ids = text["image_id" if in_clear else "image"]
    refuse_line(ids == "", path, "no image_id, nor an image of the log")
    if in_clear and key is not None:
        secret = read_id_key(Path(key))
        ids = ids.map(lambda name: _pseudonym(secret, f"image:{name}"))
    labels = text["label"].str.strip().str.lower().map(_LABELS)
    refuse_line(labels.isna(), path, " is no label; write 1 or 0", text["label"])
    rows = pd.DataFrame({"image": ids, "label": labels.astype(bool)}).drop_duplicates()
    refuse_line(rows["image"].duplicated(), path, "this image has another label above; keep one")
    return rows.reset_index(drop=True)
