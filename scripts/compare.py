"""`cxr compare`: judge several systems on the same test images and write the report."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.folders import (
    LOCK,
    folder_lock,
    make_folder,
    read_json,
    require_only,
    write_json,
)
from cxr_compare.data_prep.store.dataset import DataSet, Target
from cxr_compare.evaluation.compare.protocol import Protocol, log_use
from cxr_compare.evaluation.decisions.test_set import TestSet
from cxr_compare.evaluation.decisions.thresholds import check_policy
from cxr_compare.evaluation.report import files
from cxr_compare.scripts import console
from cxr_compare.scripts.options import DataFolder, Names, own_split
from cxr_compare.scripts.runner import AnyPath, Argument, verb
from cxr_compare.scripts.systems import (
    System,
    Systems,
    decision_of_run,
    open_systems,
    predicts,
    require_predictable,
    system_folder,
)
from cxr_compare.serving.export_spec import is_export, tested_file

if TYPE_CHECKING:
    from cxr_compare.evaluation.compare.comparison import Comparison
    from cxr_compare.evaluation.report.result_tables import Report, ReportsByTarget

_ALL = "all"
_SAME_THRESHOLD = 0.01  # of one run's scores, by other batches and back ends
_State = dict[str, str]
_GOALS = {"sensitivity": "recall", "specificity": "specificity"}  # of a protocol, by metric


@verb
def compare(
    systems: Systems,
    *,
    data: DataFolder | None = None,
    truth: AnyPath | None = None,
    patients: AnyPath | None = None,
    out: AnyPath | None = None,
    target: list[str] | None = None,
    split: str | None = None,
    images: Literal["all", "common"] = "all",
    replicates: Annotated[int, Argument(least=100)] = 2000,
    seed: int = 0,
    protocol: AnyPath | None = None,
    margin: float | None = None,
    prevalence: Annotated[str | None, Argument(read=str)] = None,
    unit: Literal["image", "study", "patient"] = "image",
    policy: list[str] | None = None,
    cases: Annotated[int, Argument(least=1)] = 8,
    metrics: Names = (),
    thumbnails: Annotated[int, Argument(least=0)] = files.MOST_THUMBNAILS,
    reference_by: Literal["reader"] | None = None,
    overwrite: bool = False,
) -> Report | ReportsByTarget:
    """Judge systems on the same test images, and write the report.

    Thresholds come from validation only. A finished report keeps its question: another is refused;
    other rows, cases or thumbnails are written anew.

    Args:
        systems: Predictions folders or runs, each as PATH, NAME=PATH or, of several training seeds,
            NAME=PATH,PATH,...; a run is predicted and tuned first. The first is the reference.
        truth: In place of --data: true boxes as COCO JSON, CSV, or a folder of COCO, YOLO or CSV
            files. Systems are then result files, as in cxr import.
        patients: With --truth: CSV image_id,patient_id, for intervals by patient.
        out: Report folder to make; without it nothing is written, and each call predicts runs anew.
        target: Which target, where the data set has several. Several, or 'all': a report each, and
            a page that joins them.
        split: Judge test images of this split; by default the systems'.
        images: all: refuse systems whose images differ; common: judge the rest.
        replicates: Bootstrap replicates.
        seed: Seed of the bootstrap and of random picks.
        protocol: TOML file that fixed the question beforehand: makes the report confirmatory
            (docs/judging.md).
        margin: Margin of non-inferiority and equivalence.
        prevalence: Share of positives at the place of use, for PPV and NPV there: 0.05, with its 95
            % interval 0.05:0.03-0.08, or counts 12/240.
        unit: study or patient: also the image-level figures by these, with the highest score of
            their images.
        policy: A policy as in cxr tune, beside those tuned; threshold=T needs no validation images.
        cases: Cases of each kind to draw; four in the report, others on pages.
        metrics: Rows of the report's table and of table.tex, in order: precision,recall,f1, or
            recall@specificity>=0.90 for another threshold; docs/metrics.md names all.
        thumbnails: Most thumbnails on images.html, wrongly judged images first; 0: none.
        reference_by: reader: also judge by each reader's own labels, and say whether the verdict
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
    if not systems:
        raise InputError("compare: give at least one system")
    if out is None or overwrite or not (out / files.METRICS).is_file():
        require_predictable(systems)  # here already, as reading the data set takes time
    only = target[0] if target and not target[1:] else None
    question = _read_question(protocol, margin, only)
    from cxr_compare.evaluation.report.tables import table_rows

    for name in policy or ():
        check_policy(name)
    rows = table_rows(metrics)
    wanted = [question.target] if question.target else target
    if data is not None and truth is None and patients is None:
        dataset = DataSet.open(data)
    elif truth is not None and data is None:
        dataset, systems = _from_files(systems, truth, patients, wanted)
    else:
        raise InputError("compare: give --data SET, or --truth FILE with or without --patients CSV")
    if reference_by and not dataset.readers:
        raise InputError(
            f"{dataset.folder}: --reference-by reader: its labels name no reader; cxr prepare "
            "keeps them from a column 'reader'"
        )
    split = own_split(split, [path for system in systems for path in system.paths], dataset)
    asked = _Asked(
        protocol=question,
        policies=list(dict.fromkeys(policy or ())),
        judged={
            "images": images, "replicates": replicates, "seed": seed, "prevalence": prevalence,
            "unit": unit,
        },
        shown={"cases": cases, "thumbnails": thumbnails},
        metrics=metrics,
        rows=rows,
        by_readers=reference_by is not None,
        overwrite=overwrite,
    )  # fmt: skip
    targets = _chosen_targets(dataset, wanted)
    test_sets = [TestSet(dataset, target, split) for target in targets]
    if not test_sets[1:]:
        return asked.report(systems, test_sets[0], out)
    if out is None:
        raise InputError("compare: several targets need a folder for their reports; give --out")
    return _compare_each(asked, systems, test_sets, out)


