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

from cxr_compare.data_prep.contracts.box_classes import class_column
from cxr_compare.data_prep.contracts.box_readings import FORMS, ORDERS, UNITS
from cxr_compare.data_prep.contracts.column_names import column_names, find_column, image_names
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.tables import require_members
from cxr_compare.data_prep.store.identify_folder import (
    folder_kind,
    require_kind,
    unfinished_kind,
)
from cxr_compare.data_prep.store.prediction_info import MadeOn
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.box_choice import BOXES_BY
from cxr_compare.evaluation.boxes.read_table import ColumnNames
from cxr_compare.evaluation.boxes.reading_advice import advice_for_result_file
from cxr_compare.evaluation.common_images import Images
from cxr_compare.evaluation.compare import EligibleSystems, check_names
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.output import System
from cxr_compare.evaluation.sources.eligibility import check_data_set
from cxr_compare.evaluation.sources.eligible import eligible_in_memory
from cxr_compare.evaluation.sources.ensemble import (
    join_both,
    joined_predictions,
    truths_of_findings,
)
from cxr_compare.evaluation.sources.from_frames import predictions_from_values
from cxr_compare.evaluation.sources.import_folder import as_predictions, data_set_record
from cxr_compare.evaluation.sources.import_options import ImportOptions
from cxr_compare.evaluation.sources.imported import read_rows
from cxr_compare.evaluation.sources.known_images import KnownImages
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.pixels import Pixels, pixels_of_data_set
from cxr_compare.evaluation.sources.read_predictions import read_system, store_decision
from cxr_compare.evaluation.sources.stored_predictions import (
    read_eligible,
    record_of,
    tune_predictions,
)
from cxr_compare.evaluation.sources.wide_tables import finding_name, score_columns
from cxr_compare.evaluation.tuning_options import TuningOptions
from cxr_compare.scripts import console
from cxr_compare.scripts.options import is_run, run_names

if TYPE_CHECKING:
    from cxr_compare.serving.network import Network

_OF_ONE = ("image", "score", "finding", "box_form", "box_unit", "box_order")
_OF_ALL = {"result_image": "image", "score": "score"}
_MAY_BE_NONE = ("score", "finding")


@dataclass(frozen=True)
class Question:
    """One finding: its labelled images, and what a reader of results must know of them.

    Attributes:
        order: Image of each row of a truth in memory, for scores without ids.
        split: Split of the data set; None without a data set.
        column: Column of a truth in memory that has one for each finding; None if it has one.
        findings: All findings of such a truth.
        coco: COCO file of the truth, whose numbers COCO results may have.
    """

    truth: LabelledImages
    known: KnownImages
    order: pd.Series | None = None
    split: LabelledSplit | None = None
    column: Any = None
    findings: tuple[str, ...] = ()
    coco: Path | None = None
    folder_pixels: Pixels | None = None

    @property
    def pixels(self) -> Pixels | None:
        """Reader of the pixels; None without image files."""
        if self.folder_pixels is not None:
            return self.folder_pixels
        if self.split is None or not self.split.dataset.has_pixels:
            return None
        return pixels_of_data_set(self.split.dataset, self.split.target.any_of)

    @property
    def made_on(self) -> MadeOn:
        """Record of the images that systems answered for."""
        if self.split is not None:
            return data_set_record(self.split.dataset, self.split.split)
        return MadeOn(name=self.truth.title, content_id="truth", split=self.truth.split)


