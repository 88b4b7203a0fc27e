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

from tests.world import world

__all__ = ["world"]

# What the server of new processes imports, once for all tests of a worker: only its first start
# counts, and from one that has less each process imports PyTorch anew.
_PRELOADED = [
    "cxr_compare.data_prep.pixels",
    "cxr_compare.data_prep.audit",
    "cxr_compare.scripts.cli",
    "cxr_compare.scripts.comparison",
    "cxr_compare.serving.predict_data",
    "cxr_compare.serving.run",
    "cxr_compare.training.train",
    "pyarrow.dataset",
]
# The same examples every time: a test that fails once must fail again.
hypothesis.settings.register_profile("repeatable", max_examples=50, derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_configure() -> None:
    """Whoever starts the server first, it has everything."""
    forkserver.set_forkserver_preload(_PRELOADED)
    forkserver.set_forkserver_preload = lambda modules: None


def pytest_collection() -> None:
    """What imports make stays: to look through it for garbage is a fifth of the collection."""
    gc.disable()


# Folders whose tests `conformance/` and the flat files of `tests/` replace. They stay until the
# issue that rebuilds their package has run them once against the new one: pytest -m old
OLD = ("tests/data_prep/sources",)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the old tests; the longest file first, for which one worker would else be waited for."""
    items.sort(key=lambda item: item.path.name != "test_end_to_end.py")
    for item in items:
        if item.nodeid.startswith(OLD):
            item.add_marker("old")


def pytest_collection_finish() -> None:
    """Each training looks through all garbage twice: not again through what was imported."""
    gc.freeze()
    atexit.register(gc.unfreeze)
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
