"""The systems of `cxr compare`: what the user gives of each, read for the images of a question."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxr_compare.commands import console
from cxr_compare.commands.options import is_run, run_names
from cxr_compare.commands.questions import Question
from cxr_compare.data_prep.base.box_check import FORMS, ORDERS, UNITS
from cxr_compare.data_prep.base.errors import InputError, Remedy, as_typed
from cxr_compare.data_prep.base.files import require_there
from cxr_compare.data_prep.base.folders import (
    folder_kind,
    folder_state,
    require_folder,
    unfinished_kind,
)
from cxr_compare.data_prep.base.names import finding_name
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.predictions import Predictions, PredictionsInfo
from cxr_compare.evaluation.inputs.classes import EXCLUSIVE, TOGETHER, output_of_none, read_classes
from cxr_compare.evaluation.inputs.files import classes_named, read_lines
from cxr_compare.evaluation.inputs.folders import (
    learned_validation,
    output_of,
    refuse_seen,
)
from cxr_compare.evaluation.inputs.frames import findings_of_table, scores_of_findings
from cxr_compare.evaluation.inputs.read_output import read_output
from cxr_compare.evaluation.inputs.rows import way
from cxr_compare.evaluation.joint import join
from cxr_compare.evaluation.notes import unknown_training
from cxr_compare.evaluation.output import GIVEN_SCORES, ImageScore, Output, image_score_name
from cxr_compare.evaluation.report import files
from cxr_compare.training.run_info import RunInfo

if TYPE_CHECKING:
    from cxr_compare.serving.network import Network

_SEVERAL = ("finding", "unused")
"""Roles that several columns of a truth may have."""
_OF_TRUTH = (
    *("image", "label", "no_finding", "state", "negated", "reader", "patient", "study", "view"),
    *("role", "crowd", *_SEVERAL, "box_form", "box_unit", "classes"),
)
_OF_ONE = ("image", "score", "image_score", "finding", "box_form", "box_unit", "box_order")
_OF_ALL = {"result_image": "image", "score": "score"}
_MAY_BE_NONE = ("score", "image_score", "finding")
_OF_DATA = Remedy("FOLDER is the data set of its images", {"data": "FOLDER"})
_CHOICES = {
    "box_form": FORMS,
    "box_unit": UNITS,
    "box_order": ORDERS,
    "classes": (EXCLUSIVE, TOGETHER),
}


def read_systems(systems: Sequence[Any]) -> dict[str, Any]:
    """Return systems by name: a path for a text ``PATH`` or ``NAME=PATH``, else the value."""
    if len(systems) == 1 and isinstance(systems[0], list | tuple):
        systems = list(systems[0])
    pairs: list[tuple[str, Any]] = []
    if len(systems) == 1 and isinstance(systems[0], Mapping):
        pairs = [(str(name), value) for name, value in systems[0].items()]
    else:
        for system in systems:
            pairs += _named(system)
    value_by_name: dict[str, Any] = {}
    for name, value in pairs:
        if name in value_by_name:
            raise InputError(f"compare: two systems are called '{name}'; write NAME=PATH")
        if name.startswith("image-blind with "):
            raise InputError(f"{name}: is the name of a baseline; rename the system")
        if not name.isprintable():
            raise InputError(f"{name}: is no name that a table can show; rename the system")
        if not name.strip():
            raise InputError("compare: a system has no name; write NAME=PATH")
        is_table = isinstance(value, str | pd.DataFrame)  # a table of no box has columns
        is_list = isinstance(value, list)  # of boxes in no image
        if hasattr(value, "__len__") and not (is_table or is_list) and not len(value):
            raise InputError(f"{name}: is empty; give its scores or boxes")
        value_by_name[name] = Path(value) if isinstance(value, str) else value
        if isinstance(value_by_name[name], Path):
            require_there(value_by_name[name])
    if not value_by_name:
        raise InputError("compare: give at least one system")
    return value_by_name


def _named(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Predictions):
        return [(value.name, value)]
    if not isinstance(value, str | os.PathLike):
        raise InputError(
            f"compare: a {type(value).__name__} has no name; give scores and boxes by the names of "
            "their systems, such as {'A': scores}"
        )
    return [(name or _usual_name(path), path) for name, path in run_names([os.fspath(value)])]


def _usual_name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def split_roles(roles: Sequence[str]) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """Return the columns of the truth by role, and those of results by system and role.

    ``SYSTEM.ROLE=COLUMN`` is of one system; ``score`` and ``result_image`` are of all, under "".
    ``means:TEXT=MEANING`` is of the truth.

    Examples:
        >>> split_roles(["label=y", "A.score=p", "score=q"])
        ({'label': 'y'}, {'A': {'score': 'p'}, '': {'score': 'q'}})
    """
    of_truth: dict[str, Any] = {}
    of_results: dict[str, dict[str, str]] = {}
    for text in roles:
        role, equals, column = text.partition("=")
        system, dot, role_of_system = role.rpartition(".")
        if text.startswith("means:"):
            role, _, column = text.rpartition("=")
            of_truth[role] = column
            continue
        given = as_typed({"columns": [text]})
        allowed = _OF_ONE if dot else (*_OF_TRUTH, *_OF_ALL)
        is_complete = equals and (system or not dot)
        may_be_none = role_of_system in (_MAY_BE_NONE if dot else ("state",))
        if role_of_system not in allowed or not is_complete or not (column or may_be_none):
            written = "SYSTEM.ROLE=COLUMN for one system" if dot else "ROLE=COLUMN"
            names = ", ".join(allowed)
            raise InputError(f"{given}: write {written}; the roles are {names}")
        if column not in _CHOICES.get(role_of_system, (column,)):
            raise InputError(f"{given}: choose one of {', '.join(_CHOICES[role_of_system])}")
        if dot or role in _OF_ALL:
            of_results.setdefault(system, {})[_OF_ALL.get(role, role_of_system)] = column
        elif role in _SEVERAL:
            of_truth[role] = [*of_truth.get(role, ()), column]
        else:
            of_truth[role] = column
    return of_truth, of_results


def shared_question(
    systems: Mapping[str, Any], data: Any, target: list[str], split: str | None
) -> tuple[list[str], str | None]:
    """Return the target and the split that are asked for, or else those that all runs share.

    Predictions share as runs do. One that was made on another data set has no say on the split, and
    a target must have the same findings here as there.
    """
    if data is None:
        return target, split
    dataset = data if isinstance(data, DataSet) else DataSet.open(data)
    records = [record for record in map(_record, systems.values()) if record is not None]
    made_on = [record.data_set for record in records if record.data_set is not None]
    splits = {
        data_set_used.split
        for data_set_used in made_on
        if data_set_used.content_id == dataset.ids.content_id
    }
    if split is None:
        shared = splits.pop() if len(splits) == 1 else None
        split = shared if shared in dataset.split_names else "default"
        if split != "default":
            console.say(f"split: {split}, as all runs have it")
    if not target and len(dataset.targets) > 1:
        learned = [
            {
                name
                for name, target_of_set in dataset.targets.items()
                if {*target_of_set.any_of} == {*record.findings}
                and getattr(record, "target", name) == name
            }
            for record in records
            if record.findings
        ]
        common = set.intersection(*learned) if learned else set()
        if len(common) == 1:
            target = [*common]
            console.say(f"target: {target[0]}, as all runs have it")
    return target, split


def _record(system: Any) -> RunInfo | PredictionsInfo | None:
    """Return the record of a run, an export, or predictions; None of any other system."""
    if isinstance(system, Predictions):
        return system.info
    kind = folder_kind(Path(system)) if isinstance(system, os.PathLike) else None
    if kind is None:
        return None
    path = Path(system) / kind.record
    if kind.name == "export":
        from cxr_compare.serving.onnx_file import ExportInfo

        return ExportInfo.read(path).run
    if kind.name == "run":
        return RunInfo.read(path)
    return PredictionsInfo.read(path) if kind.name == "predictions" else None


@dataclass
class Systems:
    """The systems of one call.

    Attributes:
        inputs: What the user gives of each system, by name.
        columns: Names of columns in results by system ("" for all) and role.
        both: True adds the system that joins all others.
        overwrite: True replaces predictions of another training.
        image_score: Rule by which boxes of detectors are reduced to the scores of images; None for
            the best box, or for scores of images that were given beside the boxes.
    """

    inputs: Mapping[str, Any]
    columns: Mapping[str, Mapping[str, str]]
    both: bool = False
    overwrite: bool = False
    image_score: ImageScore | None = None
    _networks: dict[str, Network] = field(default_factory=dict)
    _values: dict[str, Any] = field(default_factory=dict)
    _classes: dict[str, set[str]] = field(default_factory=dict)
    _called: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Refuse names of columns that are of no system."""
        stems = {value.stem for value in self.inputs.values() if isinstance(value, Path)}
        for system, columns in self.columns.items():
            if system not in {"", *self.inputs, *stems}:
                role, column = next(iter(columns.items()))
                given = as_typed({"columns": {f"{system}.{role}": column}})
                raise InputError(
                    f"{given}: no system is called '{system}'; the systems are "
                    f"{', '.join(self.inputs)}"
                )
        if self.both and " + ".join(self.inputs) in self.inputs:
            raise InputError(f"both: a system is called '{' + '.join(self.inputs)}'; rename it")

    def reason_to_leave_out(self, question: Question, questions: Sequence[Question]) -> str:
        """Return why one of several findings cannot be compared; empty if it can."""
        findings = [other.truth.finding for other in questions]
        for name in self.inputs:
            if self._says(name, question, findings) or question.others:  # else it calls no class
                continue
            if question.truth.classes:
                raise InputError(
                    f"{name}: says nothing of {question.truth.finding}, and each image is of one "
                    f"of {', '.join(findings)}; give its scores"
                )
            return f"{name} says nothing about it"
        if question.truth.of("test").images["label"].nunique() < 2:
            return "its test images are of one class"
        validation = question.truth.of("val")
        sick = set(validation.owners[validation.positive])
        if self.both and min(len(sick), len(set(validation.owners) - sick)) < 2:
            return "fewer than two validation patients have it, or are without it, to join systems"
        return ""

    def _says(self, name: str, question: Question, findings: Sequence[str]) -> bool:
        """Return True unless what was given of a system names other findings only."""
        if self._is_run(name):
            return self._knows(self._network(name, question).info, question)
        value = self._value(name, question)
        if isinstance(value, Predictions):
            return self._knows(value.info, question)
        if not isinstance(value, Path | pd.DataFrame):
            raise InputError(
                f"{name}: with several findings give a frame with a column of scores for each of "
                f"{', '.join(findings)}, or with a column 'finding'"
            )
        if name not in self._classes:  # read once, not for each finding
            if isinstance(value, pd.DataFrame):
                classes = findings_of_table(value, findings, self._where(name))
            else:
                classes = {finding_name(text) for text in classes_named(value)}
                classes = classes if classes & {*findings} else {*findings}
            self._classes[name] = classes
        return question.truth.finding in self._classes[name]

    @staticmethod
    def _knows(info: Any, question: Question) -> bool:
        if question.others:  # of a softmax it is 1 minus the sum of the others
            return bool(info.classes)
        any_of = (question.truth.finding,) if question.target is None else question.target.any_of
        return not info.findings or not set(info.findings).isdisjoint(any_of)

    def outputs(self, question: Question, folder: Path) -> dict[str, Output]:
        """Return what each system says; runs are predicted into a folder, once for all findings."""
        # What needs no work is read first: a wrong file is refused before hours of prediction.
        names = [
            name for name in self.inputs if not question.others or self._says(name, question, [])
        ]
        runs = {
            name: self._network(name, question)
            for name in names
            if name not in self._values and self._is_run(name)
        }
        outputs_read = {name: self._read(name, question) for name in names if name not in runs}
        for name, network in runs.items():
            self._values[name] = self._predict(network, name, question, folder)
            outputs_read[name] = self._read(name, question)
        outputs = {name: self._with_image_score(name, outputs_read[name]) for name in names}
        if self.both:
            name = " + ".join(outputs)
            console.say(f"Joining {name}")
            outputs[name] = join(outputs, question.truth)
        return outputs

    def _with_image_score(self, name: str, output: Output) -> Output:
        """Return an output with scores of images by the rule for all detectors."""
        if output.record.get("image_score") == GIVEN_SCORES:
            if self.image_score is not None:
                given = as_typed({"image_score": image_score_name(self.image_score)})
                raise InputError(
                    f"{given}: {name} has scores of images beside its boxes, which count; leave it "
                    "out",
                    [way(name, "image_score", "", "its boxes shall make them")],
                )
            return output
        reduced = output.by_image_score(self.image_score or "max")
        if reduced is None:
            return output
        return replace(output, scores=reduced.scores, record=reduced.record)

    def _network(self, name: str, question: Question) -> Network:
        """Open a run, once for all findings; one whose images or findings lack is refused."""
        if name not in self._networks:
            from cxr_compare.serving.network import open_network

            value, folder = self.inputs[name], Path(self.inputs[name])
            dataset = _data_set(question, folder)
            # A Run that is open may have a network of the user's own.
            network: Network = getattr(value, "network", None) or open_network(folder)
            dataset.require_labelled(network.info.findings, folder)
            self._networks[name] = network
        return self._networks[name]

    def _is_run(self, name: str) -> bool:
        value = self.inputs[name]
        is_folder = isinstance(value, os.PathLike) and not isinstance(value, Predictions)
        return is_folder and is_run(Path(value))

    def _where(self, name: str) -> str:
        """Return what messages call the value of a system."""
        value = self.inputs[name]
        return str(value) if isinstance(value, Path) else name

    def _value(self, name: str, question: Question) -> Any:
        """Return what a system gives, opened once; of exclusive classes with a column for each."""
        if name not in self._values:
            value = self.inputs[name]
            value = _opened(value) if isinstance(value, Path) else value
            if question.truth.classes and not isinstance(value, Predictions):
                value, is_called = read_classes(value, question.truth, name)
                self._called |= {name} if is_called else set()
            self._values[name] = value
        return self._values[name]

    def _read(self, name: str, question: Question) -> Output:
        truth, value = question.truth, self._value(name, question)
        if isinstance(value, Predictions):
            if question.others:
                return output_of_none([self._read(name, other) for other in question.others])
            return _of_predictions(name, value, question)
        path = self.inputs[name]
        stem = path.stem if isinstance(path, Path) else name
        columns: dict[str, str] = {}
        for system in ("", stem, name):
            columns |= self.columns.get(system, {})
        findings_named = self._classes.get(name, set())  # by the value, of several findings
        scores_of = {*scores_of_findings([columns.get("score", "")], [*findings_named])}
        if scores_of - {truth.finding}:
            given = as_typed({"columns": {f"{name}.score": columns["score"]}})
            raise InputError(
                f"{given}: has scores of {min(scores_of)}, and not of {truth.finding}; leave it "
                "out, so that each column is read"
            )
        output = read_output(
            value,
            truth,
            name,
            columns=columns,
            where=self._where(name),
            findings=_group(question),
            several=bool(findings_named),
        )
        ranks = output.ranks and name not in self._called
        return replace(output, ranks=ranks, notes=(*output.notes, unknown_training(name)))

    def _predict(
        self, network: Network, name: str, question: Question, folder: Path
    ) -> Predictions:
        from cxr_compare.serving.network import seen_by
        from cxr_compare.serving.predict_data import predict_data_set, predicted_before

        dataset, split = _data_set(question, Path(name)), question.split
        predictions_folder = folder / files.SYSTEMS / re.sub(r"[^\w.+-]+", "_", name)
        stored = predicted_before(network, dataset, predictions_folder, split)
        if stored is None:
            if folder_state(predictions_folder, "predictions") == "finished":
                if not self.overwrite:
                    text = f"{predictions_folder}: holds predictions of another training"
                    raise InputError(text, [Remedy(options={"overwrite": True})])
                shutil.rmtree(predictions_folder)
            stored = predict_data_set(
                network, dataset, predictions_folder, split, console, name=name, names_seen=False
            )
        stored.seen = seen_by(network)  # a report names no patient
        return stored


