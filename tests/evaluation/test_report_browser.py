import os
import shutil
import subprocess

import pytest

from evaluation.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine, and in CI the report must be opened in one")
        pytest.skip("no Chromium on this machine: the report was not opened in a browser")
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_opens_without_a_console_message(browser, scheme, comparison, picture_set, tmp_path):
    page = write_report(comparison, picture_set, tmp_path / "report")
    picture = tmp_path / "page.png"
    answer = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr", "--v=0", "--window-size=1280,2000",
            f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
            f"--screenshot={picture}", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert [line for line in answer.stderr.splitlines() if "CONSOLE" in line] == []
    assert picture.stat().st_size > 20_000
