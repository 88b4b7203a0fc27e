"""AUROC of a trained system, against chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.statistics.figure_text import range_text

CHANCE = 0.5
"""AUROC of a system that guesses."""


@dataclass(frozen=True)
class MeasuredAuroc:
    """AUROC of a trained system on images that it did not learn from, with its 95 % interval.

    The interval is None where there is none. `images` is ``test`` for the test images of a report,
    and ``validation`` for those that chose the system's threshold.
    """

    estimate: float
    ci_low: float | None
    ci_high: float | None
    images: Literal["test", "validation"]
    n_images: int | None

    @property
    def better_than_chance(self) -> bool:
        """True if the whole interval lies above 0.5, the AUROC of guesses; False if unknown."""
        return self.ci_low is not None and self.ci_low > CHANCE

    def caution(self, system: str) -> str | None:
        """Return a sentence for a system that was not shown to be better than chance.

        It has no full stop. The result is None if the whole interval lies above 0.5.

        Example:
            >>> MeasuredAuroc(0.52, 0.43, 0.61, "validation", 68).caution("RetinaNet")
            'RetinaNet was not shown to be better than guessing: AUROC 0.52 (95 % interval 0.43 to \
0.61) on 68 validation images'
        """
        if self.better_than_chance:
            return None
        interval = "no interval"
        if self.ci_low is not None and self.ci_high is not None:
            interval = f"95 % interval {range_text(self.ci_low, self.ci_high, digits=2)}"
        kind = f"{self.images} image"
        images = f"{kind}s" if self.n_images is None else counted(self.n_images, kind)
        return (
            f"{system} was not shown to be better than guessing: AUROC {self.estimate:.2f} "
            f"({interval}) on {images}"
        )
