"""Limits of the server: sizes of uploads, time, queue and rate, with its address and token."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cxr_compare.data_prep.store.answer_log import AnswerLog

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server; `serving/settings_file.py` says which of them a user may change.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        token: The TOKEN that clients send as ``Authorization: Bearer TOKEN``; None asks for none.
        allowed_hosts: Names of the server, beside its address and localhost.
        max_bytes: Largest request, in bytes.
        max_pixels: Largest image, in pixels.
        seconds: Time limit of a request.
        strict: True refuses an image with a warning.
        queue: Images that may wait; more are refused with status 429.
        batch: Images that a system predicts at a time.
        workers: Processes that decode uploads.
        rate: Requests a second that one client may send; 0 sets no limit.
        examples: Folder of example images; None shows phantoms.
        log: Log of answers for `cxr monitor`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    max_bytes: int = 64 * MEBIBYTE
    max_pixels: int = 100_000_000
    seconds: float = 30.0
    strict: bool = False
    queue: int = 64
    batch: int = 8
    workers: int = 1
    rate: float = 0.0
    examples: Path | None = None
    log: AnswerLog | None = None
