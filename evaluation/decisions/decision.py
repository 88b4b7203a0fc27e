"""A decision rule per system and target, as ``decisions/<target>.json`` holds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.notebook import html_lines
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule
from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.decisions.guarantees import Guarantee, GuaranteedRate, read_guarantee
from cxr_compare.evaluation.decisions.reduction import Reduction
from cxr_compare.evaluation.decisions.thresholds import POLICIES, ThresholdChoice, ValidationScores
from cxr_compare.evaluation.metrics.metric import Need
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import cluster_index, per_cluster
from cxr_compare.evaluation.statistics.calibration import Calibration, calibration_from_dict
from cxr_compare.evaluation.statistics.clustered_share import exact_share
from cxr_compare.evaluation.statistics.figure_text import score_text

BOX_CUT = "score cut of boxes"
_FAINT_CUTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03)  # of detectors that score low throughout
_BOX_CUTS = tuple(sorted({*_FAINT_CUTS, *(np.arange(1, 100) / 100).tolist()}))
_SAME = 1e-7  # fits of earlier versions ended some 1e-9 from their optimum


def _first_difference(first: Any, second: Any, place: str = "") -> str | None:
    """The first place where two JSON values differ, `None` where they agree.

    Numbers may differ by what is left of a fit's last step.

    Example:
        >>> _first_difference({"a": [1, 2.0]}, {"a": [1, 2.5]})
        'a[1]: 2.0 against 2.5'
    """
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted({*first, *second}):
            found = _first_difference(first.get(key), second.get(key), f"{place}.{key}".lstrip("."))
            if found:
                return found
        return None
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return next(
            (d for i, (a, b) in pairs if (d := _first_difference(a, b, f"{place}[{i}]"))), None
        )
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (first, second))
    same = math.isclose(first, second, rel_tol=_SAME, abs_tol=_SAME) if numbers else first == second
    return None if same else f"{place}: {first} against {second}"


@dataclass(frozen=True)
class BoxCutChoice:
    """The score from which boxes are called: of the highest RSNA score, among equals the lowest."""

    pairs: BoxPairs  # of the validation images whose lesions are all boxed
    patients: npt.NDArray[np.str_]  # name of the patient of each image
    cuts: tuple[float, ...] = _BOX_CUTS  # what is chosen from, rising

    @property
    def n_positive(self) -> int:
        """How many of the images have a lesion."""
        return int((self.pairs.truth.per_image > 0).sum())

    def refit(self, clusters: Integers, n_clusters: int) -> Callable[[Integers], dict[str, Floats]]:
        """As `evaluation.decisions.thresholds._Choice.refit`."""
        score = WeightedRsnaScore(self.pairs, clusters, n_clusters, self.cuts)
        return lambda weights: {BOX_CUT: score.best_cut(weights)}

    @cached_property
    def chosen(self) -> float | None:
        """The cut that these images choose; `None` without a lesion."""
        every = self.refit(np.zeros(len(self.patients), dtype=np.int64), 1)
        cut = float(every(np.ones((1, 1), dtype=np.int64))[BOX_CUT][0])
        return None if np.isnan(cut) else cut


@dataclass(frozen=True)
class TuningOptions:
    """What a user may say of the choices on validation; without it, the default ones."""

    # of `METHODS`, or ``choose`` among them by the log loss of held-out folds of patients
    calibration: str | None = None
    reductions: tuple[str, ...] = ()  # rules to choose from; empty: all
    rule_out: str | None = None  # the guarantee below whose threshold images are ruled out
    rule_in: str | None = None  # the guarantee from whose threshold on images are ruled in

    def __post_init__(self) -> None:
        for option, guarantee, kinds in (
            ("--rule-out", self.rule_out, ("sensitivity",)),
            ("--rule-in", self.rule_in, ("specificity", "ppv")),
        ):
            made = read_guarantee(guarantee or "")
            if guarantee and not (made and {part.figure for part in made.parts} <= set(kinds)):
                raise InputError(
                    f"{option} {guarantee}: rests on a guarantee of {' or '.join(kinds)} with its "
                    f"confidence, as {kinds[0]}>=0.95@0.90"
                )

    @property
    def triage(self) -> tuple[str, ...]:
        """The guarantees of triage; empty without it."""
        return tuple(guarantee for guarantee in (self.rule_out, self.rule_in) if guarantee)

    def to_dict(self) -> dict[str, Any] | None:
        """For ``decisions/<target>.json``; `None` where all are the default."""
        if self == TuningOptions():
            return None
        asked = {"calibration": self.calibration, "reductions": list(self.reductions)}
        return asked | ({"rule_out": self.rule_out, "rule_in": self.rule_in} if self.triage else {})

    @classmethod
    def from_dict(cls, payload: dict[str, Any] | None) -> TuningOptions:
        """Read what `to_dict` wrote."""
        if not payload:
            return cls()
        guarantees = payload.get("rule_out"), payload.get("rule_in")
        return cls(payload["calibration"], tuple(payload["reductions"]), *guarantees)


class Outcome(NamedTuple):
    """What was observed of one figure of a guarantee on test images, with the threshold held."""

    figure: str  # as `Guaranteed.figure`
    estimate: float
    ci_low: float  # of the 95 % interval by patient
    ci_high: float
    n_images: int  # that the figure counts
    n_patients: int  # who have them

    def standing(self, part: GuaranteedRate) -> Literal["met", "missed", "open"]:
        """Met or missed where the whole interval lies on that side of what was guaranteed."""
        below, above = self.ci_high < part.bound, self.ci_low > part.bound
        met, missed = (below, above) if part.figure == "false_marks" else (above, below)
        return "met" if met else "missed" if missed else "open"

    def words(self, digits: int) -> str:
        """Figure, interval and patients."""
        value, low, high = (f"{each:.{digits}f}" for each in self[1:4])
        return f"{value} ({low} to {high}), {counted(self.n_patients, 'patient')}"


@dataclass(frozen=True)
class Triage:
    """Below one score images are ruled out, from another on ruled in; between a reader decides.

    Where the thresholds of both guarantees cross, both hold from the one to the other: images are
    ruled in from the score on below which they are ruled out, and none is referred.
    """

    STANDINGS: ClassVar = ("ruled_out", "referred", "ruled_in")  # of an image

    below: float | None  # ruled out below this score; `None`: none is
    above: float | None  # ruled in from this score on; `None`: none is
    referred: float = math.nan  # share of the validation images
    ci_low: float = math.nan  # of its exact 95 % interval by patient
    ci_high: float = math.nan
    # what is not ruled out, or in, or referred, and why
    why: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        options: TuningOptions,
        thresholds: Mapping[str, ThresholdChoice],
        scores: npt.ArrayLike,
        patients: npt.ArrayLike,
    ) -> Triage | None:
        """Triage at the thresholds of its guarantees, and what it refers of validation."""
        if not options.triage:
            return None
        cuts, why = [], []
        for guarantee, done in ((options.rule_out, "out"), (options.rule_in, "in")):
            choice = thresholds[guarantee] if guarantee else None
            cuts.append(None if choice is None else choice.threshold)
            reason = "no guarantee says how" if choice is None else choice.reason
            why += [f"no image is ruled {done}: {reason}"] if reason else []
        below, above = cuts
        if below is not None and above is not None and above <= below:
            why.append("none is referred, since both guarantees hold at this one threshold")
            above = below
        found = cls(below, above, why=why)
        clusters, n_patients = cluster_index(patients)
        referred = found.standings(scores) == "referred"
        table = np.stack([referred, np.ones_like(referred)], axis=1)
        hits, images = per_cluster(table, clusters, n_patients).T
        low, high = exact_share(hits, images)
        return replace(found, referred=float(referred.mean()), ci_low=low, ci_high=high)

    def standings(self, scores: npt.ArrayLike) -> npt.NDArray[np.str_]:
        """What becomes of images by their scores, ``(N,)``: one of `STANDINGS` each."""
        values = np.asarray(scores, dtype=np.float64)
        out = values < (-np.inf if self.below is None else self.below)
        into = values >= (np.inf if self.above is None else self.above)
        return np.select([out, into], ["ruled_out", "ruled_in"], "referred")

    @property
    def rule(self) -> str:
        """From which scores on what becomes of an image."""
        cuts = [] if self.below is None else [f"ruled out below {score_text(self.below)}"]
        cuts += [] if self.above is None else [f"ruled in from {score_text(self.above)} on"]
        return ", ".join(cuts) or "all are referred"

    def __str__(self) -> str:
        share = [100 * value for value in (self.referred, self.ci_low, self.ci_high)]
        price = "refers {:.1f} % of validation (95 % interval {:.1f} to {:.1f} %)".format(*share)
        return "; ".join([f"score {self.rule}", *self.why, price])

    @classmethod
    def from_dict(cls, payload: dict[str, Any] | None) -> Triage | None:
        """Read it from ``decisions/<target>.json``."""
        return cls(**payload) if payload else None


@dataclass(frozen=True)
class Decision:
    """How a system's raw output becomes scores, decisions and boxes, as validation chose it."""

    target: str  # its name
    chosen_on: dict[str, Any]  # ids of the predictions, labels and split, and counts
    reduction: Reduction | None = None  # of boxes to an image score; `None` for image scores
    calibration: Calibration | None = None  # to probability; `None` where validation cannot give it
    map_scale: tuple[float, float] | None = None  # low and high end, raw; `None` without maps
    map_boxes: MapBoxRule | None = None  # how maps become boxes; `None` without maps
    thresholds: dict[str, ThresholdChoice] = field(default_factory=dict)  # by policy
    # Score from which boxes are called in the RSNA score; `None` where validation has no lesion.
    box_cut: float | None = None
    # Figures on the validation images by policy, and under ``""`` those without threshold.
    validation: dict[str, dict[str, float | None]] = field(default_factory=dict)
    tried: list[dict[str, Any]] = field(default_factory=list)  # every setting, with its figure
    options: TuningOptions = field(default_factory=TuningOptions)
    losses: dict[str, float] = field(default_factory=dict)  # held-out log loss of calibrations
    triage: Triage | None = None  # `None` where it was not asked for
    # What follows is not stored. What the thresholds were chosen on, by image, study or patient:
    chosen_scores: ValidationScores | None = field(default=None, compare=False)
    cut_choice: BoxCutChoice | None = field(default=None, compare=False)  # what `box_cut` was
    system: str = field(default="", compare=False)  # its name
    path: Path | None = field(default=None, compare=False)  # where it is stored
    # what to know of the validation images, and commands that usually follow
    notes: tuple[str, ...] = field(default=(), compare=False)
    next_steps: tuple[str, ...] = field(default=(), compare=False)

    def __repr__(self) -> str:
        cuts = [
            f"{name} from {choice.threshold:.4g}"
            for name, choice in self.thresholds.items()
            if choice.threshold is not None
        ]
        on = f"chosen on {counted(self.chosen_on.get('n_images', 0), 'image')}"
        return f"<Decision on {self.target}: {', '.join(cuts) or 'no threshold'}; {on}>"

    def __str__(self) -> str:
        chosen_on, name = self.chosen_on, f"{self.system}, " if self.system else ""
        lines = [
            f"{name}{self.target}: chosen on "
            f"{counted(chosen_on['n_images'], 'validation image')} of "
            f"{counted(chosen_on['n_patients'], 'patient')}, {chosen_on['n_positive']} positive",
            *_rule_words(self),
            *(line for policy in self.thresholds for line in _policy_words(self, policy)),
            *([] if self.triage is None else [f"  triage: {self.triage}"]),
            *(f"  {note}" for note in self.notes),
        ]
        return "\n".join(lines if self.path is None else [*lines, f"Decision: {self.path}"])

    def _repr_html_(self) -> str:
        return html_lines(str(self))

    @property
    def held(self) -> dict[Need, str]:
        """What validation chose and no resample of it chooses again, by the metrics' need of it."""
        fitted = self.calibration is not None and self.calibration.to_dict()["method"] != "none"
        made: dict[Need, str | None] = {
            "boxes": "cut of map boxes" if self.map_boxes else None,
            "probability": "calibration" if fitted else None,
            "triage": "thresholds of triage" if self.triage else None,
        }
        return {need: name for need, name in made.items() if name}

    def probability(self, scores: npt.ArrayLike) -> Floats | None:
        """The calibrated probability of image scores; `None` where validation cannot give it."""
        return None if self.calibration is None else self.calibration.probability(scores)

    def policy(self, wanted: str | None, where: object) -> str:
        """The policy that decides: the one wanted, else triage's, `max_f1` or the first there is.

        Of triage the one that rules out, or that rules in where no image is ruled out.

        An InputError, which names the folder, where there is no operating point for the one wanted.
        """
        if wanted is None and self.triage is not None:
            last = self.triage.below is None and self.triage.above is not None
            return self.options.triage[-1 if last else 0]
        if wanted is None:
            return POLICIES[0] if POLICIES[0] in self.thresholds else next(iter(self.thresholds))
        if wanted not in self.thresholds:
            raise InputError(
                f"{where}: has no operating point for the policy '{wanted}'; it has "
                f"{', '.join(self.thresholds)}: choose one of them"
            )
        return wanted

    def guaranteed(self, policy: str) -> list[int]:
        """Validation patients whose images the figures of a guarantee count, of each figure."""
        guarantee, held = read_guarantee(policy), self.validation.get(policy, {})
        every = self.chosen_on.get("n_patients", 0)
        parts = guarantee.parts if guarantee else ()
        return [int(held.get(part.counted_as) or every) for part in parts]

    def guarantee_line(
        self, policy: str, guarantee: Guarantee, outcomes: Mapping[str, Outcome] | None
    ) -> str:
        """What was guaranteed, and what was observed on test on test, for whoever reads an answer.

        `outcomes` are by figure, of those defined on test; `None` where it was not tested.
        """
        claims, tested = [], []
        for part in guarantee.parts:
            digits, found = max(2, len(f"{part.bound:g}"[2:])), (outcomes or {}).get(part.figure)
            sign = "at most" if part.figure == "false_marks" else "at least"
            at = "" if part.prevalence is None else f" at prevalence {part.prevalence:g}"
            claims.append(f"{part.name} {sign} {part.bound:.{digits}f}{at}")
            said = "not defined there" if found is None else found.words(digits)
            missed = found is not None and found.standing(part) == "missed"
            tested.append(f"{part.name} " * (len(guarantee.parts) > 1) + said + ": broken" * missed)
        counts = " and ".join(f"{count:,}" for count in dict.fromkeys(self.guaranteed(policy)))
        made = f"{' and '.join(claims)} with {guarantee.sure}, on {counts} validation patients"
        observed = f"; on test: {', '.join(tested)}" if outcomes is not None else ""
        return f"guaranteed: {made}{observed}"

    def guarantees(self, policy: str) -> tuple[str, ...]:
        """Return what is guaranteed of the answers of a policy, a line for each guarantee.

        A guarantee for which no threshold was found has no line. What was observed on test images
        stands in the report of ``cxr compare``.
        """
        lines = []
        for name in self.options.triage if policy in self.options.triage else (policy,):
            guarantee = read_guarantee(name)
            if guarantee is not None and self.thresholds[name].threshold is not None:
                lines.append(self.guarantee_line(name, guarantee, None))
        return tuple(lines)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``decisions/<target>.json``."""
        return {
            "target": self.target,
            "chosen_on": self.chosen_on,
            "asked": self.options.to_dict(),
            "choices": {"calibration": self.losses} if self.losses else {},
            "reduction": self.reduction and asdict(self.reduction),
            "box_cut": self.box_cut,
            "calibration": self.calibration and self.calibration.to_dict(),
            "map_scale": self.map_scale and list(self.map_scale),
            "map_box_level": self.map_boxes and self.map_boxes.level,
            "policies": {
                name: {
                    "threshold": choice.threshold,
                    "reason": choice.reason,
                    "validation": self.validation.get(name, {}),
                }
                for name, choice in self.thresholds.items()
            },
            "triage": self.triage and asdict(self.triage),
            "validation": self.validation.get("", {}),
            "settings_tried": len(self.tried),
            "tried": self.tried,
        }

    @classmethod
    def from_dict(cls, payload: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        if payload.get("search"):
            raise InputError("decision: made by a search, which is no more; run cxr tune again")
        scale, level, policies = (
            payload[key] for key in ("map_scale", "map_box_level", "policies")
        )
        return cls(
            target=payload["target"],
            chosen_on=payload["chosen_on"],
            reduction=Reduction.from_dict(payload["reduction"]),
            calibration=calibration_from_dict(payload["calibration"]),
            map_scale=scale and (scale[0], scale[1]),
            map_boxes=None if level is None else MapBoxRule(level),
            thresholds={
                name: ThresholdChoice(name, spec["threshold"], spec["reason"])
                for name, spec in policies.items()
            },
            options=TuningOptions.from_dict(payload.get("asked")),
            box_cut=payload.get("box_cut"),
            validation={name: spec["validation"] for name, spec in policies.items()}
            | {"": payload["validation"]},
            tried=payload["tried"],
            losses=(payload.get("choices") or {}).get("calibration") or {},
            triage=Triage.from_dict(payload.get("triage")),
        )

    def difference(self, other: Decision) -> str | None:
        """The first place where a stored decision and one derived now differ, or `None`.

        Figures that an older program did not store, and policies that it was not tuned for, are no
        difference: nothing rests on them.
        """
        stored, derived = self.to_dict(), other.to_dict()
        policies = derived["policies"].items()
        derived["policies"] = {k: v for k, v in policies if k in stored["policies"]}
        if self.box_cut is None:
            derived["box_cut"] = None
        places = [(stored, derived)]
        shared = stored["policies"].keys() & derived["policies"].keys()
        places += [(stored["policies"][name], derived["policies"][name]) for name in shared]
        for before, now in places:
            kept = {k: v for k, v in now["validation"].items() if k in before["validation"]}
            now["validation"] = kept
        return _first_difference(stored, derived)


def _rule_words(decision: Decision) -> Iterator[str]:
    """How an image gets its score, its probability and its boxes, a line each."""
    if decision.reduction:
        floor = f", boxes from score {decision.reduction.min_score:g}"
        shown = floor if decision.reduction.min_score else ""
        yield f"  image score: {decision.reduction.rule}{shown}"
    if decision.options.calibration:
        fitted = decision.calibration
        method = fitted.to_dict()["method"] if fitted else "none possible"
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in decision.losses.items())
        words = "the score as it is" if method == "none" else method
        yield f"  probability: {words}" + (f" (held-out log loss: {losses})" if losses else "")


def _policy_words(decision: Decision, policy: str) -> Iterator[str]:
    """A policy's threshold with its figures."""
    choice = decision.thresholds[policy]
    if choice.threshold is None:
        yield f"  {policy}: no threshold ({choice.reason})"
        return
    figures = decision.validation[policy]
    shown = ", ".join(
        f"{metric} {value:.3f}"
        for metric in ("recall", "specificity", "precision", "f1")
        if (value := figures[metric]) is not None
    )
    yield f"  {policy}: score >= {choice.threshold:.6g} ({shown})"
