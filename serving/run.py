"""A trained run or an export of one, which answers for single images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, overload

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.notebook import OpenedFromFolder, html_lines
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.loose_images import LooseImage, find_image_files
from cxr_compare.data_prep.store.loose_pixels import LoosePixels
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import Part
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.work.progress import Silence
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.decided_output import DecidedOutput, decide, map_levels
from cxr_compare.evaluation.sources.read_predictions import read_output, read_system
from cxr_compare.evaluation.thresholds import DECLARED, POLICIES
from cxr_compare.serving.answer import COLOUR, Answer
from cxr_compare.serving.answer_files import answer_files
from cxr_compare.serving.answers import Answers
from cxr_compare.serving.backends import open_model, require_torch
from cxr_compare.serving.export_spec import (
    ExportSpec,
    is_export,
    is_joint,
    validation_folder,
)
from cxr_compare.serving.given_images import GivenImage, is_several, read_given
from cxr_compare.serving.guard import GUARD_NAME, Guard, Warned, image_notes
from cxr_compare.serving.joint_answers import warnings_of_files
from cxr_compare.serving.joint_model import member_folders
from cxr_compare.serving.known_limits import MeasuredAuroc, TrainingImages, validation_auroc

if TYPE_CHECKING:
    from cxr_compare.serving.predictor import Predictor
    from cxr_compare.training.run_folder import RunFolder

_SYNTHETIC = "{system} learned from synthetic drawings only, from no real chest X-ray"


class OperatingPoint(NamedTuple):
    """The stored decision rule of a trained network, with its policy, or why it has none.

    The rule was chosen on validation images. `policy` is the name of the rule that chose the
    threshold in use, such as ``max_f1``.
    """

    decision: Choices | None
    policy: str
    undecided_because: str | None


@dataclass(eq=False, repr=False)
class Run(OpenedFromFolder):
    """A trained network with its decision rule, opened from a run or from an export of it.

    A run is the folder of a training by `cxr train`; an export holds the same network in another
    format. The network is loaded when it first predicts.

    Attributes:
        folder: Folder of the run or the export.
        name: Name of the system for people.
        wanted_policy: Name of the policy (rule that chose a threshold on validation images) whose
            threshold decides. None takes ``max_f1``, or the first policy that the run was tuned
            for.
        device: Device that computes: ``auto``, ``cpu`` or ``cuda``.
        precision: Number format of the computation, ``fp32`` or ``bf16``. Images stay undecided if
            the threshold was chosen at the other one. An export ignores it: it has its own format,
            and was checked against the run.
        next_steps: Command lines that are usually useful next.
        test_auroc: AUROC on the test images of a report; None if no report is given.

    Example:
        >>> import cxr_compare
        >>> cxr_compare.Run.open("no-such-folder")
        Traceback (most recent call last):
        ...
        cxr_compare...InputError: no-such-folder: no such folder; ...
    """

    folder: Path
    name: str
    wanted_policy: str | None = None
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    next_steps: tuple[str, ...] = ()
    test_auroc: MeasuredAuroc | None = None

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        name: str | None = None,
        policy: str | None = None,
        device: str = "auto",
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> Self:
        """Open a complete run or export.

        Args:
            folder: Folder of the run or the export.
            name: Name of the system for people; by default that of the run.
            policy: Name of the policy whose threshold decides, see `wanted_policy` of the class.
                None takes the default.
            device: ``auto``, ``cpu`` or ``cuda``.
            precision: Number format of the computation, ``fp32`` or ``bf16``; an export ignores it.

        Returns:
            The run, whose network is not loaded yet.

        Raises:
            InputError: The folder holds no run or export, or the training has not ended.
        """
        folder = Path(folder)
        if is_joint(folder):
            usual = PredictionsInfo.read(folder / "predictions.json").system
        else:
            info = ExportSpec.open(folder).run if is_export(folder) else _run_folder(folder).info
            usual = info.name
        return cls(folder, name or usual, policy, device, precision)

    def load(self) -> Self:
        """Load all that a prediction needs, so that errors are raised before the first image.

        Returns:
            This object itself.

        Raises:
            InputError: A file is damaged, or there is no threshold of `wanted_policy`.
        """
        _ = self.model, self.operating_point, self.map_levels, self.guard, self.synthetic
        _ = self.validation_auroc, self.training_images
        return self

    @cached_property
    def model(self) -> Predictor:
        """The loaded network; it is loaded when this property is first read."""
        return open_model(self.folder, precision=self.precision, device=self.device)

    @property
    def decision_file(self) -> Path:
        """Path of the file that stores the decision rule: threshold, calibration and more.

        The file need not exist.
        """
        return validation_folder(self.folder) / "decisions" / f"{self.target.name}.json"

    @cached_property
    def target(self) -> Target:
        """Finding, or group of findings, that decides whether an image is positive."""
        return self.model.target

    @cached_property
    def operating_point(self) -> OperatingPoint:
        """Stored decision rule of the run and name of its policy, or why it cannot decide."""
        usual = self.wanted_policy or POLICIES[0]
        exported = is_export(self.folder)
        if not self.decision_file.is_file():
            reason = "run the same cxr train command again (adds the operating point)"
            if exported:
                reason = "no operating point was exported, as the run had none; export it anew"
            return OperatingPoint(None, usual, reason)
        decision = Choices.read(self.decision_file)
        if not self.model.chose(decision.chosen_on.get("inference_id")):
            reason = "its operating point was chosen at another precision or with other weights"
            # cxr tune predicts a run in float32, and so chooses nothing for another precision.
            fp32 = self.precision == "fp32"
            advice = "run cxr tune on the run again" if fp32 else "leave out --precision"
            return OperatingPoint(None, usual, f"{reason}; {advice}")
        policy = decision.policy(self.wanted_policy, self.folder)
        return OperatingPoint(decision, policy, decision.thresholds[policy].reason)

    @property
    def decision(self) -> Choices | None:
        """Decision rule that was chosen on validation images: thresholds, calibration and others.

        None if the run has no such rule, or if it was chosen with other weights or another
        precision.
        """
        return self.operating_point.decision

    @property
    def policy(self) -> str:
        """Name of the rule that chose the threshold in use, such as ``max_f1``."""
        return self.operating_point.policy

    @property
    def threshold(self) -> float | None:
        """Lowest score at which an image is positive; None if the run cannot decide."""
        return None if self.decision is None else self.decision.thresholds[self.policy].threshold

    @property
    def batch_size(self) -> int:
        """Number of images that the network predicts at a time."""
        return self.model.batch_size

    @property
    def threshold_probability(self) -> float | None:
        """Calibrated probability at the threshold in use; None without calibration."""
        if self.decision is None or self.threshold is None:
            return None
        probability = self.decision.probability(np.array([self.threshold]))
        return None if probability is None else float(probability[0])

    @property
    def system_fields(self) -> dict[str, Any]:
        """Fields of `SystemFields` by name, which are the same in all answers."""
        return {
            "system": self.name,
            "kind": self.model.kind,
            "finding": self.target.display_name,
            "policy": self.policy,
            "threshold": self.threshold,
            "threshold_probability": self.threshold_probability,
            "undecided_because": self.undecided_because,
        }

    @cached_property
    def declared(self) -> str | None:
        """Name and source of the threshold in use if somebody declared it, else None."""
        if self.decision is None or self.decision.declared is None or self.policy != DECLARED:
            return None
        text = self.decision.declared.text
        return f"{text}; for the run that was exported" if is_export(self.folder) else text

    @property
    def undecided_because(self) -> str | None:
        """Reason why the run cannot decide; None if it can."""
        return self.operating_point.undecided_because

    @cached_property
    def map_levels(self) -> dict[float, float]:
        """Contours of a classifier's activation maps: raw map value by probability.

        A contour is drawn where a map has the raw value that belongs to a probability. The
        dictionary is empty for a detector, and for a run without a decision rule.
        """
        if is_export(self.folder):
            return dict(ExportSpec.open(self.folder).map_levels)
        if self.decision is None or self.model.kind == "boxes":
            return {}
        validation = Predictions.open(validation_folder(self.folder))
        return map_levels(read_system(validation, self.target), self.decision)

    @cached_property
    def map_scale(self) -> tuple[float, float] | None:
        """Raw values at the ends of the scale on which activation maps are shown; None without.

        The map of a joint system is the mean of those of its members, and so is its scale.
        """
        if not is_joint(self.folder):
            return None if self.decision is None else self.decision.map_scale
        name = f"decisions/{self.target.name}.json"
        files = [validation_folder(folder) / name for folder in member_folders(self.folder)]
        scales = [Choices.read(file).map_scale for file in files if file.is_file()]
        known = [scale for scale in scales if scale is not None]
        if not known:
            return None
        low, high = np.mean(known, axis=0)
        return float(low), float(high)

    @cached_property
    def synthetic(self) -> bool:
        """True if the run is known to have learned from synthetic images only."""
        return self.model.synthetic

    @cached_property
    def guard(self) -> Guard | None:
        """Check that recognises images other than frontal chest X-rays; None without a check."""
        folder = member_folders(self.folder)[0] if is_joint(self.folder) else self.folder
        path = folder / GUARD_NAME
        return Guard.read(path) if path.is_file() else None

    @cached_property
    def validation_auroc(self) -> MeasuredAuroc | None:
        """AUROC on the run's validation images; None if it is unknown."""
        return validation_auroc(self.folder)

    @cached_property
    def training_images(self) -> TrainingImages:
        """Images that the training of the run used, as far as they are known."""
        return TrainingImages.of_run(self.folder, self.model.info)

    @property
    def cautions(self) -> tuple[str, ...]:
        """Sentences on what limits all predictions of the run; empty if nothing is known to do so.

        There is such a sentence if the run was not shown to be better than guessing. This is
        checked by its AUROC on the test images of a report, or else on its validation images.
        """
        measured = self.test_auroc or self.validation_auroc
        caution = None if measured is None else measured.caution(self.name)
        return () if caution is None else (caution,)

    def _repr_html_(self) -> str:
        return html_lines(str(self))

    def __str__(self) -> str:
        if is_export(self.folder) or is_joint(self.folder):
            return repr(self)
        return str(_run_folder(self.folder))

    def __repr__(self) -> str:
        alone = not (is_export(self.folder) or is_joint(self.folder))
        if "model" not in self.__dict__ and alone:
            return repr(_run_folder(self.folder)).replace("RunFolder", "Run")
        state = self.undecided_because or f"decides by {self.policy}"
        return f"<Run of '{self.name}': {self.target.name}, {state}, {self.folder}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``run.json`` of a run, or of ``export.json`` of an export."""
        if is_export(self.folder):
            return ExportSpec.open(self.folder).to_json()
        if is_joint(self.folder):
            return PredictionsInfo.read(self.folder / "predictions.json").to_json()
        return _run_folder(self.folder).info.to_json()

    @overload  # an answer, or `Answers` if it is a folder, which no type can tell
    def predict(  # type: ignore[overload-overlap]
        self, image: str | Path
    ) -> Answer | Any: ...

    @overload  # a text is an iterable of texts, too
    def predict(  # type: ignore[overload-overlap]
        self, image: GivenImage
    ) -> Answer: ...

    @overload
    def predict(self, image: Iterable[GivenImage]) -> list[Answer]: ...

    def predict(self, image: Any) -> Answer | list[Answer] | Answers:
        """Predict one image, several images, or all images of a folder.

        Args:
            image: An image, or a list or another iterable of images. An image is a file (DICOM,
                PNG, JPEG, TIFF, ...), a PIL image, a pydicom data set, or pixels as displayed,
                where 0 is black and air is dark. Pixels are an array or torch tensor, uint8 or
                float in [0, 1], of shape (H, W), (H, W, 3) or (3, H, W). A folder stands for all
                image files below it.

        Returns:
            One `Answer` (prediction with its decision), or a list of them in the order of the
            images. For a folder these are `Answers`, which also list the files that could not be
            read.

        Raises:
            InputError: An image cannot be read, or needs a conversion that the message names, or
                the network's output is not finite. For several images the message names the first
                such image, and nothing is returned. A folder holds no image that can be read.
        """
        if isinstance(image, str | Path) and Path(image).is_dir():
            return self._predict_folder(Path(image))
        if is_several(image):
            return list(self.predict_many(image))
        return next(self.predict_many([image]))

    def _predict_folder(self, folder: Path) -> Answers:
        """Answer for all image files below a folder."""
        files: tuple[list[LooseImage], list[Path]] = ([], find_image_files([folder]))
        return answer_files([self.load()], files, Silence())

    def predict_many(self, images: Iterable[GivenImage]) -> Iterator[Answer]:
        """Yield the prediction for each image when it is requested.

        The docstring of `predict` lists the forms in which an image may be given.

        Args:
            images: Images in any form that `predict` accepts.

        Yields:
            The prediction of the next image, with its decision.

        Raises:
            InputError: An image cannot be read or needs a conversion, or the network's output is
                not finite.
        """
        for image in images:
            given = read_given(image)
            of_file = None if given.warnings is None else [given.warnings]
            (answer,) = self.answer([(given.name, given.image)], of_file)
            if isinstance(answer, InputError):
                raise answer
            yield answer

    def answer(
        self,
        images: Sequence[tuple[str, DecodedImage]],
        of_files: Sequence[tuple[Warned, ...]] | None = None,
    ) -> list[Answer | InputError]:
        """Predict decoded images in one batch.

        The score, the boxes and the decision are those that ``cxr predict --data``, ``cxr tune``
        and ``cxr compare`` give for the image, because the same code computes them.

        Args:
            images: Path (or ``array`` for pixels without a file) and decoded image of each.
            of_files: Warnings of `file_warnings` about each image's file; None makes them from the
                paths.

        Returns:
            One prediction for each image, or an error for an image on which the network fails.
        """
        model = self.model
        of_files = warnings_of_files(images) if of_files is None else of_files
        originals = {str(row): image.pixels for row, (_, image) in enumerate(images)}
        source = LoosePixels(originals, model.preprocess.size)
        (part,) = model.predict(source, source.ids, source.sizes, len(source.ids))
        output = self.decided(part)
        scores = _finding_scores(part.tables, model.findings)
        answers: list[Answer | InputError] = []
        for row, (called, image) in enumerate(images):
            key = str(row)
            if key not in output.decisions.index:
                answers.append(InputError(f"{called}: the output of {self.name} is not finite"))
                continue
            warned, guard_distance = self.guarded(image, source.image(key))
            warnings = of_files[row] + warned
            if self.synthetic and not image.header.get("synthetic"):
                warnings += (Warned(_SYNTHETIC.format(system=self.name), "synthetic_run"),)
            seen = self.training_images.find(image)
            answers.append(
                Answer.of_prediction(
                    output.prediction(key, COLOUR),
                    output.findings_of(key),
                    image=called,
                    **self.system_fields,
                    warnings=warnings,
                    declared=self.declared,
                    run_cautions=self.cautions,
                    seen=seen,
                    seen_in_training=self.training_images.state(seen),
                    notes=image_notes(image),
                    guard_distance=guard_distance,
                    findings=scores.get(key, dict.fromkeys(model.findings, 0.0)),
                    pixels=image.pixels,
                )
            )
        return answers

    def guarded(
        self, image: DecodedImage, square: np.ndarray
    ) -> tuple[tuple[Warned, ...], float | None]:
        """Return the warnings of the check that recognises other images than frontal chest X-rays.

        Args:
            image: The decoded image.
            square: The image resized as the network reads it, uint8 ``(S, S)``.

        Returns:
            The warnings, and the log odds that the image is no frontal chest X-ray; an empty tuple
            and None if the run has no check.
        """
        if self.guard is None:
            return (), None
        distance = self.guard.score(square)
        return self.guard.warnings(image, square, self.name, distance), distance

    def decided(self, part: Part) -> DecidedOutput:
        """Apply the decision rule of the run to predictions of its network.

        Args:
            part: Predictions of the network for some images.

        Returns:
            Score, probability and decision of each image, and the boxes that count. Images on which
            the network failed are left out.
        """
        ran = pd.Index(part.images.loc[part.images["status"] == "ok", "image_id"])
        kind = PredictionsInfo(system=self.name, kind=self.model.kind)
        evidence = read_output(Predictions.from_part(kind, part), self.target, ran)
        return decide(self.name, evidence, self.decision, self.policy, levels=self.map_levels)


def _run_folder(folder: Path) -> RunFolder:
    """Return the folder of a complete run without importing torch, which exports do not need."""
    require_torch(folder)
    from cxr_compare.training.run_folder import RunFolder

    return RunFolder.open(folder)


def _finding_scores(
    tables: Mapping[str, pd.DataFrame], findings: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the score of each finding by image, in the order of the model's findings."""
    rows = tables["scores"] if "scores" in tables else tables["boxes"]
    scores: dict[str, dict[str, float]] = {}
    for image_id, finding, score in zip(
        rows["image_id"], rows["finding"], rows["score"], strict=True
    ):
        of_image = scores.setdefault(str(image_id), dict.fromkeys(findings, 0.0))
        of_image[finding] = max(of_image[finding], float(score))
    return scores
