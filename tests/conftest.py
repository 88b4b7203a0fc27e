"""Fixtures shared by all tests."""

import atexit
import gc
import os
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.adapters.preloaded import MODULES
from tests.world import world

__all__ = ["world"]

# The same examples every time: a test that fails once must fail again.
hypothesis.settings.register_profile(
    "repeatable", max_examples=50, derandomize=True, deadline=None, report_multiple_bugs=False
)
hypothesis.settings.load_profile("repeatable")


def pytest_configure() -> None:
    """Whoever starts the server first, it has everything."""
    forkserver.set_forkserver_preload(MODULES)
    forkserver.set_forkserver_preload = lambda modules: None


def pytest_collection() -> None:
    """What imports make stays: to look through it for garbage is a fifth of the collection."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Each training looks through all garbage twice: not again through what was imported."""
    gc.freeze()
    atexit.register(gc.unfreeze)
    gc.set_threshold(20_000)
    gc.enable()


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """More threads share a convolution's sums, and round them otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real X-rays beside the checkout; the test skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A tab of this machine's Chromium, the `Browser` of ``tests/browser.py``."""
    pytest.importorskip("playwright", reason="playwright, which opens pages, is not installed")
    from tests.browser import Browser, find_browser

    path = find_browser()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine, and in CI the pages must be opened in one")
        pytest.skip("no Chromium on this machine: the page was not opened in a browser")
    with Browser(path) as tab:
        yield tab
