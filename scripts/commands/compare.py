"""`cxr compare`: evaluate several systems on the same test images and write the report."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.contracts.locks import LOCK_NAME, folder_lock
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.store.dataset import DataSet, Target
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.compare.protocol import Protocol
from cxr_compare.evaluation.decisions.thresholds import check_policy
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit
from cxr_compare.evaluation.systems.uses_log import log_use
from cxr_compare.scripts import console
from cxr_compare.scripts.options import DataFolder, Names, own_split, read_roles
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.systems import (
    ComparedSystem,
    ComparedSystems,
    GivenSystem,
    GivenValues,
    is_values,
    open_systems,
    predicts,
    read_compared,
    require_predictable,
    system_folder,
    values_caption,
)
from cxr_compare.serving.export_spec import is_export

if TYPE_CHECKING:
    import pandas as pd

    from cxr_compare.evaluation.compare.comparison import Comparison
    from cxr_compare.evaluation.report.cases import CaseSource
    from cxr_compare.evaluation.report.result import Report, ReportsByTarget
    from cxr_compare.evaluation.systems.prediction_files import ColumnNames

_ALL = "all"
_SEED = 0  # of the bootstrap and of random picks
_CASES = 8  # drawn of each kind: four in the report, others on pages
_State = dict[str, str]
_GOALS = {"sensitivity": "recall", "specificity": "specificity"}  # of a protocol, by metric


def _read_table(value: Any) -> Any:
    """Return a table in memory as it is; all else names a file or a folder."""
    return value if is_values(value) else as_path(value)


def _table_words(value: Any) -> list[str]:
    return [values_caption(value) if is_values(value) else str(value)]


Table = Annotated[Any, Argument(read=_read_table, write=_table_words, metavar="FILE")]
"""A table in a file or, from Python, an array, a Series or a frame."""


@command
def compare(
    systems: ComparedSystems,
    *,
    data: DataFolder | None = None,
    truth: Table = None,
    boxes: Table = None,
    patients: Table = None,
    columns: Annotated[Sequence[str], Argument(read=read_roles, metavar="ROLE=COLUMN")] = (),
    out: AnyPath | None = None,
    target: list[str] | None = None,
    split: str | None = None,
    images: Literal["all", "common"] = "all",
    replicates: Annotated[int, Argument(minimum=100)] = 2000,
    protocol: AnyPath | None = None,
    margin: float | None = None,
    prevalence: Annotated[str | None, Argument(read=str)] = None,
    unit: Literal["image", "study", "patient"] = "image",
    policy: list[str] | None = None,
    metrics: Names = (),
    reference_by: Literal["reader"] | None = None,
    overwrite: bool = False,
) -> Report | ReportsByTarget:
    """Evaluate systems on the same test images, and write the report.

    Thresholds come from validation only. A finished report keeps its question: another is refused;
    other rows are written anew.

    Args:
        systems: Predictions folders or runs, each as PATH, NAME=PATH or, of several training seeds,
            NAME=PATH,PATH,...; a run is predicted and tuned first. The first is the reference. From
            Python also scores or boxes by name: arrays, Series or frames.
        truth: In place of --data: labels as CSV (image_id, label 0 / 1 / empty, and where known
            patient_id, study_id, role), or true boxes as COCO JSON, CSV, or a folder of COCO, YOLO
            or CSV files. Systems are then result files, as in cxr import. From Python also an
            array, a Series or a frame. Without a role all images are test images.
        boxes: With --truth labels: true boxes, CSV image_id,x1,y1,x2,y2 in px of the original.
        patients: With --truth: CSV image_id,patient_id, for intervals by patient; from Python also
            an array in the order of the labels.
        columns: With --truth: columns as ROLE=COLUMN. score names the column of scores of the
            result files, result_image their column of image ids; all other roles are of the truth's
            CSV (docs/formats.md).
        out: Report folder to make; without it nothing is written, and each call predicts runs anew.
        target: Which target, where the data set has several. Several, or 'all': a report each, and
            a page that joins them.
        split: Evaluate test images of this split; by default the systems'.
        images: all: refuse systems whose images differ; common: evaluate the rest.
        replicates: Bootstrap replicates.
        protocol: TOML file that fixed the question beforehand: makes the report confirmatory
            (docs/evaluation.md).
        margin: Margin of non-inferiority and equivalence.
        prevalence: Share of positives at the place of use, for PPV and NPV there: 0.05, with its 95
            % interval 0.05:0.03-0.08, or counts 12/240.
        unit: study or patient: also the image-level figures by these, with the highest score of
            their images.
        policy: A policy as in cxr tune, beside those tuned; threshold=T needs no validation images.
        metrics: Rows of the report's table and of table.tex, in order: precision,recall,f1, or
            recall@specificity>=0.90 for another threshold; docs/metrics.md names all.
        reference_by: reader: also evaluate by each reader's own labels, and say whether the verdict
            stays.
        overwrite: Write a finished report of this folder anew.

    Returns:
        The answer, its figures as tables, and the report's page; of several targets one each.

    Raises:
        InputError: Systems, data and question do not fit, or the folder holds something else.

    Example:
        cxr compare RetinaNet=out/retinanet-predictions CheXNet=out/chexnet-predictions
        --data out/data --out out/report

        cxr compare --truth truth.json A=a.json B=b.json --patients patients.csv --out out/report
    """
    compared = read_compared(systems)
    data = as_path(data)
    out = as_path(out)
    protocol = as_path(protocol)
    if not compared:
        raise InputError("compare: give at least one system")
    if out is None or overwrite or not (out / files.METRICS).is_file():
        require_predictable(compared)  # here already, as reading the data set takes time
    only = target[0] if target and not target[1:] else None
    question = _read_question(protocol, margin, only)
    from cxr_compare.evaluation.report.summary_table import table_rows

    for name in policy or ():
        check_policy(name)
    rows = table_rows(metrics)
    wanted = [question.target] if question.target else target
    if data is not None and truth is None and boxes is None and patients is None:
        dataset = DataSet.open(data)
        split = own_split(split, [path for system in compared for path in system.paths], dataset)
        opened = [_open_values(system, dataset, split) for system in compared]
    elif truth is not None and data is None:
        names, columns_of_truth = _column_names(columns)
        dataset, order = _open_truth(truth, boxes, patients, columns_of_truth, wanted)
        split = own_split(split, [], dataset)
        opened = _open_files(compared, dataset, truth, order, names)
        if not dataset.image_ids("val").size and not policy:
            console.say(
                "Without validation images no threshold is chosen; --policy threshold=T gives one"
            )
    else:
        raise InputError(
            "compare: give --data SET, or --truth FILE with or without --boxes CSV, --patients CSV"
        )
    if reference_by and not dataset.readers:
        raise InputError(
            f"{dataset.folder}: --reference-by reader: its labels name no reader; cxr prepare "
            "keeps them from a column 'reader'"
        )
    asked = _Asked(
        protocol=question,
        policies=list(dict.fromkeys(policy or ())),
        evaluated={
            "images": images,
            "replicates": replicates,
            "seed": _SEED,
            "prevalence": prevalence,
            "unit": unit,
        },
        shown={"cases": _CASES, "thumbnails": files.MOST_THUMBNAILS},
        metrics=metrics,
        rows=rows,
        by_readers=reference_by is not None,
        overwrite=overwrite,
    )
    targets = _chosen_targets(dataset, wanted)
    test_sets = [LabelledSplit(dataset, target, split) for target in targets]
    if not test_sets[1:]:
        return asked.report(opened, test_sets[0], out)
    if out is None:
        raise InputError("compare: several targets need a folder for their reports; give --out")
    return _compare_each(asked, opened, test_sets, out)


def _column_names(roles: Sequence[str]) -> tuple[ColumnNames, tuple[str, ...]]:
    """Return the columns of the result files, and the texts ROLE=COLUMN that are of the truth."""
    from cxr_compare.evaluation.systems.prediction_files import ColumnNames

    fields = {"result_image": "image", "score": "score"}
    of_results = {}
    of_truth = []
    for text in roles:
        role, _, column = text.partition("=")
        if role in fields and column:
            of_results[fields[role]] = column
        else:
            of_truth.append(text)
    return ColumnNames(**of_results), tuple(of_truth)


def _open_truth(
    truth: Any,
    boxes: Any,
    patients: Any,
    columns: tuple[str, ...],
    wanted: list[str] | None,
) -> tuple[DataSet, pd.Index | None]:
    """Make a data set in memory of labels and true boxes, and its image ids in their order."""
    from cxr_compare.evaluation.systems.from_frames import truth_from_values
    from cxr_compare.evaluation.systems.imported import truth_set

    order = None
    if isinstance(truth, Path):
        given = [value for value in (boxes, patients) if value is not None]
        if any(not isinstance(value, Path) for value in given):
            raise InputError("compare: with truth in a file, boxes and patients are files, too")
        dataset = truth_set(truth, patients, console.say, boxes, columns)
    else:
        dataset, order = truth_from_values(truth, boxes=boxes, patients=patients)
    _chosen_targets(dataset, wanted)  # refuses before results are read
    if (dataset.images["patient_id_source"] == "assumed_image").any():
        console.say(
            f"Intervals are by image, for {_caption(truth)} does not name all patients: too narrow "
            "where patients have several images; give --patients CSV (image_id,patient_id)"
        )
    return dataset, order


def _open_files(
    systems: list[GivenSystem],
    dataset: DataSet,
    truth: Any,
    order: pd.Index | None,
    names: ColumnNames,
) -> list[ComparedSystem]:
    """Read result files and values as predictions in memory."""
    coco = truth if isinstance(truth, Path) and truth.suffix == ".json" else None
    opened: list[ComparedSystem] = []
    for given, members in systems:
        first = members[0]
        name = given or (first.stem if isinstance(first, Path) else f"system {len(opened) + 1}")
        read = [_open_member(member, name, dataset, coco, order, names) for member in members]
        for member, predictions in zip(members, read, strict=True):
            if predictions.kind == "boxes" and predictions.boxes.empty:
                raise InputError(f"{member}: holds no box; give results that have some")
            for note in predictions.info["notes"]:
                console.say(f"{name}: {note}")
        opened.append(ComparedSystem(name, [*read]))
    return opened


def _open_values(system: GivenSystem, dataset: DataSet, split: str) -> ComparedSystem:
    """Make predictions of a system's values in memory; what lies in folders stays as it is."""
    from cxr_compare.evaluation.systems.from_frames import predictions_from_values

    members: list[Path | Predictions] = [
        predictions_from_values(system.name or "system", member.value, dataset, None, split)
        if isinstance(member, GivenValues)
        else member
        for member in system.members
    ]
    return ComparedSystem(system.name, members)


