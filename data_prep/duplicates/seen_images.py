"""Images that a training has seen, under their own ids or as copies under other ids.

`SeenImages` compares the images of a data set with them, `SeenLookup` a single image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import FINGERPRINTS
from cxr_compare.data_prep.duplicates.fingerprint_pairs import turned_distances
from cxr_compare.data_prep.duplicates.near_duplicates import (
    TRUSTED_DISTANCE,
    find_near_duplicates,
    hashes_to_bytes,
)
from cxr_compare.data_prep.images.fingerprint import HASH_BITS, WORDS

_EXAMPLES = 2
SeenRole = Literal["train", "val"]
_ROLES: tuple[SeenRole, ...] = ("train", "val")  # the first one counts if copies have both


@dataclass(frozen=True)
class SeenImages:
    """Images of a data set that were in the training of a model, or are copies of such images.

    The pixels of the training images are not available here, so copies that are not equal are found
    by fingerprint (256-bit perceptual hash) alone.

    Attributes:
        n_images: Number of images that were compared with the training images.
        by_id: Ids of the images whose image id or patient id is among those of training.
        equal: For images with equal pixels under another id: id of the training image, indexed by
            image id.
        near: For images with a similar fingerprint (at most `TRUSTED_DISTANCE` differing bits): id
            of the training image, indexed by image id.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p1", "p2"]})
        >>> SeenImages.from_tables(images, images.head(1)).by_id.tolist()
        ['a']
    """

    n_images: int
    by_id: pd.Index
    equal: pd.Series
    near: pd.Series

    @classmethod
    def from_tables(cls, images: pd.DataFrame, seen: pd.DataFrame) -> SeenImages:
        """Compare images with those on which a model was trained.

        Both tables have ``image_id``, ``patient_id`` and, if known, the columns `FINGERPRINTS`
        (digest of the pixels and perceptual hash), without which no copy is found.
        """
        named = is_member(images["image_id"], seen["image_id"])
        known = named | is_member(images["patient_id"], seen["patient_id"])
        by_id = images.loc[known, "image_id"]
        columns = ["image_id", *FINGERPRINTS]
        renamed, seen = (
            table.reindex(columns=columns).dropna(subset="pixel_sha256")
            for table in (images[~named], seen)
        )
        id_of_pixels = seen.drop_duplicates("pixel_sha256").set_index("pixel_sha256")["image_id"]
        equal = renamed.set_index("image_id")["pixel_sha256"].map(id_of_pixels).dropna()
        near = _near_seen(renamed[~is_member(renamed["image_id"], equal.index)], seen)
        return cls(len(images), pd.Index(by_id), equal, near)

    @property
    def all_ids(self) -> pd.Index:
        """Ids of all images that the model was trained on, or that are copies of such images."""
        return self.by_id.union(self.equal.index).union(self.near.index)

    def describe_copies(self, system: str) -> list[str]:
        """Return sentences on how many test images are copies of training images, with examples.

        There is one line on equal copies and one on similar copies; a line without any is left out.
        `system` names the trained model.
        """
        where = f"of {counted(self.n_images, 'test image')} in training under other ids"
        kinds = (("has seen", self.equal), ("may have seen near copies of", self.near))
        lines = []
        for verb, copies in kinds:
            if copies.empty:
                continue
            examples = [f"{image} = {seen}" for image, seen in copies.iloc[:_EXAMPLES].items()]
            if len(copies) > _EXAMPLES:
                examples.append("...")
            lines.append(f"{system} {verb} {len(copies)} {where} ({', '.join(examples)})")
        return lines


def _near_seen(images: pd.DataFrame, seen: pd.DataFrame) -> pd.Series:
    """Return the seen image that each image is a near copy of, by fingerprint."""
    if images.empty or seen.empty:
        return images.set_index("image_id")["pixel_sha256"][:0]
    sides = [
        table.assign(image_id=side + table["image_id"])
        for side, table in (("0", seen), ("1", images))
    ]
    groups = find_near_duplicates(pd.concat(sides, ignore_index=True)).groups
    ids = groups["image_id"].str[1:]
    is_new = groups["image_id"].str[0] == "1"
    copied = groups["group"].map(ids[~is_new].groupby(groups["group"]).first())
    return copied[is_new].set_axis(ids[is_new]).dropna().sort_index()


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

        The columns are ``role`` (``train`` or ``val``) and `FINGERPRINTS` (digest of the pixels and
        perceptual hash). Without fingerprints no image can be recognised, and the result is None.
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

        The digest of the decoded pixels is from `pixel_digest`. The perceptual hash has 64
        hexadecimal digits; it is None if the image has a single grey level.
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
