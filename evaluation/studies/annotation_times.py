"""Seconds that annotation takes, as published measurements or as the user states them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Seconds that a person needs to label one image and to draw one box.

    Attributes:
        label: Seconds for the label of an image (disease present or not).
        box: Seconds for drawing one box around a lesion, in addition to the label of its image.
        name: Name of this pair of times, shown on a button of the result page.
        sources: Texts that say where the time of a label and the time of a box come from; empty if
            not stated.

    Example:
        >>> Times(label=2.0, box=10.0).hours(n_images=1800, n_boxes=0)
        1.0
    """

    label: float
    box: float
    name: str = "as given"
    sources: tuple[str, ...] = ()

    @classmethod
    def from_seconds(cls, label: float | None, box: float | None) -> Times:
        """Make annotation times from seconds that a user states; published values fill the gaps.

        The published values (the preset) fill in what the user does not state.

        Args:
            label: Seconds for the label of an image; None takes the published value, 14.8.
            box: Seconds for a box; None takes the published value, 34.5.

        Returns:
            The times with their sources.

        Example:
            >>> Times.from_seconds(None, 10.0).box
            10.0
        """
        usual = PRESETS[0]
        if label is None and box is None:
            return usual
        sources = tuple(
            source if time is None else AS_GIVEN
            for time, source in zip((label, box), usual.sources, strict=True)
        )
        label = usual.label if label is None else label
        return cls(label, usual.box if box is None else box, sources=sources)

    def hours(self, n_images: float, n_boxes: float) -> float:
        """Return the hours that a number of labels and a number of boxes take.

        Args:
            n_images: Number of labelled images.
            n_boxes: Number of drawn boxes.

        Returns:
            Hours of annotation.

        Example:
            >>> Times(1.0, 10.0).hours(3600, 360)
            2.0
        """
        return (self.label * n_images + self.box * n_boxes) / 3600


_READING = (
    "14.8 s a label: from opening a chest radiograph to its report without AI, mean of 11 "
    "radiologists (Shin et al. 2023). A report is more than a label."
)


AS_GIVEN = "As given to the command."
"""Text that names the user as the source of a time."""


_NOT_RADIOLOGISTS = "crowd workers on photographs, not radiologists"


PRESETS = (
    Times(
        14.8,
        34.5,
        "reading and drawn boxes",
        (
            _READING,
            "34.5 s a box: 25.5 s to draw and 9.0 s to check it, medians (Su, Deng and "
            f"Fei-Fei 2012, as Papadopoulos et al. 2017 sum them up); {_NOT_RADIOLOGISTS}.",
        ),
    ),
    Times(
        14.8,
        7.0,
        "reading and quick boxes",
        (
            _READING,
            "7.0 s a box: clicks on the four outermost points of an object (Papadopoulos "
            f"et al. 2017, extreme clicking); {_NOT_RADIOLOGISTS}.",
        ),
    ),
    Times(
        1.0,
        42.0,
        "crowd workers",
        (
            "1 s a label: one class of one image, from 20 s for 20 classes (Bearman et al. 2016); "
            f"{_NOT_RADIOLOGISTS}.",
            "42 s a box: drawn, checked, and checked that none is missing (Su, Deng and Fei-Fei "
            f"2012, as Papadopoulos et al. 2016 sum them up); {_NOT_RADIOLOGISTS}.",
        ),
    ),
)
"""Published times; a user should replace them by own measurements. The first is the default."""
