"""A decision rule per system and target, as ``decisions/<target>.json`` holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy.typing as npt

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import counted
from evaluation.boxes.fusion import AS_STORED, BoxRule
from evaluation.boxes.map_boxes import MapBoxRule
from evaluation.decisions.choices import TuningOptions
from evaluation.decisions.reduction import Reduction
from evaluation.decisions.referral import Referral
from evaluation.decisions.refit import ValidationScores
from evaluation.decisions.search import Search
from evaluation.decisions.thresholds import POLICIES, ThresholdChoice
from evaluation.statistics.calibration import Calibration, calibration_from_json
from evaluation.statistics.ranking import Floats

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
class Decision:
    """How a system's raw output becomes scores, decisions and boxes, as validation chose it.

    Attributes:
        target: The target's name.
        chosen_on: Ids of the predictions, labels and split it was chosen on, and counts.
        reduction: How a detector's boxes become an image score; `None` for image scores.
        boxes: How a detector's stored boxes become the ones that are judged.
        calibration: Score to probability; `None` where validation cannot give it.
        map_scale: Low and high end of the map scale, raw; `None` without maps.
        map_boxes: How maps become boxes; `None` without maps.
        thresholds: A choice per policy.
        box_cut: Score from which boxes are called in the RSNA score; `None` where validation has
            no lesion to choose it by.
        search: What was searched and what it gave; `None` without a search.
        validation: Figures on the validation images per policy, and ``""`` without threshold.
        tried: Every setting tried, with the figure it was judged by.
        options: What the user chose beside policies and search.
        choices: How the options led to a choice: ``reduction``, ``calibration``.
        referral: Per policy, from which doubt on images are referred to a reader.
        chosen_scores: What the thresholds were chosen on, by image, study or patient; not stored.
    """

    target: str
    chosen_on: dict[str, Any]
    reduction: Reduction | None = None
    boxes: BoxRule = AS_STORED
    calibration: Calibration | None = None
    map_scale: tuple[float, float] | None = None
    map_boxes: MapBoxRule | None = None
    thresholds: dict[str, ThresholdChoice] = field(default_factory=dict)
    box_cut: float | None = None
    search: dict[str, Any] | None = None
    validation: dict[str, dict[str, float | None]] = field(default_factory=dict)
    tried: list[dict[str, Any]] = field(default_factory=list)
    options: TuningOptions = field(default_factory=TuningOptions)
    choices: dict[str, Any] = field(default_factory=dict)
    referral: dict[str, Referral] = field(default_factory=dict)
    chosen_scores: ValidationScores | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        cuts = [
            f"{name} from {choice.threshold:.4g}"
            for name, choice in self.thresholds.items()
            if choice.threshold is not None
        ]
        on = f"chosen on {counted(self.chosen_on.get('n_images', 0), 'image')}"
        return f"<Decision on {self.target}: {', '.join(cuts) or 'no threshold'}; {on}>"

    @property
    def searched(self) -> Search | None:
        """The search that gave it, to run it again."""
        return Search.from_json(self.search)

    def probability(self, scores: npt.ArrayLike) -> Floats | None:
        """The calibrated probability of image scores; `None` where validation cannot give it."""
        return None if self.calibration is None else self.calibration.probability(scores)

    def policy(self, wanted: str | None, where: object) -> str:
        """The policy that decides: the one wanted, else `max_f1` or the first there is.

        Args:
            wanted: A policy's name, or `None`.
            where: The folder, for the message.

        Raises:
            InputError: There is no operating point for the one wanted.
        """
        if wanted is None:
            return POLICIES[0] if POLICIES[0] in self.thresholds else next(iter(self.thresholds))
        if wanted not in self.thresholds:
            raise InputError(
                f"{where}: has no operating point for the policy '{wanted}'; it has "
                f"{', '.join(self.thresholds)}: choose one of them"
            )
        return wanted

    def to_json(self) -> dict[str, Any]:
        """The content of ``decisions/<target>.json``."""
        return {
            "target": self.target,
            "chosen_on": self.chosen_on,
            "asked": self.options.to_json(),
            "choices": self.choices,
            "reduction": self.reduction and self.reduction.to_json(),
            "box_fusion": self.boxes.to_json(),
            "box_cut": self.box_cut,
            "search": self.search,
            "calibration": self.calibration and self.calibration.to_json(),
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
            "referral": {name: each.to_json() for name, each in self.referral.items()},
            "validation": self.validation.get("", {}),
            "settings_tried": self.search["settings_tried"] if self.search else len(self.tried),
            "tried": self.tried,
        }

    @classmethod
    def from_json(cls, payload: dict[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InputError: A key is missing or holds another type.
        """
        try:
            scale, level = payload["map_scale"], payload["map_box_level"]
            policies = payload["policies"]
            return cls(
                target=payload["target"],
                chosen_on=dict(payload["chosen_on"]),
                reduction=Reduction.from_json(payload["reduction"]),
                boxes=BoxRule.from_json(payload["box_fusion"]),
                calibration=calibration_from_json(payload["calibration"]),
                map_scale=(scale[0], scale[1]) if scale else None,
                map_boxes=None if level is None else MapBoxRule(level),
                thresholds={
                    name: ThresholdChoice(name, spec["threshold"], spec["reason"])
                    for name, spec in policies.items()
                },
                options=TuningOptions.from_json(payload.get("asked")),
                box_cut=payload.get("box_cut"),
                search=payload.get("search"),
                validation={name: spec["validation"] for name, spec in policies.items()}
                | {"": payload["validation"]},
                tried=list(payload["tried"]),
                choices=payload.get("choices") or {},
                referral={n: Referral(**r) for n, r in payload.get("referral", {}).items()},
            )
        except (KeyError, TypeError, IndexError) as error:
            raise InputError(f"decision: broken at {error}; run cxr tune again") from None

    def difference(self, other: Decision) -> str | None:
        """The first place where a stored decision and one derived now differ, or `None`.

        Figures that an older program did not store, and policies that it was not tuned for, are no
        difference: nothing rests on them.
        """
        stored, derived = self.to_json(), other.to_json()
        for part in ("policies", "referral"):
            derived[part] = {k: v for k, v in derived[part].items() if k in stored["policies"]}
        if self.box_cut is None and self.search is None:
            derived["box_cut"] = None
        places = [(stored, derived)]
        shared = stored["policies"].keys() & derived["policies"].keys()
        places += [(stored["policies"][name], derived["policies"][name]) for name in shared]
        for before, now in places:
            kept = {k: v for k, v in now["validation"].items() if k in before["validation"]}
            now["validation"] = kept
        return _first_difference(stored, derived)
