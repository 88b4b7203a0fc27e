"""What a server is told: where it listens, whom it answers, and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server.

    Attributes:
        host: Address it listens on.
        port: Port it listens on; 0 takes a free one.
        token: What clients send as ``Authorization: Bearer TOKEN``; None asks for none.
        allowed_hosts: Names by which clients may call it, beside the address and ``localhost``.
        max_bytes: Largest request, bytes.
        max_pixels: Most pixels of an image.
        seconds: Time limit of a request.
        queue: Images that may wait; more are refused with 429.
        batch: Images at a time that a system answers for.
        workers: Processes that decode.
        rate: Requests a second that one client may send; 0 for no limit.
        examples: Folder of example images, or None.

    Example:
        >>> ServeSettings(host="127.0.0.1").is_loopback, ServeSettings(host="0.0.0.0").is_loopback
        (True, False)
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    max_bytes: int = 64 * MEBIBYTE
    max_pixels: int = 100_000_000
    seconds: float = 30.0
    queue: int = 64
    batch: int = 8
    workers: int = 1
    rate: float = 0.0
    examples: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False