def read_systems(given: Sequence[Any]) -> dict[str, Any]:
    """Return systems by name: a path for a text ``PATH`` or ``NAME=PATH``, else the value."""
    if len(given) == 1 and isinstance(given[0], list | tuple):
        given = list(given[0])
    pairs: list[tuple[str, Any]] = []
    if len(given) == 1 and isinstance(given[0], Mapping):
        pairs = [(str(name), value) for name, value in given[0].items()]
    else:
        for each in given:
            pairs += _named(each)
    named: dict[str, Any] = {}
    for name, value in pairs:
        if name in named:
            raise InputError(f"compare: two systems are called '{name}'; write NAME=PATH")
        if hasattr(value, "__len__") and not isinstance(value, str) and not len(value):
            raise InputError(f"{name}: is empty; give its scores or boxes")
        named[name] = Path(value) if isinstance(value, str) else value
        if isinstance(named[name], Path) and not named[name].exists():
            raise InputError(f"{value}: no such file or folder")
    if not named:
        raise InputError("compare: give at least one system")
    check_names(named)
    return named


def _named(given: Any) -> list[tuple[str, Any]]:
    if isinstance(given, Predictions):
        return [(given.name, given)]
    if not isinstance(given, str | os.PathLike):
        raise InputError(
            f"compare: a {type(given).__name__} has no name; give scores and boxes by the names of "
            "their systems, such as {'A': scores}"
        )
    return [(name or _usual_name(path), path) for name, path in run_names([os.fspath(given)])]


def _usual_name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def split_roles(roles: Sequence[str]) -> tuple[tuple[str, ...], dict[str, dict[str, str]]]:
    """Return the roles of columns of the truth, and those of results by system and role.

    ``SYSTEM.ROLE=COLUMN`` is of one system; ``score`` and ``result_image`` are of all, under "".

    Example:
        >>> split_roles(["label=y", "A.score=p", "score=q"])
        (('label=y',), {'A': {'score': 'p'}, '': {'score': 'q'}})
    """
    of_truth: list[str] = []
    of_results: dict[str, dict[str, str]] = {}
    for text in roles:
        role, equals, column = text.partition("=")
        system, dot, own = role.rpartition(".")
        if equals and dot:
            if own not in _OF_ONE or not system or not (column or own in _MAY_BE_NONE):
                written = ", ".join(f"SYSTEM.{each}" for each in _OF_ONE)
                raise InputError(f"columns {text}: write ROLE=COLUMN, for one system {written}")
            of_results.setdefault(system, {})[own] = column
        elif role in _OF_ALL and column:
            of_results.setdefault("", {})[_OF_ALL[role]] = column
        else:
            of_truth.append(text)
    return tuple(of_truth), of_results


