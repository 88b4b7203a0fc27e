"""What an export says of single images, without torch and pandas: the program of its folder.

    python -m serving.exported EXPORT [EXPORT ...] IMAGE|FOLDER ... [--json] [--policy NAME]

It prints what ``cxr predict`` prints of the same images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from data_prep.contracts.errors import InputError
from data_prep.contracts.json_files import read_json
from data_prep.contracts.words import counted
from data_prep.images.image import DecodedImage
from data_prep.store.decode import find_files, read_loose
from data_prep.store.preprocess import Frame, frame_in_original, letterbox
from evaluation.decisions.decision_rule import CalledImage, DecisionRule, call_boxes, call_scores
from evaluation.decisions.thresholds import POLICIES
from serving.exported.exported_model import ExportedModel, scores_of
from serving.exported.spec import EXPORT_FILE
from serving.guard import GUARD_NAME, Guard, file_warnings, image_notes
from serving.plain_answer import AnswerPrinter, PlainAnswer


@dataclass(frozen=True)
class ExportedSystem:
    """An export that answers for single images; make one with `ExportedSystem.open`.

    Attributes:
        name: Display name of the system.
        model: The network.
        rule: What validation chose; None where the export has no decision.
        policy: Of its thresholds the one that decides.
        undecided_because: Why it cannot decide, else None.
        guard: Tells what is no frontal chest X-ray; None where the export has none.
    """

    name: str
    model: ExportedModel
    rule: DecisionRule | None
    policy: str
    undecided_because: str | None
    guard: Guard | None

    @classmethod
    def open(
        cls, folder: str | Path, *, name: str | None = None, policy: str | None = None
    ) -> ExportedSystem:
        """Open a complete export.

        Args:
            folder: Made by ``cxr export``.
            name: Display name; the run's own by default.
            policy: Which of the frozen thresholds decides; ``max_f1`` by default, or the first
                that the run was tuned for.

        Raises:
            InputError: The folder is no complete export, or its decision has no such policy.
        """
        folder = Path(folder)
        model = ExportedModel.open(folder)
        called = name or str(model.spec.run.get("name") or folder.resolve().name)
        path = folder / GUARD_NAME
        guard = Guard.read(path) if path.is_file() else None
        decision = folder / "decisions" / f"{model.spec.target['name']}.json"
        if not decision.is_file():
            reason = "it was exported without an operating point; train or tune its run again"
            return cls(called, model, None, policy or POLICIES[0], reason, guard)
        rule = DecisionRule.from_json(read_json(decision, "decision"))
        chosen = rule.policy(policy, folder)
        return cls(called, model, rule, chosen, rule.thresholds[chosen].reason, guard)

    def answer(self, called: str, image: DecodedImage) -> PlainAnswer:
        """Answer for an image that was read.

        Args:
            called: Its path.
            image: What it shows.

        Raises:
            InputError: The network's output is not finite.
        """
        found = self._call(called, image.pixels)
        warnings = self.guard.warnings(image, called) if self.guard else None
        return PlainAnswer(
            image=called,
            system=self.name,
            kind=self.model.kind,
            finding=str(self.model.spec.target["display_name"]),
            score=found.score,
            probability=found.probability,
            policy=self.policy,
            threshold=found.threshold,
            decision=found.decision,
            boxes=found.boxes,
            warnings=file_warnings(called, image) if warnings is None else warnings,
            undecided_because=self.undecided_because,
            notes=image_notes(image),
        )

    def _call(self, called: str, pixels: np.ndarray) -> CalledImage:
        spec = self.model.spec
        square, placement = letterbox(pixels, spec.size)
        outputs = self.model.session.run(square[None, None])
        wanted = [k for k, name in enumerate(spec.findings) if name in spec.target["any_of"]]
        height, width = pixels.shape
        broken = InputError(f"{called}: the output of {self.name} is not finite")
        if self.model.kind == "boxes":
            (found,) = self.model.decode(outputs)
            if not found.finite:
                raise broken
            boxes = placement.to_original(found.boxes, width, height)
            # A box that lay in the letterbox's border has no area left.
            shown = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
            shown &= np.isin(found.labels - 1, wanted)
            names = [spec.findings[label - 1] for label in found.labels[shown]]
            scores = found.scores[shown].astype(np.float64)
            return call_boxes(self.rule, self.policy, names, boxes[shown], scores, (width, height))
        shares, maps = scores_of(outputs["logits"])[0], outputs["maps"][0].astype(np.float64)
        if not (np.isfinite(shares).all() and np.isfinite(maps).all()):
            raise broken
        frame = frame_in_original(cast(Frame, spec.map_frame), placement)
        return call_scores(
            self.rule,
            self.policy,
            {spec.findings[k]: float(shares[k]) for k in wanted},
            {spec.findings[k]: maps[k] for k in wanted},
            frame,
        )


def main(arguments: Sequence[str] | None = None, own_folder: Path | None = None) -> int:
    """Run the program.

    Args:
        arguments: Of the command line.
        own_folder: The export that the program lies in, which need not be given then.

    Returns:
        The exit code: 1 where a file was left out, 2 where nothing could be answered.
    """
    try:
        return _answer_all(_parse(arguments), own_folder)
    except InputError as error:
        _say(f"cxr: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Answer for chest X-rays by exported networks. Research use only, not a "
        "medical device."
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH",
        help="exports, as EXPORT or NAME=EXPORT, then images or folders of images",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a JSON list instead of lines")
    parser.add_argument("--policy", help="which of the frozen thresholds decides, as max_f1")
    return parser.parse_args(arguments)


def _answer_all(asked: argparse.Namespace, own_folder: Path | None) -> int:
    exports, sources = _sort_paths(asked.paths, own_folder)
    files = find_files(sources)
    systems = _open_systems(exports, asked.policy)
    printer = AnswerPrinter(asked.json, _say)
    answered = 0
    for each in read_loose(files):
        try:
            if each.image is None:
                raise InputError(str(each.problem))
            image, called = each.image, str(each.path)
            printer.write([system.answer(called, image) for system in systems])
            answered += 1
        except InputError as error:
            if len(files) == 1:
                raise
            printer.leave_out(each.path, str(error))
    printer.close()
    if not answered:
        raise InputError(f"none of {counted(len(files), 'file')} was answered; see above")
    if answered < len(files):
        _say(f"{counted(len(files) - answered, 'file')} left out of {len(files)}, see above")
    return 0 if answered == len(files) else 1


def _sort_paths(
    paths: Sequence[str], own_folder: Path | None
) -> tuple[list[tuple[str | None, Path]], list[Path]]:
    """Tell exports, each with the name given to it, from images."""
    exports: list[tuple[str | None, Path]] = []
    sources = []
    for text in paths:
        name, equals, rest = text.partition("=")
        named = bool(equals) and not Path(text).exists()
        path = Path(rest) if named else Path(text)
        if (path / EXPORT_FILE).is_file():
            exports.append((name if named else None, path))
        elif named:
            raise InputError(f"{text}: {path} is not an export; NAME=PATH names one of cxr export")
        else:
            sources.append(path)
    if not exports and own_folder is not None and (own_folder / EXPORT_FILE).is_file():
        exports.append((None, own_folder))
    if not exports:
        raise InputError(f"{paths[0]}: is not an export, which a folder of cxr export is")
    if not sources:
        raise InputError("give images or folders of images behind the export")
    return exports, sources


def _open_systems(
    exports: Sequence[tuple[str | None, Path]], policy: str | None
) -> list[ExportedSystem]:
    """Open the exports; those of one name are told apart by format and precision, then folder."""
    systems = [ExportedSystem.open(path, name=name, policy=policy) for name, path in exports]
    for tell_apart in (
        lambda system: f"{system.name} {system.model.spec.backend}",
        lambda system: str(system.model.folder),
    ):
        names = [system.name for system in systems]
        systems = [
            replace(system, name=tell_apart(system)) if names.count(system.name) > 1 else system
            for system in systems
        ]
    for system in systems:
        if system.undecided_because:
            _say(f"{system.name}: undecided: {system.undecided_because}")
        if system.guard is None:
            _say(f"{system.name}: has no guard, which tells what is no chest X-ray")
    return systems