def _from_files(
    systems: list[System], truth: Path, patients: Path | None, wanted: list[str] | None
) -> tuple[DataSet, list[System]]:
    """True boxes and result files as a data set and predictions, kept as long as the data set."""
    from cxr_compare.evaluation.systems.imported import import_file, truth_set

    dataset = truth_set(truth, patients, console.say)
    _chosen_targets(dataset, wanted)  # refuses before results are read
    if (dataset.images["patient_id_source"] == "assumed_image").any():
        console.say(
            f"Intervals are by image, for {truth} does not name all patients: too narrow where "
            "patients have several images; give --patients CSV (image_id,patient_id)"
        )
    folder, imported = Path(tempfile.mkdtemp(prefix="cxr-")), []
    weakref.finalize(dataset, shutil.rmtree, folder, ignore_errors=True)
    ids = truth if truth.suffix == ".json" else None
    for number, (given, paths) in enumerate(systems):
        name = given or paths[0].stem
        members = [folder / f"{number}-{seed}" / path.name for seed, path in enumerate(paths)]
        for path, out in zip(paths, members, strict=True):
            results = import_file(path, dataset, out, name=name, coco_truth=ids)
            if results.kind == "boxes" and results.boxes.empty:
                raise InputError(f"{path}: holds no box; give results that have some")
            for note in results.info["notes"]:
                console.say(f"{name}: {note}")
        imported.append(System(name, members))
    console.say("Without validation images no threshold is chosen; --policy threshold=T gives one")
    return dataset, imported