def _open_member(
    member: Any,
    name: str,
    dataset: DataSet,
    coco: Path | None,
    order: pd.Index | None,
    names: ColumnNames,
) -> Predictions:
    from cxr_compare.evaluation.systems.from_frames import predictions_from_values
    from cxr_compare.evaluation.systems.imported import read_predictions

    if isinstance(member, GivenValues):
        return predictions_from_values(name, member.value, dataset, order)
    if isinstance(member, Predictions):
        return member
    return read_predictions(member, dataset, name=name, coco_truth=coco, columns=names)


def _caption(table: Any) -> str:
    return str(table) if isinstance(table, Path) else values_caption(table)


@dataclass(frozen=True)
class _Asked:
    """A comparison's question, for any of its targets."""

    protocol: Protocol
    policies: list[str]  # beside those that rows name
    evaluated: dict[str, Any]  # options of `compare_predictions`
    shown: dict[str, Any]  # options of `write_report`
    metrics: tuple[str, ...]
    rows: Sequence[Any]  # of the report's table
    by_readers: bool
    overwrite: bool

    def report(
        self, systems: list[ComparedSystem], test_set: LabelledSplit, out: Path | None
    ) -> Report:
        """Compare the systems on one target, and write the report where it has a folder."""
        if out is None:
            with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
                comparison = self._compare(systems, test_set, Path(folder))
            return self._unwritten(comparison, test_set)
        question = self.question(systems, test_set, out)
        answered = None if self.overwrite else _is_answered(out, question)
        if answered is False:
            console.say(f"{out}: the same comparison, to be shown otherwise: writing it anew")
        from cxr_compare.evaluation.report.result import Report

        if answered:
            console.say(f"{out}: this report exists already; --overwrite makes it anew")
            return Report.open(out)
        require_predictable(systems)
        require_only_files(out, files.OF_ONE_TARGET, "report", files.CASES_PAGES)
        with folder_lock(out):
            (out / files.METRICS).unlink(missing_ok=True)  # it is incomplete until its last file
            comparison = self._compare(systems, test_set, out)
            self._write(comparison, self.question(systems, test_set, out), test_set, out)
        return Report.open(out)

    def _unwritten(self, comparison: Comparison, test_set: LabelledSplit) -> Report:
        """Return a result that no folder holds, and that can be saved into one."""
        # Only now, for it imports what draws: the first figures have been shown.
        from cxr_compare.evaluation.report.result import Report

        def read_images() -> CaseSource:
            from cxr_compare.evaluation.report.cases import read_cases

            return read_cases(comparison, test_set.dataset, comparison.main_policy)

        def save(folder: str | Path) -> Report:
            folder = Path(folder)
            require_only_files(folder, files.OF_ONE_TARGET, "report", files.CASES_PAGES)
            make_folder(folder)
            with console.silent(True), folder_lock(folder):
                self._write(comparison, None, test_set, folder)
            return Report.open(folder)

        return Report.from_comparison(
            comparison,
            rows=self.rows,
            seed=self.evaluated["seed"],
            cases_source=read_images,
            writer=save,
        )

    def question(
        self, systems: list[ComparedSystem], test_set: LabelledSplit, out: Path
    ) -> dict[str, Any]:
        """Return the question as the report stores it: systems with their decisions, data, options.

        Of runs `out` holds the predictions, and so the decision.
        """
        target = test_set.target.name
        ids = test_set.ids
        return {
            "systems": {
                name or f"{number}. {_usual_name(members[0])}": _states(
                    name, members, test_set, out
                )
                for number, (name, members) in enumerate(systems, start=1)
            },
            "target": target,
            "data_set": ids["content_id"],
            "labels": ids["labels_id"],
            "split": ids["split_id"],
            "options": {
                **self.evaluated,
                "margin": self.protocol.margin,
                "policies": self.policies,
                "protocol": self.protocol.file_sha256,
                **({"reference_by": "reader"} if self.by_readers else {}),
            },
            "shown": {**self.shown, "metrics": ",".join(self.metrics)},
        }

    def _compare(
        self, systems: list[ComparedSystem], test_set: LabelledSplit, out: Path
    ) -> Comparison:
        """Compare the systems, and log that the test images were used."""
        from cxr_compare.evaluation.systems.stored_predictions import compare_predictions

        opened = open_systems(systems, test_set, out)
        of_rows = [row.policy for row in self.rows if row.policy]

        def evaluate(on: LabelledSplit, advance: Any = None) -> Comparison:
            return compare_predictions(
                opened,
                on,
                protocol=self.protocol,
                extra_policies=tuple(dict.fromkeys([*self.policies, *of_rows])),
                advance=advance,
                first=console.say if on.dataset.is_in_memory else None,
                **self.evaluated,
            )

        with console.track("Resampling patients", self.evaluated["replicates"]) as advance:
            comparison = evaluate(test_set, advance)
        if self.by_readers:
            from cxr_compare.evaluation.studies.reader_verdicts import evaluate_by_readers

            with console.track("Evaluating by each reader", None):
                comparison = evaluate_by_readers(comparison, test_set, evaluate)
        # Once the figures exist they count as seen, whatever becomes of the report.
        digest = self.protocol.file_sha256
        return comparison.with_uses(log_use(test_set, opened, digest))

    def _write(
        self,
        comparison: Comparison,
        question: dict[str, Any] | None,
        test_set: LabelledSplit,
        out: Path,
    ) -> None:
        from cxr_compare.evaluation.report.charts import report_charts
        from cxr_compare.evaluation.report.data_files import write_data_files
        from cxr_compare.evaluation.report.gallery import overlay_files
        from cxr_compare.evaluation.report.report import write_report
        from cxr_compare.evaluation.report.report_content import write_result

        seed = self.evaluated["seed"]
        charts = report_charts(comparison)
        with console.track("Drawing cases", None) as advance:
            write_report(
                comparison,
                test_set.dataset,
                out,
                seed=seed,
                rows=self.rows,
                progress=advance,
                charts=charts,
                **self.shown,
            )
        drawn = overlay_files(
            comparison, out / files.OVERLAYS, per_category=self.shown["cases"], seed=seed
        )
        write_result(comparison, out, rows=self.rows, seed=seed, overlays=drawn, charts=charts)
        write_data_files(comparison, out, question)


