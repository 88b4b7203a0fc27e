"""How many boxes a training lost to augmentation, and why."""

from __future__ import annotations

from typing import NamedTuple


class DroppedBoxes(NamedTuple):
    """Boxes that were given to an augmentation, and those of them that did not come back.

    Attributes:
        given: Boxes that went in.
        outside: Too little of them was left in the picture, or in their part of a mosaic.
        small: A side became shorter than 2 px.
        covered: A cutout hid most of them.
    """

    given: int = 0
    outside: int = 0
    small: int = 0
    covered: int = 0

    def plus(self, other: DroppedBoxes) -> DroppedBoxes:
        """Both together.

        Example:
            >>> DroppedBoxes(3, small=1).plus(DroppedBoxes(2, outside=1))
            DroppedBoxes(given=5, outside=1, small=1, covered=0)
        """
        return DroppedBoxes(*(mine + its for mine, its in zip(self, other, strict=True)))

    @property
    def total(self) -> int:
        """Boxes that were dropped, for whatever reason."""
        return self.outside + self.small + self.covered

    def sentence(self) -> str:
        """The counts in words.

        Example:
            >>> DroppedBoxes(3400, outside=9, small=3).sentence()
            'dropped 12 of 3,400 boxes: out of the picture 9, under 2 px 3'
            >>> DroppedBoxes(40).sentence()
            'dropped none of 40 boxes'
        """
        reasons = {
            "out of the picture": self.outside,
            "under 2 px": self.small,
            "covered": self.covered,
        }
        if not self.total:
            return f"dropped none of {self.given:,} boxes"
        named = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items() if count)
        return f"dropped {self.total:,} of {self.given:,} boxes: {named}"


NONE_DROPPED = DroppedBoxes()
"""Where there was nothing to drop."""
