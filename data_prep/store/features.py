"""A features folder: features of images that an encoder elsewhere computed, for `cxr train probe`.

The features are in a memory-mapped file. The module `evaluation.sources.feature_table`
reads them from a table and writes the folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Strict

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted, first_line
from cxr_compare.data_prep.contracts.provenance import MadeRecord
from cxr_compare.data_prep.contracts.records import Digests, Record, Whole
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.data_prep.store.pixel_store import pixels_checksum
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.prediction_info import MadeOn

FEATURES_FILE = "features.npy"
"""Features, float32 (images, cells, channels), cells row by row."""
FEATURE_INDEX = "feature_index.parquet"
"""Table of the image, checksum and, for a grid, the position of each row."""
FEATURES_RECORD = "features.json"
"""File that marks a features folder complete."""


class EncoderInfo(Record):
    """The pretrained network with which another program computed features of images.

    Attributes:
        name: Name of the network.
        revision: Version or commit of its published weights.
        licence: Licence of the weights, such as ``MIT``.
    """

    name: str
    revision: str
    licence: str


class FeaturesInfo(MadeRecord, kind="features"):
    """Content of ``features.json``, which marks a folder of image features as complete.

    Attributes:
        encoder: Network that computed the features.
        n_images: Number of images with features.
        channels: Number of features of a whole image, or of each cell of its grid.
        grid: Number of rows and of columns of cells; 1 and 1 for features of whole images.
        features_id: Digest of the stored features.
        imported_from: Name of the table of features.
        data_set: Data set that the images belong to.
        files: SHA-256 of the table in the folder, by file name.
    """

    encoder: EncoderInfo
    n_images: Whole
    channels: Whole
    grid: Annotated[tuple[Whole, Whole], Strict(False)]
    features_id: str
    imported_from: str
    data_set: MadeOn
    files: Digests


@dataclass(eq=False, repr=False)
class Features:
    """Features that a pretrained encoder computed of the images of a data set.

    The encoder ran in another program; `Features.open` opens the folder with its output. The class
    has the methods of a pixel store (stored resized images), so that a model reads features in
    place of pixels: `image` gives the features of an image.

    Attributes:
        folder: Folder of the features.
        info: Content of the file ``features.json`` in the folder.
        size: Side of the square that the grid of features of an image fills, always 1. Positions of
            cells are therefore shares of this side, not px.
    """

    folder: Path
    info: FeaturesInfo
    size: int = 1

    @classmethod
    def open(cls, folder: str | Path) -> Features:
        """Open a complete folder of image features.

        Args:
            folder: Path of the folder.

        Raises:
            InputError: The folder is of another kind, or is damaged.
        """
        folder = Path(folder)
        require_kind(folder, "features")
        features = cls(folder, FeaturesInfo.read(folder / FEATURES_RECORD))
        features._require_whole()
        return features

    def __repr__(self) -> str:
        return f"<Features of {self.encoder['name']}: {self._summary}, {self.folder}>"

    def __str__(self) -> str:
        """Summary: the encoder, and the numbers of images and features."""
        encoder = self.encoder
        origin = f"{encoder['name']}, revision {encoder['revision']}, licence {encoder['licence']}"
        return f"Features of {origin}: {self._summary}\nFolder:   {self.folder}"

    @property
    def _summary(self) -> str:
        rows, columns = self.grid
        cells = f", {rows} x {columns} cells" if self.has_grid else ""
        return f"{counted(len(self.ids), 'image')}, {counted(self.channels, 'feature')}{cells}"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``features.json``."""
        return self.info.to_json()

    @property
    def encoder(self) -> dict[str, str]:
        """Name, revision and licence of the encoder."""
        return self.info.encoder.to_json()

    @property
    def features_id(self) -> str:
        """Digest of the stored features and of the ids of their images."""
        return self.info.features_id

    @property
    def channels(self) -> int:
        """Number of features of a whole image, or of each cell of an image's grid."""
        return self.info.channels

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the grid of features; (1, 1) for features of the whole image."""
        return self.info.grid

    @property
    def has_grid(self) -> bool:
        """True if the features form a grid of more than one cell."""
        return max(self.grid) > 1

    @cached_property
    def index(self) -> pd.DataFrame:
        """Table with one row for each stored image, in the order of the feature array.

        It has the id and the checksum of the features. If the grid covers only a part of each image
        or more than the image, it also has the edges ``x1, y1, x2, y2`` of this area, px of the
        original image.
        """
        return read_table(self.folder / FEATURE_INDEX, "feature_index", files=self.info.files)

    @cached_property
    def ids(self) -> pd.Index:
        """Ids of the images."""
        return pd.Index(self.index["image_id"], name="image_id")

    def image(self, image_id: str) -> np.ndarray:
        """Return the features of an image, float32 (C, h, w).

        Args:
            image_id: Id of the image.

        Returns:
            Array of the C features in each of h x w cells.

        Raises:
            InputError: There is no such image, or its features are damaged.
        """
        row = self._row_of(image_id)
        cells = self._values[row]  # (cells, C)
        if pixels_checksum(cells) != self._checksums[row]:
            raise InputError(
                f"{self.folder / FEATURES_FILE}: the features of image '{image_id}' are not as "
                f"they were written; remove {self.folder} and run cxr import again"
            )
        return np.ascontiguousarray(cells.T).reshape(-1, *self.grid)

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in the square of side 1 that its grid fills.

        Args:
            image_id: Id of the image.

        Raises:
            InputError: There is no such image.
        """
        if self._frames is None:
            return Placement(1.0, 1.0, 0.0, 0.0)
        x1, y1, x2, y2 = self._frames[self._row_of(image_id)].tolist()
        scale_x = 1 / (x2 - x1)
        scale_y = 1 / (y2 - y1)
        return Placement(scale_x, scale_y, -x1 * scale_x, -y1 * scale_y)

    def require(self, content_id: str, image_ids: pd.Index) -> None:
        """Check that the features belong to a given data set and include some of its images.

        Args:
            content_id: Digest of the images of that data set (``DataSet.ids.content_id``).
            image_ids: Ids of the images whose features are needed.

        Raises:
            InputError: The features belong to another data set, or those of an image are missing.
        """
        own = self.info.data_set
        if own.content_id != content_id:
            raise InputError(
                f"{self.folder}: holds features of the images of {own.name}, another data set; "
                "run cxr import on features of this one"
            )
        missing = image_ids.difference(self.ids)
        if len(missing):
            raise InputError(
                f"{self.folder}: has no features of image {missing[0]!r} ({len(missing)} of "
                f"{len(image_ids)} are missing); add them to the table, and run cxr import again"
            )

    @cached_property
    def _values(self) -> np.ndarray:
        return np.asarray(np.load(self.folder / FEATURES_FILE, mmap_mode="r"))

    @cached_property
    def _row_by_id(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.ids)}

    @cached_property
    def _checksums(self) -> list[int]:
        return self.index["features_hash"].tolist()

    @cached_property
    def _frames(self) -> np.ndarray | None:
        return self.index[list(EDGES)].to_numpy() if "x1" in self.index else None

    def _row_of(self, image_id: str) -> int:
        try:
            return self._row_by_id[image_id]
        except KeyError:
            raise InputError(f"{self.folder}: has no features of image '{image_id}'") from None

    def _require_whole(self) -> None:
        expected = (len(self.index), self.grid[0] * self.grid[1], self.channels)
        path = self.folder / FEATURES_FILE
        try:
            values = self._values
        except (OSError, ValueError, EOFError) as error:
            reason = f"cannot be read ({first_line(error)})"
        else:
            if values.shape == expected and values.dtype == np.float32:
                return
            reason = f"holds {values.dtype} {values.shape}, expected float32 {expected}"
        raise InputError(f"{path}: {reason}; remove {self.folder} and run cxr import again")