def _states(
    name: str | None,
    members: Sequence[Path | Predictions],
    test_set: LabelledSplit,
    out: Path,
) -> list[_State]:
    """Return digests that tell one training, prediction and tuning apart, for each seed."""
    states = []
    for number, member in enumerate(members, 1):
        if isinstance(member, Predictions):
            states.append({"predicted": _digest(member.info["inference_id"].encode())})
            continue
        steps = {}
        predicted = member
        if predicts(member) and not (member / "predictions.json").is_file():
            seed = f"{name}-{number}" if members[1:] else name or system_folder(member)
            steps["trained"] = member / ("export.json" if is_export(member) else "run.json")
            predicted = out / files.SYSTEMS / seed
        steps["predicted"] = predicted / "predictions.json"
        steps["tuned"] = predicted / "decisions" / f"{test_set.target.name}.json"
        found = {done: file.read_bytes() for done, file in steps.items() if file.is_file()}
        states.append({done: _digest(content) for done, content in found.items()})
    return states


def _usual_name(member: Path | Predictions) -> str:
    """Return the name of a system that was given without one."""
    return system_folder(member) if isinstance(member, Path) else str(member)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


_CHANGED = {
    "target": "another target is asked for",
    "data_set": "these are other images",
    "labels": "the labels have changed since",
    "split": "this is another split",
    # of a system
    "trained": "was another run, or not given as a run",
    "predicted": "had other predictions",
    "tuned": "was tuned otherwise",
    "seeds": "had other training seeds",
}


