"""What trained runs say about single images: score, decision, boxes, map, and the overlay.

The score, the boxes and the decision are those that ``cxr predict --data``, ``cxr tune`` and
``cxr compare`` would give for the image: the same code makes them. No data set is needed: a run
keeps the decision that its training chose on validation images.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from PIL import Image

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import read_json
from data_prep.contracts.schemas import EDGES
from data_prep.contracts.words import counted
from data_prep.images.decoded_image import DecodedImage, decode_record, grey_from_rgb
from data_prep.images.image import read_image
from data_prep.store.dataset import Target
from data_prep.store.decode import LoosePixels
from data_prep.store.predictions import Predictions
from evaluation.boxes.fusion import AS_STORED
from evaluation.decisions.decided_output import decide, map_levels
from evaluation.decisions.decision import Decision
from evaluation.decisions.system_output import SystemOutput
from evaluation.decisions.thresholds import POLICIES
from evaluation.metrics.words import policy_words, score_words
from evaluation.overlays.draw import as_figure, draw_predictions
from evaluation.overlays.shapes import ActivationGrid, ImagePrediction, system_colour
from serving.backends import is_export
from serving.guard import GUARD_NAME, Guard, file_warnings, image_notes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from serving.exported.exported_model import ExportedModel
    from serving.trained_model import Precision, TrainedModel
    from training.run_folder import RunFolder

ANSWER_COLUMNS = (
    "image", "system", "finding", "decision", "probability", "score", "policy", "threshold",
    "n_boxes", "boxes", "warnings",
)  # fmt: skip
"""Columns of an answer in the tables of ``cxr predict --csv`` and of a visit to ``cxr serve``."""
BOX_COLUMNS = ("finding", *EDGES, "score")
"""Columns of an answer's boxes."""
_DECISIONS = {True: "positive", False: "negative", None: None}
_SHOWN_BOXES = 3  # in a line of text
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_ARRAY = "array"  # what pixels without a file are called
_NOTEBOOK_PANEL = 360  # px
_NOTE = (
    "Probability and threshold: chosen on the run's validation images ({policy}). Research use "
    "only, not a medical device."
)


