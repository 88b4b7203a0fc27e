"""Protocol: the question of a comparison, fixed beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.decisions.thresholds import check_policy
from cxr_compare.evaluation.decisions.units import Unit
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS


@dataclass(frozen=True)
class Protocol:
    """The question of a comparison.

    Attributes:
        metric: The primary figure, by its short name; more must be better.
        partner: The other half of its operating point, as a second primary figure: a system is
            better only if it is better in both. Empty: there is one primary figure.
        policy: The threshold policy they are taken at; empty for a figure without a threshold.
        margin: How much worse still counts as not worse: a difference in the metric, above 0.
        subgroups: Columns of the images table whose groups are reported.
        reference: Name of the reference system; `None`: the first one given.
        target: Name of the target; `None`: the one that the command names.
        unit: Unit of the answer; `None`: images, with tables by another unit beside.
        goals: Bounds that the true ``recall`` and ``specificity`` must both exceed. They are then
            the question, and the primary figure is compared beside it.
        declared: True if a protocol file fixed this beforehand.
        file_sha256: SHA-256 of that file.

    Example:
        >>> Protocol(metric="auroc", margin=0.02, subgroups=("view",)).subgroups
        ('view',)
    """

    metric: str = "auroc"
    partner: str = ""
    policy: str = ""
    margin: float | None = None
    subgroups: tuple[str, ...] = ()
    reference: str | None = None
    target: str | None = None
    unit: Unit | None = None
    goals: Mapping[str, float] = field(default_factory=dict)
    declared: bool = False
    file_sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuse a question that no figure can answer."""
        for metric in self.metrics:
            self._check_metric(metric)
        if self.policy:
            check_policy(self.policy)
        self._check_halves()
        if self.goals and not self.policy:
            raise InputError(
                "protocol: goals need a policy, the threshold that they are evaluated at, such as "
                "'sensitivity>=0.90' or 'threshold=0.5'"
            )
        if self.margin is not None and not 0 < self.margin < 1:
            raise InputError(f"margin {self.margin:g}: must lie above 0 and below 1")

    def _check_metric(self, name: str) -> None:
        if name not in METRICS:
            able = [metric for metric in METRICS if not _why_not_alone(metric)]
            raise InputError(f"protocol: no metric '{name}'; there are {', '.join(able)}")
        metric = METRICS[name]
        if metric.why_not_primary:
            raise InputError(f"protocol: metric '{name}': {metric.why_not_primary}; choose another")
        if "threshold" in metric.needs and not self.policy:
            raise InputError(f"protocol: metric '{name}' needs a policy, such as max_f1")
        if self.policy and "threshold" not in metric.needs and not self.goals:
            raise InputError(f"protocol: metric '{name}' has no policy; leave it out")
        if metric.boxed and self.unit not in (None, "image"):
            raise InputError(
                f"protocol: metric '{name}': localisation is evaluated by image only; leave out "
                f"unit = '{self.unit}', or choose another metric"
            )

    def _check_halves(self) -> None:
        """Refuse one half of an operating point alone, and two figures that are no such halves."""
        if not self.partner:
            if why := _why_not_alone(self.metric):
                raise InputError(f"protocol: metric '{self.metric}': {why}")
        elif not any(
            other in METRICS[one].partners for one, other in (self.metrics, self.metrics[::-1])
        ):
            raise InputError(
                f"protocol: metric = ['{self.metric}', '{self.partner}']: these are not the two "
                "halves of an operating point; name one primary figure"
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The primary figures: one, or both halves of an operating point."""
        return (self.metric, self.partner) if self.partner else (self.metric,)

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Metric and policy of each primary figure."""
        return tuple(
            (name, self.policy if "threshold" in METRICS[name].needs else "")
            for name in self.metrics
        )

    @property
    def title(self) -> str:
        """Primary figure in words, inside a sentence."""
        _, policy = self.keys[0]
        at = f" at the threshold for {policy_text(policy)}" if policy else ""
        return listing([METRICS[metric].title_in_sentence for metric in self.metrics]) + at

    def main_policy(self, policies: Sequence[str]) -> str:
        """Return the policy of everything that is shown at one threshold only.

        Args:
            policies: Policies to choose from.

        Example:
            >>> EXPLORATORY.main_policy(["youden", "max_f1"]), EXPLORATORY.main_policy(["youden"])
            ('max_f1', 'youden')
        """
        return self.policy or ("max_f1" if "max_f1" in policies else next(iter(policies), ""))

    def in_order(self, systems: Mapping[str, Any]) -> list[str]:
        """Return the systems' names with the reference first.

        Raises:
            InputError: The reference is none of the systems.
        """
        names = list(systems)
        if self.reference is None:
            return names
        if self.reference not in names:
            raise InputError(
                f"protocol: reference '{self.reference}' is none of the systems "
                f"{', '.join(names)}; give one NAME={self.reference}"
            )
        return [self.reference, *(name for name in names if name != self.reference)]

    def unit_of(self, requested: Unit) -> Unit:
        """Return the unit of decisions: as the protocol fixed it, else as requested.

        Raises:
            InputError: The protocol fixed another unit than the requested one.
        """
        if self.unit is None or self.unit == requested:
            return requested
        if requested != "image":
            raise InputError(
                f"--unit {requested}: the protocol's unit is '{self.unit}'; leave the option out, "
                "or take unit out of the protocol to see others beside the answer by image"
            )
        return self.unit

    def to_dict(self) -> dict[str, Any]:
        """Return the protocol for the report's provenance."""
        kind = "confirmatory" if self.declared else "exploratory"
        return asdict(self) | {"subgroups": list(self.subgroups), "analysis": kind}


def _why_not_alone(metric: str) -> str:
    """Return why a metric cannot decide alone which system is better, and what to write instead."""
    record = METRICS[metric]
    if record.why_not_primary or not record.partners:
        return record.why_not_primary
    able = [name for name in record.partners if not METRICS[name].why_not_primary]
    instead = [f'["{metric}", "{name}"]' for name in able]
    instead += [f'"{name}"' for name in METRICS if name.startswith(f"matched_{metric}_")][:1]
    instead += ['"ap50"' if record.boxed and not able else '"balanced_accuracy"']
    return (
        "is one half of an operating point, which calling more or fewer images positive raises "
        f"alone; write metric = {' or '.join(instead)}"
    )


EXPLORATORY = Protocol()
"""No protocol: AUROC decides, nothing was fixed beforehand."""
