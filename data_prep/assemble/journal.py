"""Journal of decoded images, by which an interrupted call decodes no image twice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.checksums import remake_instruction
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.data_prep.contracts.schemas import SCHEMAS
from cxr_compare.data_prep.contracts.tables import column_dtype
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.store.pixel_store_writer import PixelStoreWriter

ROWS_PER_PART = 256
"""Number of images in a part file."""
_MEASURED = (
    "file_sha256",
    "height",
    "width",
    "spacing_row_mm",
    "spacing_col_mm",
    "view",
    "sex",
    "age_years",
)
_OUTCOME_TYPES: dict[str, Any] = {
    **{name: column_dtype(column) for name, column in SCHEMAS["decode"].columns.items()},
    **{name: column_dtype(SCHEMAS["images"].columns[name]) for name in _MEASURED},
    "inverted": "boolean",  # missing for an image that was not decoded
    "file_mtime_ns": "Int64",
    **dict.fromkeys(("error_stage", "error"), TEXT),
}


class Journal:
    """Files with the facts of images that were decoded so far, for an unfinished data set.

    An interrupted call reads them and continues without decoding an image twice. Each file holds
    many images and appears only when it is complete.

    Args:
        folder: Folder of these files. It is made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self._rows: list[dict[str, Any]] = []
        self._parts = len(list(self.folder.glob("part-*.parquet")))

    def add(self, outcome: dict[str, Any], stores: Iterable[PixelStoreWriter]) -> None:
        """Add the facts of one decoded image; write a file when 256 images have been added.

        Args:
            outcome: Dictionary from `complete.journal_row`.
            stores: Writers of resized images (pixel stores), one for each size, to which the image
                was added. Their images are written to the disk before the file with the facts.
        """
        self._rows.append(outcome)
        if len(self._rows) >= ROWS_PER_PART:
            self.flush(stores)

    def flush(self, stores: Iterable[PixelStoreWriter]) -> None:
        """Write facts that are still in memory to a file, after the resized images of all stores.

        Args:
            stores: Writers of resized images (pixel stores), one for each size. Their images are
                written to the disk first.
        """
        if not self._rows:
            return
        for store in stores:  # a part file guarantees that its pixels are stored
            store.commit()
        rows = typed_rows(pd.DataFrame(self._rows, dtype=object))
        path = self.folder / f"part-{self._parts:06d}.parquet"
        with atomic_path(path) as temporary:
            rows.to_parquet(temporary, compression="zstd", write_page_checksum=True)
        self._parts += 1
        self._rows = []

    def read(self) -> pd.DataFrame:
        """Return the facts of all images that were decoded so far, as a table with a row for each.

        If an image was decoded more than once, its latest facts count.
        """
        parts = []
        for path in sorted(self.folder.glob("part-*.parquet")):
            try:
                parts.append(pd.read_parquet(path, page_checksum_verification=True))
            except Exception as error:  # noqa: BLE001 - damaged metadata raise all kinds
                raise InputError(
                    f"{path}: cannot be read as a table ({first_line(error)}); "
                    f"{remake_instruction('decode')}"
                ) from None
        if not parts:
            return typed_rows(pd.DataFrame({"image_id": []}))
        rows = typed_rows(pd.concat(parts, ignore_index=True))
        return rows.drop_duplicates("image_id", keep="last", ignore_index=True)


def typed_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert a table of facts of decoded images to the types of its columns.

    The rows must have the dtype object. Through float64, a time in nanoseconds would lose digits.

    Args:
        frame: Rows from `complete.journal_row`, all of dtype object.

    Returns:
        A table of the same rows in which each column has its own type: numbers, texts and flags.
    """
    return frame.reindex(columns=list(_OUTCOME_TYPES)).astype(_OUTCOME_TYPES)
