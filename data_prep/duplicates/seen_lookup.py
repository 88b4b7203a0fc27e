"""Lookup of single images among those that a training has seen, by their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.schemas import FINGERPRINTS
from cxr_compare.data_prep.duplicates.fingerprint_pairs import turned_distances
from cxr_compare.data_prep.duplicates.near_duplicates import TRUSTED_DISTANCE, hashes_to_bytes
from cxr_compare.data_prep.images.fingerprint import HASH_BITS, WORDS

SeenRole = Literal["train", "val"]
_ROLES: tuple[SeenRole, ...] = ("train", "val")  # the first one counts if copies have both


class SeenImage(NamedTuple):
    """The use that the training of a model made of an image.

    Attributes:
        role: ``train`` if the network learned from the image, ``val`` if the image served to select
            the weights and the threshold.
        is_near: False if the pixels equal those of the training image, True if it is a changed
            copy.
    """

    role: SeenRole
    is_near: bool


@dataclass(frozen=True)
class SeenLookup:
    """Lookup of single images among those that a model was trained or selected on.

    An image is found by its pixels: if they are equal, or if the image is a changed copy, that is,
    it was brightened, compressed, resized, mirrored, turned by 180 degrees or inverted. A changed
    copy is recognised if its fingerprint (256-bit perceptual hash) differs by at most
    `TRUSTED_DISTANCE` bits. Files are not compared, because equal files have equal pixels.

    Example:
        >>> row = {"image_id": "a", "role": "train", "pixel_sha256": "1", "perceptual_hash": None}
        >>> lookup = SeenLookup.from_table(pd.DataFrame([row]))
        >>> lookup.find("1", None)
        SeenImage(role='train', is_near=False)
        >>> lookup.find("2", None) is None
        True
    """

    _role_of_pixels: dict[str, SeenRole]
    # fingerprints of the seen images by role, uint64, shape `(N, WORDS)`
    _words_of_role: dict[SeenRole, np.ndarray]

    @classmethod
    def from_table(cls, seen: pd.DataFrame) -> SeenLookup | None:
        """Make the lookup from the table of images that a training run has stored.

        Args:
            seen: Table of the images, with ``role`` (``train`` or ``val``) and, in runs of newer
                versions, the columns `FINGERPRINTS` (digest of the pixels and perceptual hash).

        Returns:
            The lookup; None if the table has no fingerprints, so that no image can be recognised.
        """
        pixels_column, hash_column = FINGERPRINTS
        table = seen.reindex(columns=["role", *FINGERPRINTS]).dropna(subset=pixels_column)
        if table.empty:
            return None
        role_of_pixels: dict[str, SeenRole] = {}
        words_of_role = {}
        for role in _ROLES:
            of_role = table[table["role"] == role]
            for digest in of_role[pixels_column]:
                role_of_pixels.setdefault(str(digest), role)
            hashes = of_role[hash_column].dropna()
            whole = hashes[hashes.str.len() == HASH_BITS // 4]
            words_of_role[role] = _to_words(pd.Index(whole.unique()))
        return cls(role_of_pixels, words_of_role)

    def find(self, pixel_sha256: str, perceptual_hash: str | None) -> SeenImage | None:
        """Return the use that the training made of an image; None if it did not use the image.

        Args:
            pixel_sha256: Digest of the decoded pixels, from `pixel_digest`.
            perceptual_hash: Fingerprint from `perceptual_hash`, 64 hexadecimal digits; None if the
                image has a single grey level.
        """
        role = self._role_of_pixels.get(pixel_sha256)
        if role is not None:
            return SeenImage(role, is_near=False)
        if perceptual_hash is None:
            return None
        words = _to_words(pd.Index([perceptual_hash]))
        for role, seen_words in self._words_of_role.items():
            distances, _ = turned_distances(seen_words ^ words)
            if (distances <= TRUSTED_DISTANCE).any():
                return SeenImage(role, is_near=True)
        return None


def _to_words(hashes: pd.Index) -> np.ndarray:
    """Return fingerprints in hexadecimal digits as words, uint64, shape ``(N, WORDS)``."""
    return np.ascontiguousarray(hashes_to_bytes(hashes)).view(np.uint64).reshape(-1, WORDS)
