"""Protocol of a comparison: the question that it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxr_compare.data_prep.base.errors import InputError, Remedy, as_typed, nearest_name
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.policies import USUAL_POLICY, policy_text


@dataclass(frozen=True)
class Protocol:
    """Question of a comparison: which figure decides, and at which threshold.

    InputError if the metric is unknown or cannot decide alone which system is better.

    Attributes:
        metric: Short name of the primary figure, such as ``auroc``.
        policy: Policy of the threshold at which it is computed; empty without one.
        subgroups: Columns of the images, such as ``view``, by whose values figures are reported.
        margin: Difference in the primary figure by which a system may be lower than the reference;
            None if none was stated.
        chosen: True if the user names the metric.
    """

    metric: str = "auroc"
    policy: str = ""
    subgroups: tuple[str, ...] = ()
    margin: float | None = None
    chosen: bool = False

    def __post_init__(self) -> None:
        """Refuse a question that no figure can answer."""
        able = [name for name, metric in METRICS.items() if metric.alone]
        if isinstance(self.margin, bool) or not isinstance(self.margin, int | float | None):
            raise InputError(f"margin: {self.margin!r} is no number, such as 0.05")
        if self.margin is not None and not 0 < self.margin < 1:
            given = as_typed({"margin": self.margin})
            raise InputError(f"{given}: is not between 0 and 1, such as 0.05")
        if self.metric not in able:
            half = self.metric in METRICS and METRICS[self.metric].family == "decision"
            why = "is half of an operating point; take balanced_accuracy or f1" if half else ""
            given = as_typed({"metric": self.metric})
            raise InputError(f"{given}: {why or _unknown(self.metric, able)}")

    @classmethod
    def stated(
        cls, metric: str | None, policies: Sequence[str], subgroups: Sequence[str], margin: Any
    ) -> Protocol:
        """Return the protocol that options state; a figure at a threshold has the first policy."""
        name = cls.metric if metric is None else metric
        decides = name in METRICS and METRICS[name].family == "decision"
        policy = [*policies, USUAL_POLICY][0] if decides else ""
        return cls(name, policy, tuple(subgroups), margin, metric is not None)

    @property
    def key(self) -> tuple[str, str]:
        """Metric of the primary figure, and its policy."""
        return self.metric, self.policy

    @property
    def title(self) -> str:
        """Name of the primary figure with its threshold, as it stands inside a sentence."""
        at = f" at the threshold for {policy_text(self.policy)}" if self.policy else ""
        return METRICS[self.metric].inside + at

    def require_one(self, primary: Sequence[str]) -> None:
        """Refuse a margin where two figures are primary, which need not matter alike."""
        if self.margin is not None and len(primary) > 1:
            titles = " and ".join(METRICS[name].inside for name in primary)
            raise InputError(
                f"margin: {titles} are both primary",
                [
                    Remedy("one figure shall decide", {"metric": name}, verb="write")
                    for name in primary
                ],
            )

    def require(self, systems: Mapping[str, Any]) -> None:
        """Refuse systems without what the figure needs that the user names."""
        for name, system in systems.items() if self.chosen else ():
            if self.policy and self.policy not in system.choices.thresholds:
                why = system.choices.reasons.get(self.policy, "there is none")
                raise InputError(f"{name}: has no threshold for {self.policy}: {why}")
            metric = METRICS[self.metric]
            if metric.boxed and not metric.of_called_boxes and system.localised is None:
                raise InputError(f"{name}: shows no places, and '{self.metric}' needs them")
            if metric.of_called_boxes and system.called_boxes is None:
                raise InputError(
                    f"{name}: '{self.metric}' is of boxes without scores, and not all systems give "
                    "such boxes",
                    [Remedy("its boxes have scores", {"metric": "ap50"}, verb="write")],
                )


def _unknown(metric: str, able: Sequence[str]) -> str:
    """Return which metric an unknown name means, as other programs call AP50 and AP, or all."""
    if not re.fullmatch(r"m?ap[^a-z]*", metric.lower()):
        begun = [name for name in able if name.startswith(metric)]
        near = nearest_name(metric, begun[:1] or able, "")
        return f"is unknown; {near}" if near else f"is none of {', '.join(able)}"
    if "95" in metric:
        return "is unknown; did you mean 'ap'?"
    if re.search(r"(?<![1-9])50?(?!\d)", metric):
        return "is unknown; did you mean 'ap50'?"
    return "is unknown; did you mean 'ap50' (IoU of 0.5) or 'ap' (0.5 to 0.95)?"
