"""Protocol of a comparison: the question that it answers, which a file can fix beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.thresholds import check_policy
from cxr_compare.evaluation.units import Unit


@dataclass(frozen=True)
class Protocol:
    """Question of a comparison: which figure decides, at which threshold, and on which unit.

    An InputError is raised if a metric is unknown or cannot alone decide which system is better, if
    the rule for the threshold is invalid, missing or not needed, if the metric is about boxes but
    `unit` is not ``image``, and if `margin` lies outside (0, 1).

    Attributes:
        metric: Short name of the primary figure, by which systems are compared, such as ``auroc``.
            It must be a metric of which higher values are better.
        partner: Short name of a second primary figure, for an operating point, such as
            ``specificity`` if `metric` is ``recall``. A system counts as better only if it is
            better in both figures. Empty if there is one primary figure.
        policy: Rule for the threshold at which the primary figures are computed, such as
            ``max_f1``; empty for a figure without a threshold.
        margin: Difference in the primary figure, in (0, 1), by which a system may be worse than the
            reference and still count as not worse. `None` compares with no margin.
        subgroups: Names of columns of the images table, such as ``view``, by whose values figures
            are reported.
        reference: Name of the reference system; `None` takes the first system.
        target: Name of the finding, or group of findings, to evaluate; `None` takes the one that
            the command names.
        unit: What decides the comparison: figures by ``image``, ``study`` or ``patient``. `None`
            decides by image.
        declared: True if a protocol file fixed the question before the test images were used.
        file_sha256: SHA-256 of the protocol file in hexadecimal digits; `None` without a file.
    """

    metric: str = "auroc"
    partner: str = ""
    policy: str = ""
    margin: float | None = None
    subgroups: tuple[str, ...] = ()
    reference: str | None = None
    target: str | None = None
    unit: Unit | None = None
    declared: bool = False
    file_sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuse a question that no figure can answer."""
        for metric in self.metrics:
            self._check_metric(metric)
        if self.policy:
            check_policy(self.policy)
        self._check_halves()
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
        if self.policy and "threshold" not in metric.needs:
            raise InputError(f"protocol: metric '{name}' has no policy; leave it out")
        if metric.boxed and self.unit not in (None, "image"):
            raise InputError(
                f"protocol: metric '{name}': localisation is evaluated by image only; leave out "
                f"unit = '{self.unit}', or choose another metric"
            )

    def _check_halves(self) -> None:
        """Refuse half of an operating point alone, and pairs of figures that are not two halves."""
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
        """Short names of the primary figures: one, or two for an operating point.

        An operating point has two figures at one threshold, such as ``recall`` and ``specificity``.
        """
        return (self.metric, self.partner) if self.partner else (self.metric,)

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Short name of the metric of each primary figure, and the rule for its threshold.

        An example is ``(("recall", "max_f1"),)``. The rule is empty for a figure without a
        threshold.
        """
        return tuple(
            (name, self.policy if "threshold" in METRICS[name].needs else "")
            for name in self.metrics
        )

    @property
    def title(self) -> str:
        """Name of the primary figures with their threshold, as it is written inside a sentence."""
        _, policy = self.keys[0]
        at = f" at the threshold for {policy_text(policy)}" if policy else ""
        return listing([METRICS[metric].title_in_sentence for metric in self.metrics]) + at

    def main_policy(self, policies: Sequence[str]) -> str:
        """Return the rule of the threshold for results that are shown at one threshold only.

        It is the rule of the protocol if it has one; otherwise ``max_f1`` if it is among
        `policies`, or else the first of them. Empty if `policies` is empty.

        Example:
            >>> EXPLORATORY.main_policy(["youden", "max_f1"]), EXPLORATORY.main_policy(["youden"])
            ('max_f1', 'youden')
        """
        return self.policy or ("max_f1" if "max_f1" in policies else next(iter(policies), ""))

    def in_order(self, systems: Mapping[str, Any]) -> list[str]:
        """Return the names of the systems with the reference system first.

        An InputError is raised if the reference system of the protocol is none of the systems.
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
        """Return what figures are computed by, in addition to those by image.

        It is the unit of the protocol if it fixes one, and otherwise the requested one. An
        InputError is raised if ``study`` or ``patient`` is requested and the protocol fixes another
        unit.
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
        """Return the protocol as a dictionary of JSON values, to be stored with a report.

        There is one key for each attribute, and ``analysis``, which is ``protocol given`` if a file
        declared the question and otherwise ``exploratory``.
        """
        kind = "protocol given" if self.declared else "exploratory"
        return asdict(self) | {"subgroups": list(self.subgroups), "analysis": kind}


def _why_not_alone(metric: str) -> str:
    """Return why a metric alone cannot decide which system is better; empty if it can.

    The text also says what to write in the protocol instead.
    """
    record = METRICS[metric]
    if record.why_not_primary or not record.partners:
        return record.why_not_primary
    able = [name for name in record.partners if not METRICS[name].why_not_primary]
    instead = [f'["{metric}", "{name}"]' for name in able]
    instead += ['"ap50_decided"' if record.boxed and not able else '"balanced_accuracy"']
    return (
        "is one half of an operating point, which calling more or fewer images positive raises "
        f"alone; write metric = {' or '.join(instead)}"
    )


EXPLORATORY = Protocol()
"""Question of a comparison without a protocol: AUROC decides, and nothing was fixed beforehand."""
