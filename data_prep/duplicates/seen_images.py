"""Images that a training has seen, itself or as a copy under another id."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.schemas import FINGERPRINTS
from cxr_compare.data_prep.duplicates.near_duplicates import find_near_duplicates

_EXAMPLES = 2


@dataclass(frozen=True)
class SeenImages:
    """Those of some images that a training has seen, itself or under another name.

    Its pixels are not at hand: near copies are told by fingerprint alone.
    """

    n_images: int  # that were looked for
    known: pd.Index  # whose id, or whose patient, was seen
    same: pd.Series  # equal pixel for pixel to an image of another id: that id, by image id
    near: pd.Series  # fingerprint within `TRUSTED_DISTANCE` of one of another id: that id

    @classmethod
    def among(cls, images: pd.DataFrame, seen: pd.DataFrame) -> SeenImages:
        """Look for images among those seen; without fingerprints no copy is found.

        Args:
            images: ``image_id``, ``patient_id`` and `FINGERPRINTS`, where known.
            seen: The same columns.
        """
        named = images["image_id"].isin(seen["image_id"])
        known = images.loc[named | images["patient_id"].isin(seen["patient_id"]), "image_id"]
        columns = ["image_id", *FINGERPRINTS]
        renamed, seen = (
            table.reindex(columns=columns).dropna(subset="pixel_sha256")
            for table in (images[~named], seen)
        )
        equal = seen.drop_duplicates("pixel_sha256").set_index("pixel_sha256")["image_id"]
        same = renamed.set_index("image_id")["pixel_sha256"].map(equal).dropna()
        near = _near_seen(renamed[~renamed["image_id"].isin(same.index)], seen)
        return cls(len(images), pd.Index(known), same, near)

    @property
    def all_ids(self) -> pd.Index:
        """All images that it has seen or that are copies of those."""
        return self.known.union(self.same.index).union(self.near.index)

    def copy_lines(self, system: str) -> list[str]:
        """How many test images are copies, with examples: equal ones first; none without any."""
        of_all = f"of {counted(self.n_images, 'test image')} in training under other names"
        lines = []
        for said, copies in (("has seen", self.same), ("may have seen near copies of", self.near)):
            shown = [f"{image} = {seen}" for image, seen in copies.iloc[:_EXAMPLES].items()]
            more = ["..."] * (len(copies) > _EXAMPLES)
            if shown:
                lines.append(f"{system} {said} {len(copies)} {of_all} ({', '.join(shown + more)})")
        return lines


def _near_seen(images: pd.DataFrame, seen: pd.DataFrame) -> pd.Series:
    """The image seen that each is a copy of, by fingerprint; tables of `FINGERPRINTS`."""
    if images.empty or seen.empty:
        return images.set_index("image_id")["pixel_sha256"][:0]
    sides = [
        table.assign(image_id=side + table["image_id"])
        for side, table in (("0", seen), ("1", images))
    ]
    groups = find_near_duplicates(pd.concat(sides, ignore_index=True)).groups
    ids = groups["image_id"].str[1:]
    own = groups["image_id"].str[0] == "1"
    copied = groups["group"].map(ids[~own].groupby(groups["group"]).first())
    return copied[own].set_axis(ids[own]).dropna().sort_index()