def _opened(path: Path) -> Any:
    """Return a predictions folder or a table that is opened, or else the path itself."""
    if folder_kind(path) or unfinished_kind(path):
        require_folder(path, "predictions")
        return Predictions.open(path)
    return read_lines(path) if path.is_file() and path.suffix.lower() != ".json" else path


def _of_predictions(name: str, predictions: Predictions, question: Question) -> Output:
    """Return the output in a predictions folder of the question's data set."""
    if question.dataset is None or question.target is None:
        raise InputError(f"{name}: holds predictions of a data set", [_OF_DATA])
    tested = question.truth.of("test").ids.intersection(predictions.images_run)
    notes = refuse_seen(name, predictions, question.dataset, tested)
    validation = question.truth.of("val").ids.intersection(predictions.images_run)
    notes += learned_validation(name, predictions, question.dataset, validation)
    output = output_of(predictions, question.truth, question.target)
    return replace(output, notes=(*notes, *output.notes))


def _data_set(question: Question, run: Path) -> DataSet:
    if question.dataset is None:
        raise InputError(f"{run}: is a run, which has no images", [_OF_DATA])
    return question.dataset


def _group(question: Question) -> tuple[str, ...]:
    """Return the findings of a target of several; empty for a question of one finding."""
    any_of = () if question.target is None else question.target.any_of
    return () if any_of == (question.truth.finding,) else any_of
