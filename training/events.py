"""TensorBoard's event files, written without TensorBoard: it is needed for looking only."""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.contracts.folders import make_folder

_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected
_MASK_DELTA = 0xA282EAD8
_WORD = 0xFFFFFFFF
_PREFIX = "events.out.tfevents."


class EventLog:
    """The history of a training as scalars for TensorBoard.

    The first write of a training, resumed or not, replaces what an earlier one left, so that the
    file never disagrees with the history; later writes append.

    Args:
        folder: Made when first written to.

    Source:
        TFRecord framing and ``event.proto`` of TensorFlow.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._written = 0

    def write(self, history: Sequence[dict[str, Any]]) -> None:
        """Write the epochs that are not written yet.

        Args:
            history: One row per epoch, as in `metrics.csv`.
        """
        now = time.time()
        records = b""
        if self._path is None:
            make_folder(self._folder)
            for old in self._folder.glob(f"{_PREFIX}*"):
                old.unlink()
            self._path = self._folder / f"{_PREFIX}{now:.6f}.{socket.gethostname()}"
            records = frame(_double(1, now) + _bytes(3, b"brain.Event:2"))
        for row in history[self._written :]:
            records += frame(encode_scalars(now, row["epoch"], scalars(row)))
        with self._path.open("ab") as file:
            file.write(records)
        self._written = len(history)


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """An epoch's figures under the names by which TensorBoard groups them.

    Example:
        >>> scalars({"epoch": 1, "train_loss": 0.5, "val_loss": 0.6, "ap50": 0.1, "seconds": 9.0})
        {'train/loss': 0.5, 'val/loss': 0.6, 'val/ap50': 0.1, 'seconds': 9.0}
    """
    named = {}
    for key, value in row.items():
        group, _, rest = key.partition("_")
        if key == "epoch" or not math.isfinite(value):
            continue
        if group in ("train", "val") and rest:
            named[f"{group}/{rest}"] = value
        else:
            named[key if key in ("learning_rate", "seconds") else f"val/{key}"] = value
    return named


def encode_scalars(wall_time: float, step: int, values: dict[str, float]) -> bytes:
    """One ``Event`` with a ``Summary`` of scalars, as protocol buffer.

    Args:
        wall_time: Seconds since 1970.
        step: Place on the axis: the epoch.
        values: Scalars by tag.
    """
    summary = b"".join(
        _bytes(1, _bytes(1, tag.encode()) + _key(2, 5) + struct.pack("<f", value))
        for tag, value in values.items()
    )
    return _double(1, wall_time) + _key(2, 0) + _varint(step) + _bytes(5, summary)


def frame(content: bytes) -> bytes:
    """A TFRecord: length, its checksum, content, its checksum."""
    length = struct.pack("<Q", len(content))
    return length + _masked_crc(length) + content + _masked_crc(content)


def crc32c(content: bytes) -> int:
    """Castagnoli's checksum.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    crc = _WORD
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ _WORD


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(_crc_of_byte(byte) for byte in range(256))


def _masked_crc(content: bytes) -> bytes:
    crc = crc32c(content)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & _WORD)


def _key(field: int, wire_type: int) -> bytes:
    return bytes([field << 3 | wire_type])


def _varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, 2) + _varint(len(content)) + content


def _double(field: int, number: float) -> bytes:
    return _key(field, 1) + struct.pack("<d", number)