@dataclass(frozen=True)
class _Asked:
    """A comparison's question, for any of its targets."""

    protocol: Protocol
    policies: list[str]  # beside those that rows name
    judged: dict[str, Any]  # options of `compare_systems`
    shown: dict[str, Any]  # options of `write_report`
    metrics: tuple[str, ...]
    rows: Sequence[Any]  # of the report's table
    by_readers: bool
    overwrite: bool

    def report(self, systems: list[System], test_set: TestSet, out: Path | None) -> Report:
        """Judge the systems on one target, and write the report where it has a folder."""
        judge = self._judge(systems, test_set, out)
        # Only now, for it imports what draws: the first figures have been shown.
        from cxr_compare.evaluation.report.result_tables import Report

        return Report(test_set, judge, out, self.metrics)

    def _judge(
        self, systems: list[System], test_set: TestSet, out: Path | None
    ) -> Callable[[], Comparison]:
        """Gives the comparison, which is made and written here unless it had been written."""
        if out is None:
            with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
                judged = self._compare(systems, test_set, Path(folder))
            return lambda: judged
        question = self.question(systems, test_set, out)
        answered = None if self.overwrite else _is_answered(out, question)
        if answered is False:
            console.say(f"{out}: the same comparison, to be shown otherwise: writing it anew")
        if answered:
            console.say(f"{out}: this report exists already; --overwrite makes it anew")
            quietly = console.is_silent()

            def judge() -> Comparison:
                with console.silent(quietly):  # it is asked for after the verb has returned
                    return self._compare(systems, test_set, out)

            return judge
        require_predictable(systems)
        require_only(out, files.OF_ONE_TARGET, "report", files.CASES_PAGES)
        with folder_lock(out):
            (out / files.METRICS).unlink(missing_ok=True)  # it is incomplete until its last file
            comparison = self._compare(systems, test_set, out)
            _keep_tested(systems, comparison, test_set, out)
            self._write(comparison, self.question(systems, test_set, out), test_set, out)
        return lambda: comparison

    def question(self, systems: list[System], test_set: TestSet, out: Path) -> dict[str, Any]:
        """The question as the report keeps it: systems with their decisions, data, options.

        Of runs `out` holds the predictions, and so the decision.
        """
        target, ids = test_set.target.name, test_set.ids
        return {
            "systems": {
                name or f"{number}. {system_folder(paths[0])}": _states(name, paths, test_set, out)
                for number, (name, paths) in enumerate(systems, start=1)
            },
            "target": target,
            "data_set": ids["content_id"],
            "labels": ids["labels_id"],
            "split": ids["split_id"],
            "options": {
                **self.judged,
                "margin": self.protocol.margin,
                "policies": self.policies,
                "protocol": self.protocol.file_sha256,
                **({"reference_by": "reader"} if self.by_readers else {}),
            },
            "shown": {**self.shown, "metrics": ",".join(self.metrics)},
        }

    def _compare(self, systems: list[System], test_set: TestSet, out: Path) -> Comparison:
        """Compare the systems, and log that the test images were used."""
        from cxr_compare.evaluation.compare.compare import compare_systems

        opened = open_systems(systems, test_set, out)
        of_rows = [row.policy for row in self.rows if row.policy]

        def judge(on: TestSet, advance: Any = None) -> Comparison:
            return compare_systems(
                opened,
                on,
                protocol=self.protocol,
                extra_policies=tuple(dict.fromkeys([*self.policies, *of_rows])),
                advance=advance,
                first=console.say if on.dataset.held_splits else None,
                **self.judged,
            )

        with console.progress("Resampling patients", self.judged["replicates"]) as advance:
            comparison = judge(test_set, advance)
        if self.by_readers:
            from cxr_compare.evaluation.studies.label_review import judge_by_readers

            with console.progress("Judging by each reader", None):
                comparison = judge_by_readers(comparison, test_set, judge)
        # Once the figures exist they count as seen, whatever becomes of the report.
        digest = self.protocol.file_sha256
        return comparison.with_uses(log_use(test_set, opened, digest))

    def _write(
        self, comparison: Comparison, question: dict[str, Any], test_set: TestSet, out: Path
    ) -> None:
        from cxr_compare.evaluation.report.report import write_report
        from cxr_compare.evaluation.report.result_tables import write_tables

        with console.progress("Drawing cases", None) as advance:
            write_report(
                comparison, test_set.dataset, out, seed=self.judged["seed"],
                rows=self.rows, progress=advance, **self.shown,
            )  # fmt: skip
        write_tables(comparison, out, question)