@dataclass(frozen=True, eq=False)
class Answer:
    """What one system says of one image.

    Attributes:
        image: The image as it was given, a path or ``array``.
        system: Display name.
        kind: ``boxes`` for a detector, ``scores`` for a classifier.
        finding: Display name of what is asked for.
        score: Image score, raw, in [0, 1].
        probability: Calibrated; None where the run has no calibration.
        policy: What the threshold was chosen for.
        threshold: On the score; None where there is none.
        decision: True positive, False negative, None undecided.
        boxes: The boxes of a positive answer, ``finding, x1, y1, x2, y2, score``, px of the
            original, by falling score: a detector's from the threshold on, a classifier's cut out
            of its map. A negative answer has none; an undecided one a detector's from 0.5 on.
        warnings: What speaks against the answer; empty where the image looks like a frontal
            chest X-ray.
        undecided_because: Why there is no decision, else None.
        notes: What was done to show the image, such as an inversion; speaks not against it.
        finding_scores: Score of each finding that the model learnt: a classifier's own, the highest
            box of a detector, 0 without one.
        prediction: What the overlay shows.
        pixels: The image as displayed, uint8 (H, W).
    """

    image: str
    system: str
    kind: str
    finding: str
    score: float
    probability: float | None
    policy: str
    threshold: float | None
    decision: bool | None
    boxes: pd.DataFrame
    warnings: tuple[str, ...] = ()
    undecided_because: str | None = None
    notes: tuple[str, ...] = ()
    finding_scores: Mapping[str, float] = field(default_factory=dict, repr=False)
    prediction: ImagePrediction = field(
        default_factory=lambda: ImagePrediction("", system_colour(0)), repr=False
    )
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), np.uint8), repr=False)

    def __repr__(self) -> str:
        return f"<Answer: {self}>"

    def __str__(self) -> str:
        """The answer in one line, as the terminal shows it."""
        called = (_DECISIONS[self.decision] or "undecided").upper()
        parts = [self.image, self.system, called if self.decision else called.lower()]
        if self.probability is not None:
            parts.append(f"probability {self.probability:.2f}")
        limit = "" if self.threshold is None else f" (threshold {score_words(self.threshold)})"
        parts.append(f"score {score_words(self.score)}{limit}")
        if len(self.boxes):
            parts.append(self._boxes_in_words())
        return "  ".join(parts)

    def _boxes_in_words(self) -> str:
        words = [
            f"{box.x1:.0f},{box.y1:.0f}-{box.x2:.0f},{box.y2:.0f} ({box.score:.2f})"
            for box in self.boxes.head(_SHOWN_BOXES).itertuples()
        ]
        count = len(self.boxes)
        if count > _SHOWN_BOXES:
            words.append(f"{count - _SHOWN_BOXES} more")
        return f"{counted(count, 'box')}: {', '.join(words)}"

    def to_dict(self) -> dict[str, Any]:
        """The answer for a program, ready for JSON."""
        return {
            "image": self.image,
            "system": self.system,
            "kind": self.kind,
            "finding": self.finding,
            "decision": _DECISIONS[self.decision],
            "undecided_because": self.undecided_because,
            "probability": self.probability,
            "score": self.score,
            "policy": self.policy,
            "threshold": self.threshold,
            "boxes": self.boxes[list(BOX_COLUMNS)].to_dict("records"),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }

    def _repr_png_(self) -> bytes:
        """The image beside what the system shows on it, in a notebook."""
        buffer = io.BytesIO()
        Image.fromarray(render_answers([self], panel=_NOTEBOOK_PANEL)).save(buffer, format="PNG")
        return buffer.getvalue()

    @property
    def map(self) -> ActivationGrid | None:
        """A classifier's activation map, with its frame in the original; None for a detector."""
        return self.prediction.grid

    def figure(self) -> Figure:
        """The image beside what the system shows on it, with a legend."""
        return draw_answers([self])


def answer_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as a row of a CSV file; text that a spreadsheet would run is quoted.

    Args:
        entry: Keys and values as of `Answer.to_dict`, some of them.

    Returns:
        The values of `ANSWER_COLUMNS`.

    Example:
        >>> row = answer_row({"image": "=1.png", "score": 0.5, "warnings": ["odd", "dark"],
        ...                   "boxes": [{"x1": 8, "y1": 0, "x2": 16, "y2": 8, "score": 0.5}]})
        >>> row["image"], row["n_boxes"], row["boxes"], row["warnings"]
        ("'=1.png", 1, '8.0,0.0,16.0,8.0,0.5000', 'odd; dark')
    """
    boxes = [
        ",".join(f"{box[edge]:.1f}" for edge in EDGES) + f",{box['score']:.4f}"
        for box in entry.get("boxes", [])
    ]
    row = {column: entry.get(column) for column in ANSWER_COLUMNS} | {
        "n_boxes": len(boxes),
        "boxes": ";".join(boxes),
        "warnings": "; ".join(entry.get("warnings", [])),
    }
    return {column: inert_cell(value) for column, value in row.items()}


def inert_cell(value: object) -> object:
    """A cell of a CSV file that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def answers_by_image(
    runs: Sequence[LoadedRun],
    images: Sequence[tuple[str, DecodedImage]],
    of_files: Sequence[tuple[str, ...]] | None = None,
) -> list[list[Answer] | InputError]:
    """What each run says of each image, in the order of runs, or why one of them says nothing."""
    outcomes: list[list[Answer] | InputError] = []
    for of_image in zip(*(run.answer(images, of_files) for run in runs), strict=True):
        failed = [answer for answer in of_image if isinstance(answer, InputError)]
        answers = [answer for answer in of_image if not isinstance(answer, InputError)]
        outcomes.append(failed[0] if failed else answers)
    return outcomes