def _is_answered(out: Path, question: dict[str, Any]) -> bool | None:
    """Return True if the folder holds this report, None if it holds none.

    None where it holds no report; false where that shows other rows, cases or thumbnails. What a
    report keeps of a run, in its ``systems``, stands for the run.
    """
    if not (out / files.METRICS).is_file():
        return None
    report = read_json(out / files.METRICS, "metrics")
    before = report.get("question") or {}
    before = before if "shown" in before else {}
    kept = before.get("systems", {})
    now = {**question, "shown": before.get("shown")}
    now["systems"] = {
        name: kept[name] if _are_of(states, kept.get(name, ())) else states
        for name, states in question["systems"].items()
    }
    if other := next((key for key in now if before.get(key) != now[key]), None):
        evaluated = " and ".join(map(str, report.get("systems", [])))
        difference = _difference(other, before[other], now[other]) if before else ""
        raise InputError(
            f"{out}: holds a finished report of {evaluated} on '{report.get('target')}'{difference}"
            "; choose another --out, or add --overwrite"
        )
    return bool(before["shown"] == question["shown"])


def _are_of(states: Sequence[_State], kept: Sequence[_State]) -> bool:
    """Return True if a report kept the same states of the training seeds."""
    seeds = zip(states, kept, strict=False)
    return len(kept) == len(states) and all(now.items() <= was.items() for now, was in seeds)


