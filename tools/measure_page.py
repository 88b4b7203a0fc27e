"""Measure a page in headless Chromium: screens, words shown, first image, printed pages, console.

    python tools/measure_page.py REPORT.html [--screens FOLDER]
    python tools/measure_page.py out/quickstart/report/report.html --opening docs/report.png
    python tools/measure_page.py http://127.0.0.1:8000/ --opening docs/serving.png

An address is the page of a running ``cxr serve``: its opening is its second example, analyzed. The
picture ``docs/serving.png`` is of the models of ``scripts/quickstart``. Start this server first:

    cxr serve out/quickstart/retinanet out/quickstart/chexnet --report out/quickstart/report

The example is a synthetic image, so that the picture may be published.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZES = ((1280, 900), (390, 844))  # CSS pixels: width, height of a screen
_READ = """(() => {
  const top = (node) => node.getBoundingClientRect().top + scrollY;
  const shown = (node) => node.getClientRects().length > 0;
  const words = (node) => node.innerText.split(/\\s+/).filter(Boolean).length;
  const image = [...document.querySelectorAll("img, svg image")].find(shown);
  return {
    height: document.documentElement.scrollHeight,
    wide: document.documentElement.scrollWidth,
    words: words(document.body),
    image: image ? top(image) : null,
    sections: Object.fromEntries([...document.querySelectorAll("header.page, main > *, footer")]
      .map((node) => [node.id || node.tagName.toLowerCase(),
        [node.getBoundingClientRect().height, words(node)]])),
  };
})()"""


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

    def text_of(self, address: str) -> str:
        """Return the HTML of a page after its scripts, which must write nothing to the console."""
        before = len(self.complaints)
        self.page.goto("about:blank")
        self.page.goto(address)
        assert self.complaints[before:] == []
        return self.page.content()

    def evaluate(self, script: str) -> Any:
        """Run a script in the page and return its value."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write the whole page as a PNG file."""
        self.page.screenshot(path=path, full_page=True)

    def opening(self, path: Path, section: str, *, wide: int = 1000) -> None:
        """Write the page down to the end of a section as a PNG file.

        Args:
            path: PNG file.
            section: CSS selector of the section.
            wide: Width of the picture, px.
        """
        end = f"document.querySelector('{section}').getBoundingClientRect().bottom + scrollY"
        clip = {
            "x": 0,
            "y": 0,
            "width": SIZES[0][0],
            "height": self.evaluate(end) + 16,
            "scale": wide / SIZES[0][0],
        }
        image = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(image["data"]))

    def example(self, address: str, path: Path) -> None:
        """Write a picture of the second example on the page of a server.

        Args:
            address: Address of the server.
            path: PNG file.
        """
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=1366,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.page.goto(address)
        button = "document.querySelector('#examples li:nth-child(2) button')"
        for wanted in (button, "document.querySelector('.pane:nth-child(2)')"):
            self.evaluate(f"""new Promise((done) => {{ const look = () =>
                {wanted} ? done() : setTimeout(look, 20); look(); }})""")
            if wanted == button:
                self.evaluate(f"{button}.click()")
        self.evaluate("new Promise((done) => setTimeout(done, 1000))")  # bars move for a moment
        image = self.call("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(image["data"]))

    def print_pdf(self) -> bytes:
        """Print the page on A4, with its own margins."""
        self.call("Emulation.clearDeviceMetricsOverride")
        answer = self.call(
            "Page.printToPDF",
            paperWidth=8.27,
            paperHeight=11.69,
            preferCSSPageSize=True,
            printBackground=True,
        )
        return base64.b64decode(answer["data"])


@dataclass(frozen=True)
class PageSize:
    """Sizes of a page.

    Attributes:
        screens: By width, the height of the page in screens.
        overflow: By width, pixels that stick out at the right.
        image: By width, the screen on which the first image begins; `None` without images.
        words: Shown at the first width: folded and hidden ones do not count.
        printed: Pages of A4.
        complaints: What the console said.
        sections: By width, section and then height in screens and words.
    """

    screens: dict[int, float]
    overflow: dict[int, int]
    image: dict[int, float | None]
    words: int
    printed: int
    complaints: list[str]
    sections: dict[int, dict[str, tuple[float, int]]]


def measure(browser: Browser, page: Path, screens: Path | None = None) -> PageSize:
    """Measure a page.

    Args:
        browser: Tab that loads the page.
        page: File of the page.
        screens: Folder for pictures and the printed page; None writes none.

    Returns:
        Sizes of the page.
    """
    read = {}
    for width, height in SIZES:
        for dark in (False, True) if screens else (False,):
            browser.open(page, width, height, dark=dark)
            if screens:
                scheme = "dark" if dark else "light"
                browser.screenshot(screens / f"{page.stem}-{width}-{scheme}.png")
        read[width] = (height, browser.evaluate(_READ))
    printed = browser.print_pdf()
    if screens:
        (screens / f"{page.stem}.pdf").write_bytes(printed)
    return PageSize(
        screens={width: round(each["height"] / high, 1) for width, (high, each) in read.items()},
        overflow={width: each["wide"] - width for width, (_, each) in read.items()},
        image={
            width: None if each["image"] is None else int(each["image"] // high) + 1
            for width, (high, each) in read.items()
        },
        words=read[SIZES[0][0]][1]["words"],
        printed=len(re.findall(rb"/Type\s*/Page\b", printed)),
        complaints=browser.complaints,
        sections={
            width: {
                name: (round(tall / high, 2), words)
                for name, (tall, words) in each["sections"].items()
            }
            for width, (high, each) in read.items()
        },
    )


def main() -> None:
    """Print the sizes of a page as JSON."""
    parser = argparse.ArgumentParser(description="Measure a page in headless Chromium.")
    parser.add_argument("page", help="HTML file, or the address of a running cxr serve.")
    parser.add_argument("--screens", type=Path, help="Folder for screenshots and the PDF.")
    parser.add_argument("--opening", type=Path, help="PNG file for the page's opening.")
    arguments = parser.parse_args()
    path = find_browser()
    if path is None:
        raise SystemExit("no Chromium on this machine")
    if arguments.screens:
        arguments.screens.mkdir(parents=True, exist_ok=True)
    with Browser(path) as browser:
        if arguments.page.startswith("http://"):
            if not arguments.opening:
                raise SystemExit("an address needs --opening")
            browser.example(arguments.page, arguments.opening)
            return
        page = Path(arguments.page)
        size = measure(browser, page, arguments.screens)
        if arguments.opening:
            browser.open(page, *SIZES[0])
            browser.opening(arguments.opening, "#examples")
    print(json.dumps(asdict(size), indent=1))


if __name__ == "__main__":
    main()
