"""Background of a comparison: the data set, its audit, and the training data of the systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cxr_compare.evaluation.evaluated_model import Models
from cxr_compare.evaluation.labelled_images import LabelledImages


@dataclass(frozen=True)
class Background:
    """Facts about the data and the training behind a comparison, for its report.

    Attributes:
        data_name: Name of the data set on which the systems are evaluated; empty if there is none.
        synthetic: Number of evaluated images that were drawn by a program and are no radiographs.
        audit: Errors that the command ``cxr check`` found in the whole data set or in its division
            into training, validation and test images; empty if it found none, and `None` if nothing
            was checked.
        elsewhere: Names of the data sets on which each system was trained, other than the evaluated
            one, by the name of the system. A data set with the name `data_name` but other images is
            listed, too. Systems that were trained on the evaluated data set only are absent.

    Example:
        >>> Background("RSNA", synthetic=12).synthetic
        12
    """

    data_name: str = ""
    synthetic: int = 0
    audit: tuple[str, ...] | None = None
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def from_images(
        cls,
        images: LabelledImages,
        models: Models,
        audit: Sequence[str] | None = None,
    ) -> Background:
        """Collect the facts that the labelled images and the systems state.

        Args:
            images: Labels, patients, true boxes and roles of all images.
            models: Evaluated models of each system by its display name, one for each training seed.
            audit: Errors that ``cxr check`` found; None if nothing was checked.
        """
        content_id = images.ids.get("content_id")
        elsewhere = {}
        for system, members in models.items():
            names = [
                name
                for model in members
                for name, trained_on in model.facts.trained_on
                if trained_on != content_id
            ]
            if names:
                elsewhere[system] = tuple(dict.fromkeys(names))
        return cls(
            data_name=images.data_name,
            synthetic=len(images.test.image_ids.intersection(images.synthetic)),
            audit=None if audit is None else tuple(audit),
            elsewhere=elsewhere,
        )
