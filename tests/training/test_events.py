"""TensorBoard's files: exact bytes by hand, and TensorBoard's own reader where it is installed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from training.events import EventLog, crc32c, encode_scalars

_ROWS = [
    {"epoch": 1, "train_loss": 0.5, "val_loss": 0.75, "ap50": 0.25, "seconds": 3.0},
    {"epoch": 2, "train_loss": 0.25, "val_loss": 0.5, "ap50": float("nan"), "seconds": 3.0},
]


def _records(folder: Path) -> list[bytes]:
    """The records of the only file, their framing checked."""
    (file,) = folder.iterdir()
    content, records = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        record = content[12 : 12 + length]
        for part, crc in ((content[:8], content[8:12]), (record, content[12 + length :][:4])):
            masked = ((crc32c(part) >> 15 | crc32c(part) << 17) + 0xA282EAD8) & 0xFFFFFFFF
            assert crc == struct.pack("<I", masked)
        records.append(record)
        content = content[16 + length :]
    return records


def test_scalar_is_encoded_as_the_protocol_says() -> None:
    assert encode_scalars(1.0, 300, {"a": 0.5}) == (
        b"\x09" + struct.pack("<d", 1.0)  # wall_time, a double
        + b"\x10\xac\x02"  # step, a varint
        + b"\x2a\x0a" + b"\x0a\x08" + b"\x0a\x01a" + b"\x15" + struct.pack("<f", 0.5)
    )  # fmt: skip


def test_each_epoch_is_written_once_and_a_figure_that_is_not_finite_never(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events")
    log.write(_ROWS[:1])
    log.write(_ROWS)
    version, first, second = _records(tmp_path / "events")
    assert version.endswith(b"brain.Event:2")
    assert b"train/loss" in first
    assert b"val/ap50" in first
    assert b"val/ap50" not in second


def test_resumed_training_replaces_what_an_interrupted_one_left(tmp_path: Path) -> None:
    EventLog(tmp_path).write([*_ROWS, {**_ROWS[1], "epoch": 3}])
    EventLog(tmp_path).write(_ROWS)
    assert len(_records(tmp_path)) == 1 + 2


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    EventLog(tmp_path).write(_ROWS)
    (file,) = tmp_path.iterdir()
    events = list(loader.EventFileLoader(str(file)).Load())
    read = {(e.step, v.tag): v.tensor.float_val[0] for e in events for v in e.summary.value}
    assert read[2, "train/loss"] == 0.25
    assert read[1, "val/ap50"] == 0.25
    assert (2, "val/ap50") not in read