def _keep_tested(
    systems: Sequence[System], comparison: Comparison, test_set: TestSet, out: Path
) -> None:
    """Keep what came true of promises beside the decision of each run or export that was given.

    Its answers for single images say so while that decision stands. Its threshold may differ from
    the one that was judged by rounding alone.
    """
    target = test_set.target.name
    made_by = {"report": out.name, "created": comparison.provenance.get("created"),
               "data_set": test_set.dataset.name, "split": test_set.split}  # fmt: skip
    for (_, paths), name in zip(systems, comparison.names, strict=True):
        for number, path in enumerate(paths, start=1):
            own = decision_of_run(path, None, test_set) if predicts(path) else None
            if own is None:
                continue
            label, promises = f"{name} #{number}" if paths[1:] else name, {}
            for result in comparison.promises:
                cut = own["policies"].get(result.policy, {}).get("threshold")
                same = cut is not None and isclose(cut, result.threshold, rel_tol=_SAME_THRESHOLD)
                if result.system == label and same:
                    outcomes = [outcome._asdict() for outcome in result.outcomes.values()]
                    promises[result.policy] = {"threshold": cut, "outcomes": outcomes}
            if not promises:
                continue
            kept = {"chosen_on": own["chosen_on"], "report": made_by, "promises": promises}
            try:
                make_folder(tested_file(path, target).parent)
                write_json(tested_file(path, target), "tested", kept)
            except (OSError, InputError) as error:
                console.say(f"Answers of {path} will not say what came true on test: {error}")


def _states(name: str | None, paths: Sequence[Path], test_set: TestSet, out: Path) -> list[_State]:
    """Of each training seed digests that tell one training, prediction and tuning apart."""
    states = []
    for number, path in enumerate(paths, 1):
        steps, predicted = {}, path
        if predicts(path) and not (path / "predictions.json").is_file():
            seed = f"{name}-{number}" if paths[1:] else name or system_folder(path)
            steps["trained"] = path / ("export.json" if is_export(path) else "run.json")
            predicted = out / files.SYSTEMS / seed
        steps["predicted"] = predicted / "predictions.json"
        steps["tuned"] = predicted / "decisions" / f"{test_set.target.name}.json"
        found = {done: file.read_bytes() for done, file in steps.items() if file.is_file()}
        if test_set.dataset.held_splits:  # imported for this call: what was, not when
            info = read_json(steps["predicted"], "predictions")
            found["predicted"] = info["inference_id"].encode()
        states.append({done: hashlib.sha256(found[done]).hexdigest()[:16] for done in found})
    return states


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
    """Whether a folder holds a finished report on this question; refuses one on another.

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
        judged = " and ".join(map(str, report.get("systems", [])))
        difference = _difference(other, before[other], now[other]) if before else ""
        raise InputError(
            f"{out}: holds a finished report of {judged} on '{report.get('target')}'{difference}; "
            "choose another --out, or add --overwrite"
        )
    return bool(before["shown"] == question["shown"])


def _are_of(states: Sequence[_State], kept: Sequence[_State]) -> bool:
    """Whether all that is known of training seeds is what a report has kept of them."""
    seeds = zip(states, kept, strict=False)
    return len(kept) == len(states) and all(now.items() <= was.items() for now, was in seeds)


def _difference(key: str, was: Any, now: Any) -> str:
    """What tells two questions apart, in words, from the first key that differs."""
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
    asked: _Asked, systems: list[System], test_sets: list[TestSet], out: Path
) -> ReportsByTarget:
    """Compare the same systems on every target, each into a folder of its own."""
    from cxr_compare.evaluation.report.report import write_targets_page
    from cxr_compare.evaluation.report.result_tables import ReportsByTarget

    targets = [test_set.target for test_set in test_sets]
    names = {target.name for target in targets}
    require_only(out, files.OF_ALL_TARGETS.union(names), "report on these targets")
    if reserved := sorted({*files.OF_ALL_TARGETS, LOCK} & names):
        raise InputError(f"compare: a target cannot be called '{reserved[0]}'; compare it alone")
    with folder_lock(out):
        # As predictions folders, so that no run is predicted once per target.
        opened = open_systems(systems, test_sets[0], out)
        predicted = [
            System(name, [member.folder for member in members]) for name, members in opened.items()
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
    """The targets that are asked for, each once; ``all`` means every one of the data set."""
    if names and _ALL in names and _ALL not in dataset.targets:
        return list(dataset.targets.values())
    if not names:
        return [dataset.target()]
    return [dataset.target(name) for name in dict.fromkeys(names)]


def _read_question(path: Path | None, margin: float | None, target: str | None) -> Protocol:
    """The question of a comparison: from a protocol, or an exploratory one with a margin."""
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
