"""Images that a training has seen, under their own ids or as copies under other ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import counted
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.tables import FINGERPRINTS
from cxr_compare.data_prep.copies import (
    TRUSTED_DISTANCE,
    find_copies,
    hashes_to_bytes,
    turned_distances,
)
from cxr_compare.data_prep.images.fingerprint import HASH_BITS, WORDS

SeenRole = Literal["train", "val"]
_ROLES: tuple[SeenRole, ...] = ("train", "val")  # the first one counts if copies have both


class SeenImage(NamedTuple):
    """The use that the training of a model made of an image."""

    role: SeenRole
    is_near: bool


@dataclass(frozen=True)
class SeenAmong:
    """Images of a data set that were in the training of a model, or are copies of such images.

    Attributes:
        n_images: Number of images that were compared.
        by_id: Ids that the training names, or whose patient it names.
        equal: Seen image by the id of an image with equal pixels.
        near: Seen image by the id of a near copy.
    """

    n_images: int
    by_id: pd.Index
    equal: pd.Series
    near: pd.Series

    @property
    def all_ids(self) -> pd.Index:
        """Ids of all images that the model was trained on, or that are copies of such images."""
        return self.by_id.union(self.equal.index).union(self.near.index)

    def describe_copies(self, system: str) -> list[str]:
        """Return sentences on how many test images are copies of training images."""
        where = f"of {counted(self.n_images, 'test image')} in training under other ids"
        kinds = (("has seen", self.equal), ("may have seen near copies of", self.near))
        lines = []
        for verb, copies in kinds:
            shown = [f"{image} = {seen}" for image, seen in copies.iloc[:2].items()]
            more = ["..."] if len(copies) > 2 else []
            if shown:
                examples = ", ".join([*shown, *more])
                lines.append(f"{system} {verb} {len(copies)} {where} ({examples})")
        return lines


class SeenImages:
    """The table of images that a training run has stored: ids, patients, roles, fingerprints."""

    def __init__(self, seen: pd.DataFrame) -> None:
        columns = ["image_id", "role", *FINGERPRINTS]
        self._seen = seen
        self._known = seen.reindex(columns=columns).dropna(subset="pixel_sha256")
        self._role_of_pixels: dict[str, SeenRole] = {}
        self._words_of_role: dict[SeenRole, np.ndarray] = {}
        for role in _ROLES:
            of_role = self._known[self._known["role"] == role]
            for digest in of_role["pixel_sha256"]:
                self._role_of_pixels.setdefault(str(digest), role)
            hashes = of_role["perceptual_hash"].dropna().astype(TEXT)
            whole = hashes[hashes.str.len() == HASH_BITS // 4]
            self._words_of_role[role] = _to_words(pd.Index(whole.unique()))

    @property
    def has_pixels(self) -> bool:
        """True if the digest of the pixels of any image is known."""
        return not self._known.empty

    def among(self, images: pd.DataFrame) -> SeenAmong:
        """Compare images (ids, patients, fingerprints) with those of the training."""
        named = is_member(images["image_id"], self._seen["image_id"])
        known = named | is_member(images["patient_id"], self._seen["patient_id"])
        columns = ["image_id", *FINGERPRINTS]
        others = images[~named].reindex(columns=columns).dropna(subset="pixel_sha256")
        by_pixels = self._known.drop_duplicates("pixel_sha256").set_index("pixel_sha256")
        equal = others.set_index("image_id")["pixel_sha256"].map(by_pixels["image_id"]).dropna()
        others = others[~is_member(others["image_id"], equal.index)]
        sides = [self._known.assign(image_id="0" + self._known["image_id"])]
        sides.append(others.assign(image_id="1" + others["image_id"]))
        pairs = find_copies(pd.concat(sides, ignore_index=True))
        pairs = pairs[pairs["image_id"].str[:1] != pairs["other_id"].str[:1]]
        near = pairs.drop_duplicates("other_id").set_index("other_id")["image_id"].str[1:]
        near.index = near.index.str[1:]
        return SeenAmong(len(images), pd.Index(images.loc[known, "image_id"]), equal, near)

    def find(self, pixel_sha256: str, perceptual_hash: str | None) -> SeenImage | None:
        """Return the use that the training made of one image; None if it did not use the image."""
        role = self._role_of_pixels.get(pixel_sha256)
        if role is not None:
            return SeenImage(role, is_near=False)
        if perceptual_hash is None:
            return None
        words = _to_words(pd.Index([perceptual_hash]))
        for role, seen_words in self._words_of_role.items():
            if (turned_distances(seen_words ^ words)[0] <= TRUSTED_DISTANCE).any():
                return SeenImage(role, is_near=True)
        return None


def _to_words(hashes: pd.Index) -> np.ndarray:
    """Return fingerprints in hexadecimal digits as words, uint64, shape ``(N, WORDS)``."""
    return np.ascontiguousarray(hashes_to_bytes(hashes)).view(np.uint64).reshape(-1, WORDS)
