"""One trained model with what its decision adds to its scorecard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.decision import Decision
from evaluation.statistics.ranking import Floats


@dataclass(frozen=True)
class JudgedModel:
    """A trained model on the judged images.

    Attributes:
        card: Its figures on the judged images.
        box_cut: Score from which its boxes are called; `None`: they are not called.
        probability: Calibrated on validation, shape ``(N,)``; `None` where it was not.
    """

    card: Scorecard
    box_cut: float | None
    probability: Floats | None

    @classmethod
    def of(cls, card: Scorecard, decision: Decision) -> JudgedModel:
        """A model's scorecard and decision."""
        scores = pd.Series(card.scores, index=card.judged.image_ids)
        probability = decision.probability(scores)
        known = None if probability is None else np.asarray(probability, dtype=np.float64)
        return cls(card, decision.box_cut, known)
