"""Background of a comparison: the data set, its audit, and what systems were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from cxr_compare.evaluation.compare.evaluated_models import Models
from cxr_compare.evaluation.decisions.ground_truth import GroundTruth


@dataclass(frozen=True)
class Background:
    """Facts about the data behind a comparison.

    Attributes:
        data_name: Name of the data set that the systems are evaluated on.
        synthetic: Number of evaluated images that are synthetic.
        audit: Errors that ``cxr check`` found, in the whole set or in the split under evaluation;
            `None` if that split was not checked.
        elsewhere: Other data sets that each system was trained on; a system without any is absent.
    """

    data_name: str = ""
    synthetic: int = 0
    audit: tuple[str, ...] | None = None
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def from_truth(cls, truth: GroundTruth, image_ids: pd.Index, models: Models) -> Background:
        """Collect what ground truth and systems say; the audit is added by its reader.

        Args:
            truth: Ground truth.
            image_ids: The evaluated images.
            models: Trained models of each system.
        """
        content_id = truth.ids.get("content_id")
        elsewhere = {}
        for system, members in models.items():
            names = [
                name
                for model in members
                for name, trained_on in model.system.facts.trained_on
                if trained_on != content_id
            ]
            if names:
                elsewhere[system] = tuple(dict.fromkeys(names))
        return cls(
            data_name=truth.data_name,
            synthetic=len(image_ids.intersection(truth.synthetic)),
            elsewhere=elsewhere,
        )

    @property
    def audit_text(self) -> str:
        """Result of the audit about the roles of patients and images, in words."""
        if self.audit is None:
            return "whether each patient has one role was not checked (run cxr check)"
        if not self.audit:
            return "each patient has one role (cxr check found no error)"
        return f"the audit found errors: {'; '.join(self.audit)}"
