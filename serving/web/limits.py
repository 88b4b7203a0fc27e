"""Settings of the server: address, token, and limits of size, time, queue and rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cxr_compare.data_prep.store.answer_log import AnswerLog

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ServeSettings:
    """Settings of the web server that `cxr serve` starts.

    The settings file of `cxr serve` may contain some of them, see
    `serving.settings_file.ServeSection`.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        token: Token that clients send as ``Authorization: Bearer TOKEN``; None requires none.
        allowed_hosts: Host names by which clients may call the server, besides its address and
            localhost.
        max_bytes: Largest request, in bytes.
        max_pixels: Largest image, in pixels.
        seconds: Time limit of a request, in seconds.
        strict: True refuses an image with a warning, such as one that is no frontal chest X-ray.
        queue: Number of images that may wait. Further ones are refused with status 429.
        batch: Number of images that a network predicts at a time.
        workers: Number of processes that decode uploads.
        rate: Requests a second that one client may send; 0 sets no limit.
        examples: Folder of example images; None shows synthetic images.
        log: Log of predictions for `cxr monitor`; None writes no log.
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
