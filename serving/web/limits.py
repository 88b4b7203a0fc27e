"""Settings of the server: address, token and limits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.network_addresses import is_loopback

MEBIBYTE = 1 << 20
PATIENCE = 25.0
"""Seconds in which headers and a body must arrive on an address that others can reach."""
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True)
class ServeSettings:
    """Settings of the web server that `cxr serve` starts.

    Raises InputError if other machines could reach the server without a token, or a host name is
    none.

    Attributes:
        port: Port to listen on; 0 takes a free one.
        token: Token that clients send as ``Authorization: Bearer TOKEN``; None requires none.
        allowed_hosts: Host names by which clients may call the server, besides its address and
            localhost.
        max_bytes: Largest body of a request.
        strict: True refuses an image with a warning, such as one that is no frontal chest X-ray.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    max_bytes: int = 64 * MEBIBYTE
    strict: bool = False

    @property
    def patience(self) -> float | None:
        """Seconds in which headers and a body must arrive; None on an address of this machine."""
        return None if is_loopback(self.host) else PATIENCE

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise InputError(
                f"serve --host {self.host}: others can reach that address, so a token is required; "
                "write one of 16 characters or more into a file and give it as --token FILE"
            )
        for name in self.allowed_hosts:
            if not _HOST.fullmatch(name):
                raise InputError(
                    f"serve --allowed-host {name}: give a name such as xray.example, without port"
                )
