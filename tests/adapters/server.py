"""The server of `cxr serve` in a thread of this process, on a free port."""

import threading
import time
from contextlib import contextmanager

import uvicorn

from cxr_compare.serving.web.app import ServeSettings, build_app

__all__ = ["application", "listening"]

_START_S = 20


def application(systems, **settings):
    """The application that answers requests (ASGI), without a socket."""
    return build_app(systems, ServeSettings(**settings))


@contextmanager
def listening(systems, **settings):
    """Yield the address at which systems are served."""
    app = application(systems, **settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + _START_S
    while not server.started:
        assert time.monotonic() < end
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