def render_answers(answers: Sequence[Answer], *, panel: int = 480) -> np.ndarray:
    """Draw what several systems say of one image beside it, with a legend.

    Args:
        answers: Of one image, at least one; each system in its colour.
        panel: Longer side of each panel, px.

    Returns:
        RGB image, uint8, shape ``(h, w, 3)``.
    """
    first = answers[0]
    predictions = [
        replace(answer.prediction, colour=system_colour(position))
        for position, answer in enumerate(answers)
    ]
    policies = dict.fromkeys(policy_words(answer.policy) for answer in answers)
    warnings = dict.fromkeys(text for answer in answers for text in answer.warnings)
    warnings |= dict.fromkeys(
        f"{answer.system} is undecided: {answer.undecided_because}"
        for answer in answers
        if answer.undecided_because
    )
    return draw_predictions(
        first.pixels,
        predictions,
        findings=[answer.finding for answer in answers],
        title=Path(first.image).name,
        warnings=list(warnings),
        note=_NOTE.format(policy="; ".join(policies)),
        panel=panel,
    )


def draw_answers(answers: Sequence[Answer], *, panel: int = 480) -> Figure:
    """The same as a figure of matplotlib, for notebooks and for `Figure.savefig`."""
    return as_figure([render_answers(answers, panel=panel)])


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A run, or an export of one, that answers for single images; made by `LoadedRun.open`.

    Attributes:
        name: Display name of the system.
        model: The trained or exported model.
        target: What it is asked for.
        policy: Of the decision's thresholds the one that decides.
        decision: Chosen at the end of training on validation images; None where that is missing.
        undecided_because: Why the run cannot decide, else None.
        levels: Contours of a classifier's maps: raw map value by probability.
        guard: Tells what is no frontal chest X-ray; None where the run has none.

    Example:
        >>> LoadedRun.open("no-such-folder")
        Traceback (most recent call last):
        ...
        data_prep.store.folder_kinds.WrongFolderError: no-such-folder: no such folder; ...
    """

    name: str
    model: TrainedModel | ExportedModel = field(repr=False)
    target: Target
    policy: str
    decision: Decision | None = field(repr=False)
    undecided_because: str | None
    levels: dict[float, float] = field(repr=False)
    guard: Guard | None = field(repr=False)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        name: str | None = None,
        policy: str | None = None,
        device: str = "auto",
        precision: Precision = "fp32",
    ) -> LoadedRun:
        """Load a complete run or export.

        Args:
            folder: Made by ``cxr train``, or by ``cxr export`` of a run.
            name: Display name; the run's own by default.
            policy: Which of the frozen thresholds decides; ``max_f1`` by default, or the first
                that the run was tuned for.
            device: ``cpu``, ``cuda`` or ``auto``.
            precision: A decision chosen at another one does not fit, and leaves images undecided.
                An export has its own, and was held against the run and its decision.

        Raises:
            InputError: The run is not complete, or its decision has no such policy.
        """
        if is_export(Path(folder)):
            return cls._of_export(Path(folder), name, policy)
        import torch

        from serving.trained_model import TrainedModel

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = TrainedModel.open(Path(folder), precision=precision, device=device)
        info, run = model.run.info, model.run
        decision, policy, reason = _frozen_decision(model, policy)
        target = _target(run)
        levels: dict[float, float] = {}
        if decision is not None and model.kind == "scores":
            levels = map_levels(Predictions.open(run.validation), target, decision)
        path = run.folder / GUARD_NAME
        guard = Guard.read(path) if path.is_file() else None
        called = name or str(info["name"])
        return cls(called, model, target, policy, decision, reason, levels, guard)

    @classmethod
    def _of_export(cls, folder: Path, name: str | None, policy: str | None) -> LoadedRun:
        from serving.exported.exported_model import ExportedModel

        model = ExportedModel.open(folder)
        asked = model.spec.target
        target = Target(asked["name"], tuple(asked["any_of"]), asked["display_name"])
        guard, chosen = folder / GUARD_NAME, folder / "decisions" / f"{target.name}.json"
        decision, usual = None, policy or POLICIES[0]
        reason: str | None = "no operating point was exported, as the run had none; export it anew"
        if chosen.is_file():
            decision = Decision.from_dict(read_json(chosen, "decision"))
            usual = decision.policy(policy, folder)
            reason = decision.thresholds[usual].reason
        return cls(
            name or str(model.info["name"]),
            model,
            target,
            usual,
            decision,
            reason,
            dict(model.spec.map_levels),
            Guard.read(guard) if guard.is_file() else None,
        )

    def __repr__(self) -> str:
        state = self.undecided_because or f"decides by {self.policy}"
        return f"<LoadedRun of '{self.name}': {self.target.name}, {state}, {self.folder}>"

    @property
    def folder(self) -> Path:
        """The folder of the run or export."""
        return self.model.folder

    @property
    def trained(self) -> TrainedModel:
        """The model of a run.

        Raises:
            InputError: It is an export.
        """
        from serving.trained_model import TrainedModel

        if not isinstance(self.model, TrainedModel):
            raise InputError(f"{self.folder}: an export; give the run that it was made of")
        return self.model

    def predict(self, image: str | Path | np.ndarray) -> Answer:
        """Answer for one image.

        Args:
            image: A file (DICOM, PNG, JPEG, TIFF, ...), or pixels, uint8 (H, W) or (H, W, 3) as
                displayed: 0 is black, air is dark.

        Raises:
            InputError: It cannot be read, or the network's output is not finite.
        """
        return next(self.predict_many([image]))

    def predict_many(self, images: Iterable[str | Path | np.ndarray]) -> Iterator[Answer]:
        """Answer for images one after another, in their order; see `predict`."""
        for image in images:
            (answer,) = self.answer([_read(image)])
            if isinstance(answer, InputError):
                raise answer
            yield answer

    def answer(
        self,
        images: Sequence[tuple[str, DecodedImage]],
        of_files: Sequence[tuple[str, ...]] | None = None,
    ) -> list[Answer | InputError]:
        """Answer for images that were read, in one batch; an error where the network fails.

        Args:
            images: What each is called, and what it shows.
            of_files: What `file_warnings` said of each. None: each is called by its path, and the
                file is looked at.
        """
        originals = {str(row): image.pixels for row, (_, image) in enumerate(images)}
        source = LoosePixels.of(originals, self.model.preprocess.size)
        (part,) = self.model.predict(source, source.ids, source.sizes, len(source.ids))
        ran = pd.Index(part.images.loc[part.images["status"] == "ok", "image_id"])
        predictions = Predictions.in_memory(
            {"system": self.name, "kind": self.model.kind}, part.tables
        )
        rule = AS_STORED if self.decision is None else self.decision.boxes
        evidence = SystemOutput(predictions, self.target, ran, rule, source.sizes)
        output = decide(self.name, evidence, self.decision, self.policy, levels=self.levels)
        scores = _finding_scores(part.tables, self.model.findings)
        answers: list[Answer | InputError] = []
        for row, (called, image) in enumerate(images):
            key = str(row)
            if key not in ran:
                answers.append(InputError(f"{called}: the output of {self.name} is not finite"))
                continue
            prediction = output.prediction(key, system_colour(0))
            of_file = None if of_files is None else of_files[row]
            answers.append(
                Answer(
                    image=called,
                    system=self.name,
                    kind=self.model.kind,
                    finding=self.target.display_name,
                    score=cast(float, prediction.score),
                    probability=prediction.probability,
                    policy=self.policy,
                    threshold=prediction.threshold,
                    decision=prediction.decision,
                    boxes=_called_boxes(output.findings_of(key), prediction),
                    warnings=self.warnings(called, image, of_file, source.image(key)),
                    undecided_because=self.undecided_because,
                    notes=image_notes(image),
                    finding_scores=scores.get(key, dict.fromkeys(self.model.findings, 0.0)),
                    prediction=prediction,
                    pixels=image.pixels,
                )
            )
        return answers

    def warnings(
        self,
        called: str,
        image: DecodedImage,
        of_file: tuple[str, ...] | None = None,
        square: np.ndarray | None = None,
    ) -> tuple[str, ...]:
        """What speaks against an answer: its header where it is a file, and how it looks.

        `of_file` is what `file_warnings` said, None to look at the file; `square` the image at the
        model's size, where that was made already.
        """
        if of_file is None:
            of_file = () if called == _ARRAY else file_warnings(called, image)
        return of_file + (() if self.guard is None else self.guard.warnings(image, square=square))


def _read(image: str | Path | np.ndarray) -> tuple[str, DecodedImage]:
    if not isinstance(image, np.ndarray):
        return str(image), read_image(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise InputError(
            f"image: expected uint8 of shape (H, W) or (H, W, 3), but got {image.dtype} "
            f"{image.shape}"
        )
    grey = image if image.ndim == 2 else grey_from_rgb(image)
    return _ARRAY, DecodedImage(grey, decode_record(grey, []))


def _called_boxes(findings: np.ndarray, prediction: ImagePrediction) -> pd.DataFrame:
    """The boxes that count, each with its finding, by falling score."""
    counts = np.flatnonzero(prediction.boxes[:, 4] >= prediction.box_cut)
    order = counts[np.argsort(-prediction.boxes[counts, 4], kind="stable")]
    x1, y1, x2, y2, scores = prediction.boxes[order].T
    return pd.DataFrame(
        {"finding": findings[order], "x1": x1, "y1": y1, "x2": x2, "y2": y2, "score": scores}
    )


def _finding_scores(
    tables: Mapping[str, pd.DataFrame], findings: Sequence[str]
) -> dict[str, dict[str, float]]:
    """By image the score of each finding, in the order of the model's."""
    rows = tables["scores"] if "scores" in tables else tables["boxes"]
    scores: dict[str, dict[str, float]] = {}
    for image_id, finding, score in zip(
        rows["image_id"], rows["finding"], rows["score"], strict=True
    ):
        of_image = scores.setdefault(str(image_id), dict.fromkeys(findings, 0.0))
        of_image[finding] = max(of_image[finding], float(score))
    return scores


