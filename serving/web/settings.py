"""What a server is told: where it listens, whom it answers, and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0 takes a free one
    token: str | None = field(default=None, repr=False)  # of "Authorization: Bearer TOKEN"
    allowed_hosts: tuple[str, ...] = ()  # names of the server, beside the address and localhost
    max_bytes: int = 64 * MEBIBYTE  # of a request
    max_pixels: int = 100_000_000  # of an image
    seconds: float = 30.0  # time limit of a request
    queue: int = 64  # images that may wait; more are refused with 429
    batch: int = 8  # images at a time that a system answers for
    workers: int = 1  # processes that decode
    rate: float = 0.0  # requests a second that one client may send; 0 for no limit
    examples: Path | None = None  # folder of example images

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False
