"""A real browser, for the pages of a report."""

import os
import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine, and in CI the report must be opened in one")
        pytest.skip("no Chromium on this machine: the report was not opened in a browser")
    return found


OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0",
)  # fmt: skip


def open_in(browser, profile, *arguments):
    answer = subprocess.run(
        [browser, *OPTIONS, f"--user-data-dir={profile}", *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert [line for line in answer.stderr.splitlines() if "CONSOLE" in line] == []
    return answer.stdout


@pytest.fixture
def run():
    """Open a page; any message on the console fails the test."""
    return open_in