def _target(run: RunFolder) -> Target:
    """What a run was trained for; its display name lies with the validation predictions."""
    name, findings = str(run.info["target"]), tuple(run.info["findings"])
    stored = run.validation / "predictions.json"
    known = read_json(stored, "predictions").get("target") if stored.is_file() else None
    return Target(name, findings, str(known["display_name"] if known else name))


def _frozen_decision(
    model: TrainedModel, policy: str | None
) -> tuple[Decision | None, str, str | None]:
    """The decision of a run's training, which policy decides, and why it cannot where it cannot."""
    run, target = model.run, str(model.run.info["target"])
    usual = policy or POLICIES[0]
    if not run.decision_file(target).is_file():
        return None, usual, "run the same cxr train command again (adds the operating point)"
    decision = Decision.from_dict(read_json(run.decision_file(target), "decision"))
    # Another device computes the same, but for rounding; another precision does not.
    chosen_with = decision.chosen_on.get("inference_id")
    devices = dict.fromkeys((model.device, "cpu", "cuda"))
    if all(replace(model, device=device).inference_id() != chosen_with for device in devices):
        reason = "its operating point was chosen at another precision or with other weights"
        return None, usual, f"{reason}; run cxr tune on the run again"
    usual = decision.policy(policy, run.folder)
    return decision, usual, decision.thresholds[usual].reason
