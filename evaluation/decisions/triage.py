"""Triage by score: images are ruled out, ruled in, or referred to a reader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.decisions.sentences import sentence
from cxr_compare.evaluation.decisions.thresholds import ThresholdChoice
from cxr_compare.evaluation.decisions.tuning_options import TuningOptions
from cxr_compare.evaluation.statistics.bootstrap import cluster_index, per_cluster
from cxr_compare.evaluation.statistics.clustered_share import exact_share


@dataclass(frozen=True)
class Triage:
    """Two scores: images below the first are ruled out, from the second on they are ruled in.

    Ruled out means called negative, and ruled in means called positive, without a reader. The
    images between the two scores are referred to a reader, who decides. Each score is a threshold
    with a guarantee, such as a sensitivity of at least 0.95 for ruling out. If the thresholds of
    the two guarantees cross, both guarantees hold at every threshold between them. The lower of the
    two scores then becomes equal to the higher one, and no image is referred.

    Attributes:
        below: Images with a lower score are ruled out; `None` if no image is ruled out.
        above: Images with this score or a higher one are ruled in; `None` if no image is ruled in.
        referred: Share of the validation images that is referred, in [0, 1].
        ci_low: Lower end of the exact 95 % interval of this share, computed by patient.
        ci_high: Upper end of the 95 % interval of this share.
        why: Sentences with the reasons why no image is ruled out, ruled in or referred; empty
            without such a reason.
        STANDINGS: The three results of triage for an image: ``ruled_out``, ``referred`` and
            ``ruled_in``.

    Example:
        >>> Triage(0.25, 0.75).rule
        'ruled out below 0.250, ruled in from 0.750 on'
    """

    STANDINGS: ClassVar = ("ruled_out", "referred", "ruled_in")

    below: float | None
    above: float | None
    referred: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    why: list[str] = field(default_factory=list)

    @classmethod
    def from_thresholds(
        cls,
        options: TuningOptions,
        thresholds: Mapping[str, ThresholdChoice],
        scores: npt.ArrayLike,
        patients: npt.ArrayLike,
    ) -> Triage | None:
        """Make a triage from thresholds with guarantees, and compute the share of images it refers.

        Args:
            options: Options of which ``rule_out`` and ``rule_in`` name the two guarantees, such as
                ``sensitivity>=0.95@0.90``.
            thresholds: Threshold by name of the guarantee, as chosen on validation images.
            scores: Scores of the validation images, shape ``(N,)``.
            patients: Patient of each image, shape ``(N,)``.

        Returns:
            The triage with its share of referred validation images; `None` if the options name no
            guarantee.

        Example:
            >>> options = TuningOptions(rule_out="sensitivity>=0.95@0.90")
            >>> chosen = {options.rule_out: ThresholdChoice(options.rule_out, 0.25)}
            >>> Triage.from_thresholds(options, chosen, [0.1, 0.9], ["p", "q"]).referred
            0.5
        """
        if not options.triage:
            return None
        reasons = []
        below, reason = _threshold_of(options.rule_out, thresholds)
        if below is None:
            reasons.append(sentence("nothing_ruled", side="out", reason=reason))
        above, reason = _threshold_of(options.rule_in, thresholds)
        if above is None:
            reasons.append(sentence("nothing_ruled", side="in", reason=reason))
        if below is not None and above is not None and above <= below:
            above = below
            reasons.append(sentence("nothing_referred"))
        triage = cls(below, above, why=reasons)
        clusters, n_patients = cluster_index(patients)
        is_referred = triage.standings(scores) == "referred"
        counts = np.stack([is_referred, np.ones_like(is_referred)], axis=1)
        referred, images = per_cluster(counts, clusters, n_patients).T
        low, high = exact_share(referred, images)
        return replace(triage, referred=float(is_referred.mean()), ci_low=low, ci_high=high)

    def standings(self, scores: npt.ArrayLike) -> npt.NDArray[np.str_]:
        """Return what triage does with each image: ruled out, referred to a reader, or ruled in.

        Args:
            scores: Image scores, shape ``(N,)``.

        Returns:
            ``ruled_out``, ``referred`` or ``ruled_in``, shape ``(N,)``.

        Example:
            >>> Triage(0.25, 0.75).standings([0.1, 0.5, 0.75]).tolist()
            ['ruled_out', 'referred', 'ruled_in']
        """
        values = np.asarray(scores, dtype=np.float64)
        out = values < (-np.inf if self.below is None else self.below)
        into = values >= (np.inf if self.above is None else self.above)
        return np.select([out, into], ["ruled_out", "ruled_in"], "referred")

    @property
    def rule(self) -> str:
        """Rule in words, such as "ruled out below 0.250, ruled in from 0.750 on"."""
        return sentence("triage_rule", below=self.below, above=self.above)

    def __str__(self) -> str:
        return sentence(
            "triage",
            rule=self.rule,
            reasons=self.why,
            referred=self.referred,
            low=self.ci_low,
            high=self.ci_high,
        )

    @classmethod
    def from_dict(cls, payload: dict[str, Any] | None) -> Triage | None:
        """Read a triage from the file in which the thresholds and rules of a system are stored.

        Args:
            payload: Entry ``triage`` of the file ``decisions/TARGET.json``, which the command ``cxr
                tune`` wrote (TARGET is the name of a finding): the attributes of the triage by
                name; None without triage.

        Returns:
            The triage; `None` if there is no entry.

        Example:
            >>> Triage.from_dict({"below": 0.25, "above": 0.75}).above
            0.75
        """
        return cls(**payload) if payload else None


def _threshold_of(
    guarantee: str | None, thresholds: Mapping[str, ThresholdChoice]
) -> tuple[float | None, str | None]:
    """Return the threshold of a guarantee, or the reason why it has none."""
    if guarantee is None:
        return None, None
    choice = thresholds[guarantee]
    return choice.threshold, choice.reason
