"""Listening: one process that serves runs until it is ended."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence

import numpy as np
import uvicorn

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.serving.run import ARRAY, Run
from cxr_compare.serving.web.app import LOG, ServeSettings, build_app

_GRACE_S = 3
_MOST_CONNECTIONS = 512
_PATHS = ("/v1/models", "/v1/analyze", "/v1/overlay", "/healthz", "/page/")


class _Quiet(logging.Filter):
    """Keeps addresses and names of files out of the log: method, route and status are shown."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a line of uvicorn's access log."""
        if isinstance(record.args, tuple) and len(record.args) == 5:
            _, method, path, _, status = record.args
            known = next((start for start in _PATHS if str(path).startswith(start)), "/")
            record.msg = "%s %s %s"
            record.args = (method, known, status)
        return True


def listen(settings: ServeSettings) -> socket.socket:
    """Open the port, before models are loaded: one that is taken is said at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"host {settings.host}, port {settings.port}: {reason}") from None


def warm_up(systems: Sequence[Run]) -> None:
    """Answer once, for the first prediction is slow: not the first user's."""
    blank = DecodedImage(np.zeros((64, 64), np.uint8))
    for system in systems:
        system.answer(ARRAY, blank)


def serve_forever(
    systems: Sequence[Run], settings: ServeSettings, listening: socket.socket
) -> None:
    """Serve runs until Ctrl-C or SIGTERM."""
    _log_to_stderr()
    config = uvicorn.Config(
        build_app(systems, settings),
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=5,
        limit_concurrency=_MOST_CONNECTIONS,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listening])


def _log_to_stderr() -> None:
    """Write a line a request, and faults, to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.addFilter(_Quiet())
    levels = {"uvicorn.access": logging.INFO, "uvicorn.error": logging.WARNING}
    for name, level in {**levels, LOG.name: logging.INFO}.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level)
