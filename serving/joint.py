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
        made = JointFile.read(report / JOINT)
        by_id = {each: run for run in runs for each in run.network.inference_ids()}
        for name, of in zip(made.rule.members, made.inference_ids, strict=True):
            if of not in by_id:
                raise InputError(
                    f"joint: {report} joins {', '.join(made.rule.members)}, and {name} is none of "
                    "the runs that are given"
                )
        members = [by_id[str(each)] for each in made.inference_ids]
        for run in members:
            if run.network.info.classes:
                raise InputError(
                    f"joint: {run.name} calls one of several classes, and systems together answer "
                    "for one finding; leave joint out"
                )
        wanted = policy or USUAL_POLICY
        parse(wanted)
        if wanted not in {**made.thresholds, **made.reasons}:
            raise InputError(
                f"policy: {report} has no threshold for {wanted}; it has "
                f"{', '.join(made.thresholds)}"
            )
        choices = Choices(made.thresholds, made.reasons, made.calibration)
        reason = "" if wanted in made.thresholds else made.reasons[wanted]
        return cls(made, OperatingPoint(wanted, choices, reason), members)

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
        warnings = dict.fromkeys(text for each in doubts for text in each["warnings"])
        is_other = any(each["no_chest_xray"] for each in doubts)
        facts = {"warnings": list(warnings), "no_chest_xray": is_other, **self._seen(image)}
        # Its boxes are those of a member, whose answer stands beside it.
        joined = replace(self.rule.apply(outputs), boxes=None, maps=None)
        return answer_of(self, "both", joined, name, image, **facts)

    def _seen(self, image: DecodedImage) -> dict[str, Any]:
        """Return the closest use that the training of a member made of an image, and cautions."""
        found = [run.seen(image) for run in self.members]
        states = [each["seen_in_training"] for each in found]
        cautions = dict.fromkeys(text for each in found for text in each["cautions"])
        closest = next(state for state in ("train", "val", "unknown", "no") if state in states)
        return {"cautions": list(cautions), "seen_in_training": closest}
