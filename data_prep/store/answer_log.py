"""The log of answers: what `cxr predict`, `serve` and `pacs` note for `cxr monitor`.

A folder of JSON Lines, one file a UTC day, a row an image and system. Patients and images stand in
it as keyed hashes, what the header says as classes of closed lists; nothing else of an image.
"""

from __future__ import annotations

import json
import math
import os
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.folders import make_folder
from cxr_compare.data_prep.contracts.pseudonyms import keyed_hash, read_id_key
from cxr_compare.data_prep.contracts.tables import read_text_csv, refuse_line, to_numbers
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
        InputError: The log cannot be written, or others may read it.

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
            if stat.S_IMODE(self._folder.stat().st_mode) & 0o077:
                raise InputError(f"--log {folder}: others may read it; run: chmod 700 {folder}")
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

    def _append(self, time: datetime, lines: bytes) -> None:
        """Append to the file of a day; a line that was cut short before gets its end."""
        path = self._folder / f"answers-{time.date()}.jsonl"
        binary = getattr(os, "O_BINARY", 0)  # of Windows
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | binary, 0o600)
        try:
            if os.fstat(file).st_size:
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


def read_log(path: Path, say: Callable[[str], object] = print) -> pd.DataFrame:
    """Read a log, or a table in its place.

    Args:
        path: Folder that ``--log`` wrote; or a CSV file with the same columns, of which ``time``,
            ``patient`` and ``score`` are needed; its ids are taken as they stand.
        say: Shows what was passed over: lines that were cut short, as by a full disk.

    Returns:
        A row an image and system, by time: ``time`` in UTC; ``threshold``, ``score``,
        ``guard_distance`` and ``seconds`` float64; ``decision`` boolean, missing where there is
        none; all else text, missing where unknown. The index counts from 0.

    Raises:
        InputError: There is no row, or a value is none that a log holds; file and line are named.

    Example:
        >>> read_log(Path("no-such-log"))
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: no-such-log: no such log; ...
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("answers-*.jsonl"))
        if not files:
            raise InputError(f"{path}: holds no answers-*.jsonl; name the folder of a --log")
        rows = pd.concat([_read_day(file, say) for file in files], ignore_index=True)
    elif path.is_file():
        rows = _typed(_read_csv(path), path)
    else:
        raise InputError(f"{path}: no such log; name the folder of a --log, or a CSV file")
    if rows.empty:
        raise InputError(f"{path}: holds no answer yet")
    return rows.sort_values("time", kind="stable", ignore_index=True)


def _read_day(path: Path, say: Callable[[str], object]) -> pd.DataFrame:
    rows: dict[int, list[str]] = {}
    cut = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            try:
                row = json.loads(line)
            except ValueError:
                cut += bool(line.strip())
                continue
            if not isinstance(row, dict) or set(row) != set(_COLUMNS):
                raise InputError(f"{path}: line {number + 1}: is no row of a log of this version")
            # Line 2 has index 0, as in a CSV file with its header.
            rows[number - 1] = ["" if row[name] is None else str(row[name]) for name in _COLUMNS]
    if cut:
        say(f"{path}: {counted(cut, 'line')} cut short, passed over")
    texts = pd.DataFrame.from_dict(rows, orient="index", columns=list(_COLUMNS), dtype=TEXT)
    return _typed(texts, path)


def _read_csv(path: Path) -> pd.DataFrame:
    text = read_text_csv(path, ("time", "patient", "score"), _COLUMNS)
    for name, instead in (
        ("image", "line " + text.index.astype(TEXT)), ("status", "ok"), ("system", "system")
    ):  # fmt: skip
        text[name] = text[name].where(text[name] != "", instead)
    words = {cell: "positive" if is_one else "negative" for cell, is_one in _LABELS.items()}
    text["decision"] = text["decision"].str.lower().replace(words)
    return text[list(_COLUMNS)]


def _typed(text: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Check a table of texts, empty where unknown, and give its columns their types."""
    times = pd.to_datetime(text["time"], utc=True, format="ISO8601", errors="coerce")
    refuse_line(times.isna(), path, " is no time such as 2026-01-31T08:30:00Z", text["time"])
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
    text = read_text_csv(path, ("label",), ("image_id", "image"))
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
