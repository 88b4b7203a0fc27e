"""Images that a training has seen, under their own ids or as copies under other ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pandas as pd

from cxr_compare.data_prep.base.errors import counted
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.tables import FINGERPRINTS
from cxr_compare.data_prep.copies import (
    TRUSTED_DISTANCE,
    copy_keys,
    find_copies,
    hash_words,
    turned_distances,
)


class SeenImage(NamedTuple):
    """The use that the training of a model made of an image."""

    role: Literal["train", "val"]
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
        lines = []
        kinds = {"has seen": self.equal, "may have seen near copies of": self.near}
        for verb, copies in kinds.items():
            examples = [f"{image} = {seen}" for image, seen in copies.iloc[:2].items()]
            examples += ["..."] if len(copies) > 2 else []
            if len(copies):
                lines.append(
                    f"{system} {verb} {len(copies)} of {counted(self.n_images, 'test image')} in "
                    f"training under other ids ({', '.join(examples)})"
                )
        return lines


class SeenImages:
    """The table of images that a training run has stored: ids, patients, roles, fingerprints."""

    def __init__(self, seen: pd.DataFrame) -> None:
        columns = ["image_id", "role", *FINGERPRINTS]
        self._seen = seen
        # "train" comes first: it counts if equal images have both roles.
        fingerprinted = seen.reindex(columns=columns).dropna(subset="pixel_sha256")
        fingerprinted = fingerprinted.sort_values("role", kind="stable")
        self._known: Any = fingerprinted.drop_duplicates("pixel_sha256").set_index("pixel_sha256")
        hashes = self._known.dropna(subset="perceptual_hash")
        self._roles = hashes["role"].to_numpy()
        self._words = hash_words(hashes["perceptual_hash"])

    @property
    def has_pixels(self) -> bool:
        """True if the digest of the pixels of any image is known."""
        return not self._known.empty

    def among(self, images: pd.DataFrame) -> SeenAmong:
        """Compare images (ids, patients, fingerprints) with those of the training."""
        has_seen_id = is_member(images["image_id"], self._seen["image_id"])
        is_seen = has_seen_id | is_member(images["patient_id"], self._seen["patient_id"])
        others = images[~has_seen_id].reindex(columns=["image_id", *FINGERPRINTS])
        others = others.set_index("image_id").dropna(subset="pixel_sha256")
        equal = others["pixel_sha256"].map(self._known["image_id"]).dropna()
        sides = {"0": self._known.reset_index(), "1": others.drop(equal.index).reset_index()}
        both = pd.concat([t.assign(image_id=side + t["image_id"]) for side, t in sides.items()])
        keys = copy_keys(both, find_copies(both))  # a copy of a copy is one, too
        is_new = keys.index.str[0] == "1"
        seen = keys[~is_new].drop_duplicates()
        near = keys[is_new].map(pd.Series(seen.index.str[1:], seen.array)).dropna()
        near.index = near.index.str[1:]
        return SeenAmong(len(images), pd.Index(images.loc[is_seen, "image_id"]), equal, near)

    def find(self, pixel_sha256: str, perceptual_hash: str | None) -> SeenImage | None:
        """Return the use that the training made of one image; None if it did not use the image."""
        if pixel_sha256 in self._known.index:
            return SeenImage(self._known.at[pixel_sha256, "role"], is_near=False)
        if perceptual_hash is None:
            return None
        words = hash_words(pd.Series([perceptual_hash]))
        near = self._roles[turned_distances(self._words ^ words)[0] <= TRUSTED_DISTANCE]
        return SeenImage(min(near), is_near=True) if len(near) else None