def _difference(key: str, was: Any, now: Any) -> str:
    """Return the first difference between two questions as the end of a sentence."""
    if key in _CHANGED:
        return f", and {_CHANGED[key]}"
    if key == "systems" and was.keys() != now.keys():
        return ", and these are other systems"
    changed = next((name for name in now if was.get(name) != now[name]), None)
    if changed is None:
        return ""
    if key == "systems":
        pairs = zip(was[changed], now[changed], strict=False)
        done = next((d for kept, state in pairs for d in state if kept.get(d) != state[d]), "seeds")
        return f", and {changed.split('. ', 1)[-1]} {_CHANGED[done]}"
    words = ["none" if one in (None, []) else one for one in (was.get(changed), now[changed])]
    return f" with {changed} {words[0]}, not {words[1]}"


def _compare_each(
    asked: _Asked, systems: list[ComparedSystem], test_sets: list[LabelledSplit], out: Path
) -> ReportsByTarget:
    """Compare the same systems on every target, each into a folder of its own."""
    from cxr_compare.evaluation.report.result import ReportsByTarget
    from cxr_compare.evaluation.report.targets_page import write_targets_page

    targets = [test_set.target for test_set in test_sets]
    names = {target.name for target in targets}
    require_only_files(out, files.OF_ALL_TARGETS.union(names), "report on these targets")
    if reserved := sorted({*files.OF_ALL_TARGETS, LOCK_NAME} & names):
        raise InputError(f"compare: a target cannot be called '{reserved[0]}'; compare it alone")
    with folder_lock(out):
        # As predictions folders, so that no run is predicted once per target.
        opened = open_systems(systems, test_sets[0], out)
        predicted = [
            ComparedSystem(name, [m if m.tables else m.folder for m in members])
            for name, members in opened.items()
        ]
        for test_set in test_sets:
            own = out / test_set.target.name
            if not asked.overwrite:
                _is_answered(own, asked.question(predicted, test_set, own))
        # Without its page the folder is incomplete, whatever an earlier run had left.
        (out / files.PAGE).unlink(missing_ok=True)
        reports = {}
        for test_set in test_sets:
            console.say(f"{test_set.target.display_name}:")
            name = test_set.target.name
            reports[name] = asked.report(predicted, test_set, out / name)
            console.say(str(reports[name]))
        page = write_targets_page(out, targets, test_sets[0].dataset.name)
        return ReportsByTarget(reports, page)


