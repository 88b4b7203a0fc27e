"""The files that a server gives away, from lists that are made when it starts."""

from __future__ import annotations

from pathlib import Path

from fastapi.responses import FileResponse, Response

from serving.web.schemas import Refused

_PAGE = Path(__file__).with_name("page")
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".dcm": "application/dicom",
}
_OF_REPORT = frozenset(_KINDS) - {".dcm", ".json"}
# Its scripts and styles stand in its pages; they reach no address, this server's neither.
_REPORT_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class Files:
    """Files by the name that clients give; a name that is not in a list leads nowhere."""

    def __init__(self, examples: Path | None, report: Path | None) -> None:
        self._page = _listed(_PAGE, deep=False)
        self._examples = _listed(examples or _PAGE / "examples", deep=False)
        self._report = {} if report is None else _listed(report, deep=True)

    @property
    def examples(self) -> list[str]:
        """Names of the example images."""
        return list(self._examples)

    def page(self, name: str) -> Response:
        """A file of the page."""
        return _file(self._page, name)

    def example(self, name: str) -> Response:
        """An example image."""
        return _file(self._examples, name)

    def report(self, name: str) -> Response:
        """A file of the report."""
        response = _file(self._report, name)
        response.headers["Content-Security-Policy"] = _REPORT_POLICY
        return response


def _listed(folder: Path, *, deep: bool) -> dict[str, Path]:
    """The files of a folder that may be given away, by their path in it."""
    root = folder.resolve()
    return {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*") if deep else root.glob("*"))
        if path.is_file()
        and path.suffix in (_OF_REPORT if deep else _KINDS)
        and path.resolve().is_relative_to(root)
    }


def _file(listed: dict[str, Path], name: str) -> Response:
    path = listed.get(name)
    if path is None:
        raise Refused(404, "not_found", "there is nothing here")
    return FileResponse(path, media_type=_KINDS[path.suffix])
