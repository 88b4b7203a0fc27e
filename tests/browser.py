"""A tab of this machine's Chromium, for tests of pages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """Return the Chromium of this machine."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


class Browser:
    """One tab of a headless Chromium, and what its pages wrote to the console."""

    def __init__(self, path: str) -> None:
        # Imported here: tests that open no browser import this module, too.
        from playwright.sync_api import sync_playwright

        self._driver = sync_playwright().start()
        self._browser = self._driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = self._browser.new_page(no_viewport=True)
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page = page
        self._session = page.context.new_cdp_session(page)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._browser.close()
        self._driver.stop()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol.

        Args:
            method: Name of the method, such as ``Page.captureScreenshot``.
            **parameters: Parameters of the method.

        Returns:
            Result of the method.
        """
        return self._session.send(method, parameters)

    def open(self, page: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Load a page at a size of the screen.

        Args:
            page: File of the page.
            width: Width of the screen, px; below 600 it is a mobile screen.
            height: Height of the screen, px.
            dark: True for the dark colour scheme.
        """
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.page.goto(page.resolve().as_uri())

    def evaluate(self, script: str) -> Any:
        """Run a script in the page and return its value."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")
