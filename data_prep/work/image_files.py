"""Image files, of which the SHA-256 is checked before they are read."""

from __future__ import annotations

from pathlib import Path

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import MAX_FILE_BYTES


def require_image_checksum(path: Path, sha256: str | None) -> None:
    """Check that an image file has the SHA-256 that its data set recorded; None accepts any file.

    It prevents that the paths and links in a stranger's data set give access to other files of this
    machine. A missing or too large file is refused by the code that reads it.
    """
    if sha256 is None or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        return
    if file_digest(path, "sha256") != sha256:
        raise InputError(
            f"{path}: is not the file that the data set was made of (its SHA-256 is not the one "
            "in images.parquet); bring it back, or remove the data set and run cxr prepare again"
        )