@dataclass
class Systems:
    """The systems of one call, each read once, or for a truth with many columns once a finding.

    Attributes:
        given: What was given of each system, by name.
        columns: Names of columns in results by system ("" for all) and role.
        folder: Folder of what is predicted and joined.
        several: True if several findings are compared.
        overwrite: True replaces predictions of another training.
        boxes_by: Figure that chooses how the boxes of the joint system are gated.
    """

    given: Mapping[str, Any]
    columns: Mapping[str, Mapping[str, str]]
    folder: Path
    both: bool = False
    several: bool = False
    overwrite: bool = False
    boxes_by: str = BOXES_BY
    _read: dict[str, Predictions | System] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names of columns that are of no system."""
        files = {value.stem for value in self.given.values() if isinstance(value, Path)}
        for system, columns in self.columns.items():
            for role, column in columns.items():
                if system and system not in {*self.given, *files}:
                    raise InputError(
                        f"columns {system}.{role}={column}: no system is called '{system}'; the "
                        f"systems are {', '.join(self.given)}"
                    )
                allowed = {"box_form": FORMS, "box_unit": UNITS, "box_order": ORDERS}.get(role)
                if allowed and column not in allowed:
                    raise InputError(
                        f"columns {system}.{role}={column}: choose one of {', '.join(allowed)}"
                    )

    def read(self, question: Question) -> dict[str, Predictions | System]:
        """Return what each system says, without the joint one; runs are predicted first."""
        if question.column is None and self._read:
            return self._read
        read: dict[str, Any] = {}
        for name, value in self.given.items():
            if isinstance(value, os.PathLike) and not isinstance(value, Predictions):
                if is_run(Path(value)):
                    read[name] = _predictable(value, question)
                    continue
                value = Path(value)
            read[name] = self._read_one(value, name, question)
        for name, network in read.items():
            if not isinstance(network, Predictions | System) and question.split is not None:
                read[name] = self._predicted(network, name, question.split)
        self._read = read
        return read

    def reason_to_leave_out(self, question: Question) -> str:
        """Return why one of several findings cannot be compared; empty if it can."""
        for name, value in self.given.items():
            if question.column is not None and _of_column(value, name, question) is None:
                return f"{name} says nothing about it"
        if question.column is None:
            for name, read in self.read(question).items():
                known = _findings_of(read)
                if known and known.isdisjoint(question.truth.findings):
                    return f"{name} says nothing about it"
        if question.truth.labels_of("test").dropna().nunique() < 2:
            return "its test images are of one class"
        return ""

    def eligible(self, question: Question, images: Images) -> EligibleSystems:
        """Return the systems on the images on which they are compared."""
        read = dict(self.read(question))
        if self.both:
            name = " + ".join(read)
            if name in read:
                raise InputError(f"both: a system is called '{name}' already; rename it")
            console.say(f"Joining {name}")
            read[name] = self._joined(list(read.values()), name, question)
        if question.split is not None:
            stored: dict[str, Any] = {
                name: each if isinstance(each, Predictions) else self._stored(each, question)
                for name, each in read.items()
            }
            return read_eligible(stored, question.split, images)
        systems = {name: _system(each, question.truth) for name, each in read.items()}
        return eligible_in_memory(systems, question.truth, images)

    def _columns_of(self, name: str, path: Path | None = None) -> ColumnNames:
        of_file = {} if path is None else self.columns.get(path.stem, {})
        named: dict[str, Any] = {
            **self.columns.get("", {}),
            **of_file,
            **self.columns.get(name, {}),
        }
        return ColumnNames(**named, score_is_named="score" in named)

    def _read_one(self, value: Any, name: str, question: Question) -> Predictions | System:
        if isinstance(value, Path) and (folder_kind(value) or unfinished_kind(value)):
            require_kind(value, "predictions")
            value = Predictions.open(value)
        if isinstance(value, Predictions):
            if question.split is not None:
                check_data_set(name, value, question.split.dataset)
            elif value.info.data_set is not None:
                raise InputError(f"{name}: holds predictions of a data set; give it as data")
            else:
                require_members(value.images["image_id"], question.truth.images, value.folder)
            return value
        truth = question.truth
        if not isinstance(value, Path):
            if question.column is not None:
                value = _of_column(value, name, question)
            columns = self._columns_of(name)
            read = predictions_from_values(
                name, value, question.known, question.order, truth.split, columns
            )
        else:
            if question.column is not None:
                raise InputError(
                    f"{name}: with several findings in memory, give a frame of scores or boxes"
                )
            usual = truth.finding if truth.finding in truth.findings else truth.findings[0]
            options = ImportOptions(
                name,
                columns=self._columns_of(name, value),
                split=truth.split,
                coco_truth=question.coco,
                usual_finding=None if self.several else usual,
                advice=advice_for_result_file(name),
            )
            read = read_rows(value, question.known, options)
        if read.gives_boxes and read.boxes.empty:
            where = value if isinstance(value, Path) else name
            raise InputError(f"{where}: holds no box; give results that have some")
        return read

    def _stored(self, read: System, question: Question) -> Predictions:
        given = self.given[read.name]
        caption = given.name if isinstance(given, Path) else f"<{type(given).__name__}>"
        return as_predictions(read, question.made_on, caption)

    def _predicted(self, network: Network, name: str, split: LabelledSplit) -> Predictions:
        from cxr_compare.serving.predict_data import predict_data_set, predicted_before

        made = self.folder / "systems" / re.sub(r"[^\w.+-]+", "_", name)
        stored = predicted_before(network, split.dataset, made, split.split)
        if stored is not None:
            return stored
        if (made / "predictions.json").is_file():
            if not self.overwrite:
                raise InputError(f"{made}: holds predictions of another training; say overwrite")
            shutil.rmtree(made)
        return predict_data_set(network, split.dataset, made, split.split, console, name=name)

    def _joined(self, members: Sequence[Any], name: str, question: Question) -> Predictions:
        truth, split = question.truth, question.split
        opened = [
            each if isinstance(each, Predictions) else self._stored(each, question)
            for each in members
        ]
        if split is None:
            sizes = truth.images.reindex(columns=["image_id", "width", "height"])
            truths = dict.fromkeys(truth.findings, truth)
            joined = join_both(opened, truths, sizes, boxes_by=self.boxes_by)
            return joined_predictions(opened, joined, name)
        truths = truths_of_findings(opened, split.dataset, split.split, split.target.any_of)
        joined = join_both(opened, truths, split.dataset.images, boxes_by=self.boxes_by)
        of_finding = self.folder / truth.finding if self.several else self.folder
        made = of_finding / "systems" / "both"
        shutil.rmtree(made, ignore_errors=True)
        predictions = joined_predictions(opened, joined, name, made, split.dataset)
        options = TuningOptions(boxes_by=self.boxes_by)
        decision = tune_predictions(predictions, split, options=options)
        store_decision(predictions, decision)  # for cxr predict --joint
        return predictions


def _predictable(run: os.PathLike[str], question: Question) -> Network:
    """Open a run; one that cannot be predicted is refused before the first one takes its hours."""
    from cxr_compare.serving.network import open_network

    folder = Path(run)
    if question.split is None:
        raise InputError(f"{folder}: is a run; give its images as a data set (data)")
    # A Run that is open may have a network of the user's own.
    network: Network = getattr(run, "network", None) or open_network(folder)
    findings = network.info.findings
    question.split.dataset.require_labelled({name: name for name in findings}, folder)
    return network


def _findings_of(read: Predictions | System) -> set[str]:
    """Return the findings that a system says something about; empty if unknown."""
    if isinstance(read, Predictions):
        return set(read.info.findings)
    return {*read.scores["finding"], *read.boxes["finding"]}


def _system(read: Predictions | System, truth: LabelledImages) -> System:
    if isinstance(read, System):
        return read.of_findings(truth.findings)
    system = read_system(read, Target(truth.finding, truth.findings, truth.shown_name))
    record = {**record_of(read), "trained_on": "unknown"}
    return replace(system, facts=replace(system.facts, record=record))


def _of_column(value: Any, name: str, question: Question) -> Any:
    """Return the scores or boxes of one of several findings; None if there are none."""
    finding, findings = question.truth.finding, question.findings
    if not isinstance(value, pd.DataFrame):
        raise InputError(
            f"{name}: with several findings give a frame with a column of scores for each of "
            f"{', '.join(findings)}, or with a column 'finding'"
        )
    columns = score_columns(list(value.columns), findings, name)
    if columns:
        return _scores(value, columns[finding]) if finding in columns else None
    kind = class_column(value)
    if kind is None:
        raise InputError(
            f"{name}: has no column of {', '.join(findings)}, and no column 'finding' with the "
            "finding of each row"
        )
    rows = value[value[kind].map(lambda text: finding_name(str(text))) == finding]
    return rows.drop(columns=kind).reset_index(drop=True) if len(rows) else None


def _scores(value: pd.DataFrame, column: Any) -> Any:
    """Return one column of scores with its image ids, or in the order of the truth."""
    names = [str(name) for name in value.columns]
    image = find_column(names, ("image_id", *column_names("file"), *image_names(names)))
    if image is not None:
        ids = value[value.columns[names.index(image)]]
        return pd.DataFrame({"image_id": ids.to_numpy(), "score": value[column].to_numpy()})
    if isinstance(value.index, pd.RangeIndex):
        return value[column].to_numpy()
    return value[column]
