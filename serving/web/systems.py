"""What a server says of its systems, and of one image, in the words of its schemas."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache
from importlib import metadata

import numpy as np

from evaluation.systems.eligibility import sets_of_run
from serving.answer import Answer, LoadedRun
from serving.dicom_objects.instance import Algorithm
from serving.web.schemas import (
    ActivationMap,
    FindingScore,
    Frame,
    ReportFigures,
    SystemAnswer,
    SystemFacts,
)

_PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


class ServedSystem:
    """A system with what never changes while it is served."""

    def __init__(
        self, run: LoadedRun, report: ReportFigures | None, report_url: str | None
    ) -> None:
        self.run = run
        self.algorithm = Algorithm.of(run)
        self._model_id = self.algorithm.model_id
        self._threshold, self._probability = _operating_point(run)
        self.facts = SystemFacts(
            system=run.name,
            kind=run.model.kind,  # type: ignore[arg-type]
            finding=run.target.display_name,
            findings=list(run.model.findings),
            policy=run.policy,
            threshold=self._threshold,
            threshold_probability=self._probability,
            undecided_because=run.undecided_because,
            backend=run.model.backend,
            precision=run.model.precision,
            model_id=self._model_id,
            image_size=run.model.preprocess.size,
            trained_on=[str(each["name"]) for each in sets_of_run(run.model.info)],
            guard=run.guard is not None,
            report=report,
            report_url=report_url,
        )

    def describe(self, answer: Answer, *, maps: bool) -> SystemAnswer:
        """One answer as the interface gives it."""
        shared = {k: v for k, v in answer.to_dict().items() if k in SystemAnswer.model_fields}
        scores = answer.finding_scores.items()
        return SystemAnswer(
            **shared,
            model_id=self._model_id,
            backend=self.run.model.backend,
            threshold_probability=self._probability,
            findings=[FindingScore(finding=name, score=score) for name, score in scores],
            map=self._map(answer) if maps else None,
        )

    def _map(self, answer: Answer) -> ActivationMap | None:
        """A classifier's map on the scale that validation chose; None where there is none."""
        scale = None if self.run.decision is None else self.run.decision.map_scale
        if answer.map is None or scale is None or scale[1] <= scale[0]:
            return None
        values = np.nan_to_num(np.asarray(answer.map.values, np.float64))
        shares = np.clip((values - scale[0]) / (scale[1] - scale[0]), 0.0, 1.0)
        x1, y1, x2, y2 = answer.map.frame
        target = sorted(self.run.target.any_of)
        finding = max(target, key=lambda name: answer.finding_scores.get(name, 0.0))
        return ActivationMap(
            finding=finding,
            values=np.round(shares, 4).tolist(),
            frame=Frame(x1=x1, y1=y1, x2=x2, y2=y2),
        )


def disagreement(answers: Sequence[SystemAnswer]) -> bool | None:
    """Whether systems decide differently; None with fewer than two decisions."""
    decisions = [answer.decision for answer in answers if answer.decision is not None]
    return len(set(decisions)) > 1 if len(decisions) > 1 else None


@cache
def versions_of(backends: frozenset[str]) -> dict[str, str]:
    """The versions of what answers."""
    packages = ["cxr-compare", "numpy", *(_PACKAGES[each] for each in sorted(backends))]
    versions = {"python": platform.python_version()}
    return versions | {package: metadata.version(package) for package in packages}


def _operating_point(run: LoadedRun) -> tuple[float | None, float | None]:
    """The threshold on the score, and as a probability."""
    if run.decision is None:
        return None, None
    threshold = run.decision.thresholds[run.policy].threshold
    if threshold is None:
        return None, None
    probability = run.decision.probability(np.array([threshold]))
    return threshold, None if probability is None else float(probability[0])
