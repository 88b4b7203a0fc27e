"""Both systems together, by the rule that a report of ``cxr compare --both`` holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.pixels import LoosePixels
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.joint import JointFile
from cxr_compare.evaluation.overlays.colours import system_mark
from cxr_compare.evaluation.policies import USUAL_POLICY, parse
from cxr_compare.evaluation.report.files import JOINT
from cxr_compare.serving.answer import Answer
from cxr_compare.serving.limits import OperatingPoint
from cxr_compare.serving.run import Run, answer_of


class JointRun:
    """Runs that answer together: one score by logistic regression, boxes gated by it.

    Attributes:
        name: What its answers call it.
        digest: Those of its members.
        members: The runs, in the order of the rule.
        mark: Colour and symbol of the systems together.
    """

    mark = system_mark(0)

    def __init__(self, made: JointFile, point: OperatingPoint, members: Sequence[Run]) -> None:
        self.name, self.rule, self.point = made.name, made.rule, point
        self.members = list(members)
        self.digest = "+".join(member.digest for member in members)
        self.target = members[0].target
        self.cautions: list[str] = []

    @classmethod
    def open(cls, report: Path, runs: Sequence[Run], policy: str | None = None) -> JointRun:
        """Open the rule of a report for the runs that it compared."""
        if not (report / JOINT).is_file():
            raise InputError(f"joint: {report} holds no joint system; give a report made with both")
        joint_file = JointFile.read(report / JOINT)
        by_id = {inference_id: run for run in runs for inference_id in run.network.inference_ids()}
        for name, inference_id in zip(
            joint_file.rule.members, joint_file.inference_ids, strict=True
        ):
            if inference_id not in by_id:
                raise InputError(
                    f"joint: {report} joins {', '.join(joint_file.rule.members)}, and {name} is "
                    "none of the runs that are given"
                )
        members = [by_id[str(inference_id)] for inference_id in joint_file.inference_ids]
        for run in members:
            if run.network.info.classes:
                raise InputError(
                    f"joint: {run.name} calls one of several classes, and systems together answer "
                    "for one finding; leave joint out"
                )
        chosen_policy = policy or USUAL_POLICY
        parse(chosen_policy)
        if chosen_policy not in {**joint_file.thresholds, **joint_file.reasons}:
            raise InputError(
                f"policy: {report} has no threshold for {chosen_policy}; it has "
                f"{', '.join(joint_file.thresholds)}"
            )
        choices = Choices(joint_file.thresholds, joint_file.reasons, joint_file.calibration)
        reason = "" if chosen_policy in joint_file.thresholds else joint_file.reasons[chosen_policy]
        return cls(joint_file, OperatingPoint(chosen_policy, choices, reason), members)

    @property
    def identity(self) -> list[Any]:
        """Records that decide its answers: its members, rule, threshold and calibration."""
        members = [member.identity for member in self.members]
        return [self.name, repr(self.point), repr(self.rule), members]

    def answer(self, name: str, image: DecodedImage) -> Answer:
        """Answer for an image that is read; an output that is not finite raises InputError."""
        outputs, doubts = {}, []
        for member, run in zip(self.rule.members, self.members, strict=True):
            source = LoosePixels({name: image.pixels}, run.network.preprocess.size)
            outputs[member] = run.output(run.predict_part(source), name)
            doubts.append(run.doubts(name, image, source.image(name)))
        warnings = dict.fromkeys(text for run_doubts in doubts for text in run_doubts["warnings"])
        is_other = any(run_doubts["no_chest_xray"] for run_doubts in doubts)
        facts = {"warnings": list(warnings), "no_chest_xray": is_other, **self._seen(image)}
        # Its boxes are those of a member, whose answer stands beside it.
        joined = replace(self.rule.apply(outputs), boxes=None, maps=None)
        return answer_of(self, "both", joined, name, image, **facts)

    def _seen(self, image: DecodedImage) -> dict[str, Any]:
        """Return the closest use that the training of a member made of an image, and cautions."""
        uses = [run.seen(image) for run in self.members]
        states = [use["seen_in_training"] for use in uses]
        cautions = dict.fromkeys(text for use in uses for text in use["cautions"])
        closest = next(state for state in ("train", "val", "unknown", "no") if state in states)
        return {"cautions": list(cautions), "seen_in_training": closest}
