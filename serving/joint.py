"""Both systems together, by the rule that a report of ``cxr compare --both`` holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.store.loose_pixels import LoosePixels
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import Part
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.sources.ensemble import joined_output
from cxr_compare.evaluation.sources.joint import JointRule
from cxr_compare.serving.answer import Answer
from cxr_compare.serving.limits import USUAL_POLICY
from cxr_compare.serving.run import OperatingPoint, Run, answer_of


class JointRun:
    """Runs that answer together: one score by logistic regression, boxes gated by it.

    Attributes:
        name: What its answers call it.
        members: The runs.
    """

    def __init__(
        self, info: PredictionsInfo, rule: JointRule, point: OperatingPoint, members: Sequence[Run]
    ) -> None:
        self.name = info.system
        self.rule, self.point, self.members = rule, point, list(members)
        self.target = members[0].target
        self.cautions: list[str] = []

    @classmethod
    def open(cls, report: Path, runs: Sequence[Run], policy: str | None = None) -> JointRun:
        """Open the rule of a report for the runs that it compared."""
        for path in sorted(report.glob("systems/*/predictions.json")):
            info = PredictionsInfo.read(path)
            if info.ensemble is None or info.members is None:
                continue
            by_id = {each: run for run in runs for each in run.network.inference_ids()}
            missing = [each for each in info.members if each.inference_id not in by_id]
            if missing:
                raise InputError(
                    f"joint: {report} joins {', '.join(m.system for m in info.members)}, and "
                    f"{missing[0].system} is none of the runs that are given"
                )
            rule = JointRule.from_content(info.ensemble, path)
            members = [by_id[str(each.inference_id)] for each in info.members]
            choices = Choices.read(path.parent / "decisions" / f"{runs[0].target.name}.json")
            wanted = choices.policy(policy or USUAL_POLICY, report)
            chosen = choices.thresholds[wanted]
            point = OperatingPoint(wanted, choices, chosen.threshold, chosen.reason, {})
            return cls(info, rule, point, members)
        raise InputError(f"joint: {report} holds no joint system; give a report made with both")

    def answer(self, name: str, image: DecodedImage) -> Answer:
        """Answer for an image that is read; an output that is not finite raises InputError."""
        sizes = [run.network.preprocess.size for run in self.members]
        sources = [LoosePixels({name: image.pixels}, size) for size in sizes]
        made, warnings = [], []
        for number, (run, source) in enumerate(zip(self.members, sources, strict=True), start=1):
            record = PredictionsInfo(system=f"member {number}", kind=run.network.kind)
            made.append(Predictions.from_part(record, run.predict_part(source)))
            warnings += run.warnings(name, image, source.image(name))
        part = Part(*joined_output(made, self.rule, sources[0].sizes))
        facts = {"warnings": list(dict.fromkeys(warnings)), **self._seen(image)}
        return answer_of(self, "both", part, name, image, **facts)

    def _seen(self, image: DecodedImage) -> dict[str, Any]:
        """Return the closest use that the training of a member made of an image, and cautions."""
        found = [run.seen(image) for run in self.members]
        states = [each["seen_in_training"] for each in found]
        cautions = dict.fromkeys(text for each in found for text in each["cautions"])
        closest = next(state for state in ("train", "val", "unknown", "no") if state in states)
        return {"cautions": list(cautions), "seen_in_training": closest}
