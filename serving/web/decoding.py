"""An upload as an image, in this process."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_prep.contracts.errors import InputError
from data_prep.images.image import DecodedImage, read_image
from serving.guard import file_warnings


class Refused(Exception):  # noqa: N818 - an outcome, not a fault
    """A request that gets no answer.

    Attributes:
        status: Of HTTP.
        code: For programs.
        message: For people: one line that says what to do.
        headers: Of the response.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Decoded:
    """An upload that was read.

    Attributes:
        image: What it shows.
        format: ``DICOM``, ``PNG``, ``JPEG`` or ``TIFF``.
        bits: Of a stored value.
        warnings: What `serving.guard.file_warnings` says of it.
    """

    image: DecodedImage
    format: str
    bits: int
    warnings: tuple[str, ...]


class PlainDecoder:
    """Decodes in a thread of this process."""

    async def decode(self, content: bytes) -> Decoded:
        """Read an upload.

        Raises:
            Refused: It is no image that can be read.
        """
        return await asyncio.to_thread(_decode, content)


def _decode(content: bytes) -> Decoded:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(content)
        try:
            image = read_image(path)
            warnings = file_warnings(path, image)
        except InputError as error:
            message = str(error).removeprefix(f"{path}: ")
            raise Refused(422, "unreadable", message) from None
    decoder = str(image.record["decoder"] or "")
    kind = decoder.removeprefix("pillow-").upper() if decoder.startswith("pillow-") else "DICOM"
    return Decoded(image, kind, int(image.record["bits"] or 8), warnings)