def _chosen_targets(dataset: DataSet, names: list[str] | None) -> list[Target]:
    """Return the targets with these names, each once; ``all`` means all of the data set."""
    if names and _ALL in names and _ALL not in dataset.targets:
        return list(dataset.targets.values())
    if not names:
        return [dataset.target()]
    return [dataset.target(name) for name in dict.fromkeys(names)]


def _read_question(path: Path | None, margin: float | None, target: str | None) -> Protocol:
    """Return the question of a comparison, from a protocol file or from a margin."""
    if path is None:
        return Protocol(margin=margin)
    from cxr_compare.configs.load import read_protocol

    fixed, digest = read_protocol(path)
    for option, value, fixed_value in (
        ("target", target, fixed.target),
        ("margin", margin, fixed.margin),
    ):
        if value is not None and value != fixed_value:
            raise InputError(
                f"--{option} {value}: the protocol {path} fixed {fixed_value}; leave the option out"
            )
    metric, partner = (*fixed.metric, "")[:2]
    keys = fixed.model_dump(exclude={"goal"}) | {"subgroups": tuple(fixed.subgroups)}
    goals = {_GOALS[goal.metric]: goal.at_least for goal in fixed.goal}
    if len(goals) < len(fixed.goal):
        raise InputError(f"{path}: two goals are of one metric; leave one out")
    keys |= {"metric": metric, "partner": partner, "goals": goals}
    return Protocol(**keys, declared=True, file_sha256=digest)
