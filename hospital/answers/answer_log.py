"""The log of answers, which `cxr predict`, `serve` and `pacs` write for `cxr monitor`.

A log is a folder of JSON Lines files, one for each UTC day, with a row for each image and system.
Patients and images are stored as keyed hashes, and facts of the header as classes from closed
lists. Nothing else of an image is stored. `hospital.answers.answer_log_reader` reads a log.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.pseudonyms import keyed_hash, read_id_key
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.dicom_header import MAKERS, OTHER

LOG_KEY = "key"
"""Name of the key's file in a log: the HMAC-SHA256 of an id with this key is its pseudonym."""
AGE_BANDS = {"0-1": 2, "2-11": 12, "12-17": 18, "18-39": 40, "40-64": 65, "65-79": 80, "80+": 121}
"""Bands of age, with the age in years at which each ends; a higher age counts as unknown."""
LOG_CLASSES = {
    "status": ("ok", "refused", "failed"),
    "decision": ("positive", "negative"),
    "view": ("PA", "AP", "LL", OTHER),
    "sex": ("M", "F", OTHER),
    "age_band": tuple(AGE_BANDS),
    "maker": (*MAKERS, OTHER),
}
"""Values of the columns that hold classes."""
LOG_COLUMNS = (
    "time",  # of the answer, ISO 8601 in UTC
    "system",  # name of the system that answered
    "target",  # name of the target
    "policy",  # operating point that decides
    "threshold",  # on the score; null if it decides nothing
    "patient",  # keyed hash; an image without a patient id is a patient of its own
    "image",  # keyed hash
    # ok; refused: a warning was given about the image, so nothing is decided; failed: no answer
    "status",
    "score",  # of the image, uncalibrated, in [0, 1]; null if it failed
    "decision",  # positive or negative; null if refused, failed or undecided
    # Log odds that the image is no frontal chest X-ray, by the system's out-of-distribution check;
    # null without one.
    "guard_distance",
    "seconds",  # for the answer: those of the request, or the image's share of its batch
    "view",  # this and the next three are facts of the header; null if unknown
    "sex",
    "age_band",
    "maker",
)
"""Columns of a log."""
DAY_FILE_PREFIX = "answers-"
"""Beginning of the name of a day's file."""
_DECISIONS = {True: "positive", False: "negative", None: None}
_HASH_DIGITS = 16  # 64 bits: any two of 10^6 ids get the same hash with a probability of 3e-8


def log_pseudonym(key: bytes, text: str) -> str:
    """Return the pseudonym of an image or a patient in a log, 16 hexadecimal digits.

    The text is ``image:`` or ``patient:``, followed by the id, such as ``patient:JANE-1``; the key
    of the log has 16 to 4,096 bytes.
    """
    return keyed_hash(key, text)[:_HASH_DIGITS]


def _class_of(column: str, value: Any) -> str | None:
    if value is None or pd.isna(value):
        return None
    return str(value) if value in LOG_CLASSES[column] else OTHER


def _age_band(years: float | None) -> str | None:
    if years is None or not years >= 0:
        return None
    return next((band for band, end in AGE_BANDS.items() if years < end), None)


class AnswerLog:
    """A writer that logs scores and decisions that systems gave for new images.

    A system is a deployed model. Each line of the log is the output (here called answer) of one
    system for one image; ``cxr monitor`` reads the log.

    The folder is made if it does not exist. One that other users may read, or that has rows but no
    key, is refused. Several threads and processes may share a log.

    Each row is written by a single `os.write` to a file that is open for appending. If the disk
    fails, `say` is called with a message once and the lost rows are counted; no exception is
    raised, so the systems go on predicting.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = AnswerLog(Path(folder), print)
        ...     header = {"sex": "F", "age_years": 71.0}
        ...     answer = {"system": "CheXNet", "status": "ok", "score": 0.81, "decision": True}
        ...     log.add("1.2.840.1", "JANE-1", header, [answer], seconds=0.2)
        ...     day_file = next(Path(folder).glob("*.jsonl"))
        ...     row = json.loads(day_file.read_text())
        >>> [row[column] for column in ("system", "score", "sex", "age_band")]
        ['CheXNet', 0.81, 'F', '65-79']
    """

    def __init__(self, folder: Path, say: Callable[[str], object]) -> None:
        self.lost = 0  # rows that could not be written
        self._folder = Path(folder)
        self._say = say
        self._lock = threading.Lock()
        make_folder(self._folder.parent)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if self._others_may_read():
                raise InputError(f"--log {folder}: others may read it; run: chmod 700 {folder}")
            # Look for rows before the key: another process that begins the same log makes the key
            # before it writes a row.
            folder_files = list(self._folder.iterdir())
            has_rows = any(file.name.startswith(DAY_FILE_PREFIX) for file in folder_files)
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
        """Log the scores and decisions of all systems for one image file.

        The header of the decoded image names the patient; None is for a file that could not be
        read. The answers and seconds are as in `add`.
        """
        name = Path(file).name
        if image is None:
            self.add(name, None, {}, answers, seconds)
            return
        # Without a patient id, files with the same pixels belong to one patient.
        patient = image.patient or f"pixels:{image.pixel_sha256}"
        self.add(image.instance or name, patient, image.header, answers, seconds)

    def add(
        self,
        name: str,
        patient: str | None,
        header: Mapping[str, Any],
        answers: Sequence[Mapping[str, Any]],
        seconds: float | None,
    ) -> None:
        """Log the scores and decisions of all systems for one image. Ids are replaced by hashes.

        `name` is the SOPInstanceUID of a DICOM file, else the name of the file. Without a patient
        the image counts as its own patient. The header has any of the keys ``view``, ``sex``,
        ``age_years`` and ``maker`` (of the X-ray device), as the decoder read them. `seconds` is
        the time in which all systems computed their output; None if unknown.

        There is one answer for each system, with the keys ``system``, ``target``, ``policy`` (name
        of the operating point), ``threshold``, ``status`` (``ok``, ``refused`` or ``failed``),
        ``score``, ``decision`` (True for positive) and ``guard_distance`` (log odds that the image
        is no frontal chest X-ray). Unknown values are None or left out.
        """
        now = datetime.now(UTC)
        patient_text = f"image:{name}" if patient is None else f"patient:{patient}"
        common = {
            "time": now.isoformat(timespec="milliseconds"),
            "patient": log_pseudonym(self._key, patient_text),
            "image": log_pseudonym(self._key, f"image:{name}"),
            "seconds": None if seconds is None else round(seconds, 4),
            **{key: _class_of(key, header.get(key)) for key in ("view", "sex", "maker")},
            "age_band": _age_band(header.get("age_years")),
        }
        rows = [
            {
                **dict.fromkeys(LOG_COLUMNS),
                **common,
                **answer,
                "decision": _DECISIONS[answer["decision"]],
            }
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
                        "answers continue, and the rows that the log misses are counted"
                    )
                self.lost += len(answers)

    def _others_may_read(self) -> bool:
        return bool(stat.S_IMODE(self._folder.stat().st_mode) & 0o077)

    def _append(self, time: datetime, lines: bytes) -> None:
        """Append to the file of a day; a line that was cut short before is ended first."""
        if self._others_may_read():  # the folder may have been made anew since the start
            raise OSError(0, "others may read it")
        path = self._folder / f"{DAY_FILE_PREFIX}{time.date()}.jsonl"
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
        """Close the log, and show a message if rows were lost."""
        if self.lost:
            self._say(f"--log {self._folder}: misses {counted(self.lost, 'row')}")
