"""Images that a training has seen, under their own ids or as copies under other ids."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.schemas import FINGERPRINTS
from cxr_compare.data_prep.duplicates.near_duplicates import find_near_duplicates

_EXAMPLES = 2


@dataclass(frozen=True)
class SeenImages:
    """Images that a training has seen, under their own ids or as copies under other ids.

    The pixels of the training images are not available here, so near copies are found by
    fingerprint alone.

    Attributes:
        n_images: Number of images that were looked up.
        by_id: Ids of the images whose id or patient the training has seen.
        equal: Id of the training image that is equal pixel for pixel, by image id.
        near: Id of the training image whose fingerprint differs by at most `TRUSTED_DISTANCE` bits,
            by image id.

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
        """Look up images among those that a training has seen.

        Args:
            images: Table of the images to look up, with ``image_id``, ``patient_id`` and, if known,
                the columns `FINGERPRINTS`. Without fingerprints no copy is found.
            seen: Table of the training images with the same columns.
        """
        named = images["image_id"].isin(seen["image_id"])
        by_id = images.loc[named | images["patient_id"].isin(seen["patient_id"]), "image_id"]
        columns = ["image_id", *FINGERPRINTS]
        renamed, seen = (
            table.reindex(columns=columns).dropna(subset="pixel_sha256")
            for table in (images[~named], seen)
        )
        id_of_pixels = seen.drop_duplicates("pixel_sha256").set_index("pixel_sha256")["image_id"]
        equal = renamed.set_index("image_id")["pixel_sha256"].map(id_of_pixels).dropna()
        near = _near_seen(renamed[~renamed["image_id"].isin(equal.index)], seen)
        return cls(len(images), pd.Index(by_id), equal, near)

    @property
    def all_ids(self) -> pd.Index:
        """Ids of images that the training has seen, or that are copies of images it has seen."""
        return self.by_id.union(self.equal.index).union(self.near.index)

    def describe_copies(self, system: str) -> list[str]:
        """Return lines that say how many test images are copies of training images, with examples.

        Args:
            system: Name of the system that was trained.

        Returns:
            One line on equal copies and one on near copies. A line is missing if there are no such
            copies.
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
