"""`cxr compare`: evaluate several systems on the same test images and write the report."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import LOCK_NAME, folder_lock
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.own_parts import files_of_parts, own_function
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.evaluation.box_choice import BOXES_BY
from cxr_compare.evaluation.boxes.box_figures import choosing_figures
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.thresholds import check_policy
from cxr_compare.scripts import console
from cxr_compare.scripts.compare_inputs import (
    ImageOptions,
    Images,
    Scales,
    Table,
    read_image_options,
    read_protocol_or_margin,
    read_scales,
    require_given_thresholds,
)
from cxr_compare.scripts.exposures import Exposures, read_exposures
from cxr_compare.scripts.from_truth import (
    FromTruth,
    GivenTruth,
    open_given_systems,
    open_truth,
    refuse_shared_patients,
)
from cxr_compare.scripts.given_systems import (
    ComparedSystems,
    GivenSystem,
    GivenValues,
    read_compared,
)
from cxr_compare.scripts.options import Names, own_split, read_roles
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.result_columns import split_column_roles
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.values_by_finding import SeveralFindings, several_findings

if TYPE_CHECKING:
    from cxr_compare.evaluation.comparison import Comparison
    from cxr_compare.evaluation.groups.exposure import Exposure
    from cxr_compare.evaluation.report.result import Result
    from cxr_compare.evaluation.report.results_by_target import ResultsByTarget
    from cxr_compare.scripts.from_data_set import FromDataSet
    from cxr_compare.scripts.result_columns import ResultColumns

_SEED = 0  # random seed of the bootstrap and of random picks


def _read_data(value: Any) -> Any:
    """Return a data set as it is, with its labels in memory; check that all else is its folder."""
    if hasattr(value, "tables"):  # labels in memory
        return value
    folder = as_path(value)
    require_kind(folder, "data set")
    return folder


GivenData = Annotated[AnyPath, Argument(read=_read_data, help="Data set that cxr prepare made.")]


@command
def compare(
    systems: ComparedSystems,
    *,
    data: GivenData | None = None,
    truth: Table = None,
    boxes: Table = None,
    patients: Table = None,
    columns: Annotated[Sequence[str], Argument(read=read_roles, metavar="ROLE=COLUMN")] = (),
    scale: Scales = (),
    out: AnyPath | None = None,
    target: list[str] | None = None,
    split: str | None = None,
    images: Images = ("all",),
    replicates: Annotated[int, Argument(minimum=100)] = 2000,
    protocol: AnyPath | None = None,
    margin: float | None = None,
    prevalence: Annotated[str | None, Argument(read=str)] = None,
    unit: Literal["image", "study", "patient"] = "image",
    policy: list[str] | None = None,
    metrics: Names = (),
    charts: Names = (),
    exposure: Exposures = (),
    mapping: AnyPath | None = None,
    allow_shared_patients: bool = False,
    uncertain: Literal["positive", "negative"] | None = None,
    both: bool = False,
    hide_names: bool = False,
    overwrite: bool = False,
) -> Result | ResultsByTarget:
    """Evaluate systems on the same test images, and write the report.

    A system is a detector or classifier, of this program or of others, or a person who reads the
    images. Thresholds come from validation images only. The same call on the folder of a finished
    report prints its answer. Any other call on this folder is refused, unless --overwrite is given.

    Args:
        systems: Predictions folders (of cxr predict, import or ensemble) or runs (folders of cxr
            train), each as PATH or NAME=PATH. Several training seeds of one system are written
            NAME=PATH,PATH,... A folder of runs (cxr train NAME,NAME) stands for all runs in it. A
            run is predicted and tuned first. The first system is the reference, with which the
            others are compared. From Python you can also give scores or
            boxes by name, as arrays, Series or frames.
        data: Data set that cxr prepare made.
        truth: Labels, in place of --data: a CSV (image_id, label 0, 1 or empty, and if known
            patient_id, study_id and role), or true boxes as COCO JSON, as a CSV, or as a folder of
            COCO or YOLO files. The systems are then result files, as in cxr import. From
            Python it may also be an array, a Series or a frame. Without roles all images are test
            images.
        boxes: CSV of the true boxes (image_id,x1,y1,x2,y2, in px of the original image), for a
            --truth that is a CSV of labels. Without it only image-level figures are computed.
        patients: CSV image_id,patient_id for a --truth without patients, so that intervals are
            computed by patient. From Python it may be an array in the order of the labels.
        columns: Names of columns as ROLE=COLUMN, with --truth. The role score names the column of
            scores in all result files, and result_image their column of image ids. For the file of
            one system write SYSTEM.score, SYSTEM.image or SYSTEM.finding, such as A.score=prob;
            SYSTEM is its name, or the name of its file without suffix. A.finding= says that no
            column of A holds the classes of its boxes. A.image=id or A.image=file_name says what
            the image_id of COCO results is. Scores of a column that is named may have any range:
            outside [0, 1] only their ranks count. All other roles are columns of the CSV of the
            truth (docs/formats.md).
        scale: With --truth, factor from the px of the boxes of a system to px of the original
            image, as NAME=FACTOR, such as A=2 for boxes of images that were halved. A=1 says that
            they are in px of the original image, where the command asks. From Python a dictionary.
        out: Report folder to make. Without it nothing is written, and each call predicts its runs
            again.
        target: Target (a finding, or a group of findings) to evaluate, if the data set has several.
            Give the option several times, or give 'all', for one page with a row for each target
            and their mean, and a report on each (docs/arrays.md). With --truth
            it takes the columns of the labels. With --truth FILE also NAME=FINDING,FINDING, as in
            cxr prepare.
        split: Split (which images are for training, validation and test) whose test images are
            evaluated. By default it is the split that the systems were made on.
        images: What happens if the systems were run on different images. all, the default, refuses
            them; common evaluates the images that every system was run on. With --truth also the
            folder of the image files (PNG, JPEG, DICOM), whose pixels the report then shows; they
            are found by the names of the images.
        replicates: Number of bootstrap replicates behind each interval. With fewer the command is
            faster, and the ends of the intervals are less exact.
        protocol: TOML file that fixed the question before the test images were evaluated. The
            report then says that a protocol was given (docs/evaluation.md).
        margin: Margin of non-inferiority and equivalence, such as 0.05. With it the verdict also
            says whether a system is worse by at most this much.
        prevalence: Share of positive images where the system will be used, for the PPV and NPV
            there. Write 0.05, or 0.05:0.03-0.08 with its 95 % interval, or the counts 12/240.
        unit: Also compute the image-level figures for whole studies (study) or patients (patient),
            each with the highest score of its images. The default is image, which computes them for
            images only.
        policy: Policy (rule that chooses a threshold), written as in cxr tune, in addition to the
            policies that were tuned. threshold=T needs no validation images.
        metrics: Rows of the report's table and of table.tex, in their order, such as
            precision,recall,f1; or recall@specificity>=0.90 for a figure at another threshold.
            docs/metrics.md names all metrics; MODULE:NAME is a function of yours
            (docs/own-parts.md).
        charts: Functions of yours, as MODULE:NAME, that get the result and return a chart for the
            page (docs/own-parts.md).
        exposure: Images that a system or its encoder has seen before, as NAME=FILE: a list with its
            source (docs/splits.md). The report says which share of the test images it is, and gives
            the AUROC without them. Images whose labels were seen are refused.
        mapping: Mapping from RSNA's images to NIH's (rsna_to_nih.csv, or its folder), for
            an --exposure that lists names of NIH's images.
        allow_shared_patients: Evaluate labels of --truth in which patients of test images have
            images in validation or training, too. Without it they are refused; with it the report
            says how many they are.
        uncertain: Label that test images of uncertain label get, positive or negative, as a
            sensitivity analysis: is the answer the same? Thresholds stay those of validation images
            of certain label. By default these images are left out and counted. Uncertain is what
            the labels call so, such as -1 beside 1 and 0.
        both: Also compare all systems together as one more system: an image score by logistic
            regression, fitted on validation images, that gates the detector's boxes. The report
            says whether it is better than each of them, and which decisions it changes
            (docs/both-together.md).
        hide_names: Show numbers such as image-1 and patient-1 in place of the ids of images and
            patients, which often are names of files, on the page and in tables and pictures. Which
            number belongs to which id is not stored.
        overwrite: Write a new report in place of the finished one in this folder. Without it,
            another call on the folder of a finished report is refused.

    Returns:
        The result: the answer, its figures as tables, and the path of its page. For several targets
        it holds the result of each by the name of the target.

    Raises:
        InputError: Systems, data and options do not fit each other, or the folder holds something
            else.

    Example:
        cxr compare RetinaNet=out/retinanet-predictions CheXNet=out/chexnet-predictions
        --data out/data --out out/report

        cxr compare RetinaNet=out/retinanet CheXNet=out/chexnet --both --data out/data
        --out out/report

        cxr compare --truth truth.json A=a.json B=b.json --patients patients.csv --out out/report
    """
    compared = read_compared(systems)
    out = as_path(out)
    protocol = as_path(protocol)
    _require_systems(compared, both=both)
    if out is None or overwrite or not (out / files.ANSWER).is_file():
        _require_predictable(compared)  # here already, as reading the data set takes time
    single_target = target[0].partition("=")[0] if target and len(target) == 1 else None
    image_options = read_image_options(images)
    question = read_protocol_or_margin(protocol, margin, single_target)
    from cxr_compare.evaluation.report.summary_table import table_rows

    for name in policy or ():
        check_policy(name)
    rows = table_rows(metrics)
    for name in charts:
        own_function(name, "--charts")
    target_names = [question.target] if question.target else target
    result_columns, columns_of_truth = split_column_roles(columns)
    if data is not None:
        _refuse_options_of_truth(data, image_options, read_scales(scale))
        _refuse_columns_of_files(columns, compared)
    inputs: Sequence[FromDataSet | FromTruth]
    left_out: dict[str, str] = {}  # findings that not all systems know
    if data is not None and truth is None and boxes is None and patients is None:
        inputs = _from_data_set(compared, data, target_names, split, result_columns, uncertain)
    elif truth is not None and data is None:
        if split not in (None, "default"):
            raise InputError(f"--split {split}: is for --data; name roles in the truth")
        inputs, left_out = _from_truth(
            compared,
            GivenTables(truth, boxes, patients, columns_of_truth, uncertain),
            target_names,
            result_columns,
            read_scales(scale),
            image_options.folder,
            allow_shared_patients=allow_shared_patients,
        )
        if not len(inputs[0].truth.ids_of("val")):
            require_given_thresholds(policy)
    else:
        raise InputError(
            "compare: give --data SET, or --truth FILE with or without --boxes CSV, --patients CSV"
            + _labelled_file(compared)
        )
    exposures = read_exposures(exposure, inputs[0].truth, as_path(mapping))
    request = ReportRequest(
        protocol=question,
        policies=list(dict.fromkeys(policy or ())),
        images=image_options.rule,
        evaluated={
            "replicates": replicates,
            "seed": _SEED,
            "prevalence": prevalence,
            "unit": unit,
        },
        rows=rows,
        recorded={
            "metrics": list(metrics),
            "charts": list(charts),
            "exposure": _without_folders(exposure),
            "mapping": None if mapping is None else as_path(mapping).name,
            "uncertain": uncertain,
            "both": both,
            "hide_names": hide_names,
            "image_folder": None if image_options.folder is None else image_options.folder.name,
        },
        inputs=(
            *_files_of_exposures(exposure, as_path(mapping)),
            *files_of_parts((*metrics, *charts)),
        ),
        both=both,
        exposures=tuple(exposures),
        overwrite=overwrite,
        hide_names=hide_names,
        charts=charts,
    )
    if not inputs[1:] and not left_out:
        return request.report(inputs[0], out)
    if out is not None:
        return _report_on_targets(request, inputs, left_out, out)
    with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
        predicted = _predicted_once(inputs, Path(folder))
        inputs, unknown = _known_to_all(predicted)
        left_out |= unknown
        results = _compare_targets(request, inputs, Path(folder))
    from cxr_compare.evaluation.report.results_by_target import ResultsByTarget

    titles = {each.truth.finding: each.truth.shown_name for each in inputs}
    return ResultsByTarget.of_results(results, titles, left_out)


class GivenTables(NamedTuple):
    """Labels, true boxes and patients in files or in memory, and how their columns are read."""

    truth: Any
    boxes: Any
    patients: Any
    columns: tuple[str, ...]
    uncertain: Literal["positive", "negative"] | None


def _from_truth(
    compared: Sequence[GivenSystem],
    tables: GivenTables,
    target_names: list[str] | None,
    result_columns: ResultColumns,
    scales: Mapping[str, float],
    image_folder: Path | None,
    *,
    allow_shared_patients: bool,
) -> tuple[list[FromTruth], dict[str, str]]:
    """Return the systems on each target of a truth, and the findings that not all systems know."""
    left_out: dict[str, str] = {}
    opened: list[tuple[GivenTruth, Sequence[GivenSystem]]]
    several = several_findings(tables.truth, target_names)
    if several is None:
        compared = _with_systems_of_truth(compared, tables.truth, result_columns)
        given = open_truth(
            tables.truth,
            tables.boxes,
            tables.patients,
            tables.columns,
            target_names,
            uncertain=tables.uncertain,
        )
        opened = [(given, compared)]
    else:
        opened, left_out = _by_finding(several, compared, tables)
    first = next(iter(opened[0][0].truths.values()))
    pixels = None
    if image_folder is not None:
        from cxr_compare.evaluation.sources.pixels import pixels_of_folder

        pixels = pixels_of_folder(first, image_folder, console.say)
    refuse_shared_patients(first, tables.truth, allowed=allow_shared_patients)
    inputs = []
    for given, systems in opened:
        predictions = open_given_systems(systems, given, result_columns, scales)
        inputs += [
            FromTruth(predictions, labelled, given.of_finding, pixels)
            for labelled in given.truths.values()
        ]
    return inputs, left_out


def _by_finding(
    several: SeveralFindings, systems: Sequence[GivenSystem], tables: GivenTables
) -> tuple[list[tuple[GivenTruth, Sequence[GivenSystem]]], dict[str, str]]:
    """Return truth and systems of each finding, and the findings that not all systems know."""
    opened: list[tuple[GivenTruth, Sequence[GivenSystem]]] = []
    left_out = {}
    for finding in several.names:
        of_finding = several.systems_of(systems, finding)
        if isinstance(of_finding, str):
            left_out[finding] = f"{of_finding} says nothing about it"
            continue
        boxes = several.boxes_of(tables.boxes, finding)
        label = several.label_of(finding)
        given = open_truth(
            several.truth_of(finding),
            boxes,
            tables.patients,
            label=label,
            uncertain=tables.uncertain,
        )
        opened.append((given, of_finding))
    if not opened:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise InputError(f"compare: no finding can be compared: {reasons}")
    return opened, left_out


def _from_data_set(
    compared: Sequence[GivenSystem],
    data: Any,
    target_names: list[str] | None,
    split: str | None,
    columns: ResultColumns,
    uncertain: Literal["positive", "negative"] | None,
) -> list[FromDataSet]:
    """Return the systems on each target of a data set."""
    # Values in memory do not need the readers of data sets and predictions folders.
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
    from cxr_compare.scripts.from_data_set import FromDataSet, open_values, runs_inside
    from cxr_compare.scripts.targets import chosen_targets, learned_target

    dataset = data if isinstance(data, DataSet) else DataSet.open(as_path(data))
    compared = [each for system in compared for each in runs_inside(system)]
    paths = [path for system in compared for path in system.paths]
    split = own_split(split, paths, dataset)
    if not target_names and (learned := learned_target(paths)) in dataset.targets:
        target_names = [learned]
    opened = [open_values(system, dataset, split, columns) for system in compared]
    return [
        FromDataSet(opened, LabelledSplit(dataset, each, split, uncertain))
        for each in chosen_targets(dataset, target_names)
    ]


def _require_predictable(compared: Sequence[GivenSystem]) -> None:
    """Refuse runs, which are predicted first, where a package that predicts is missing."""
    if any(system.paths for system in compared):
        from cxr_compare.scripts.systems import require_predictable

        require_predictable(compared)


def _require_systems(compared: Sequence[GivenSystem], *, both: bool) -> None:
    if not compared:
        raise InputError("compare: give at least one system")
    if both and len(compared) < 2:
        raise InputError("compare --both: joins two or more systems; give another one")


def _with_systems_of_truth(
    compared: Sequence[GivenSystem], truth: Any, columns: ResultColumns
) -> Sequence[GivenSystem]:
    """Replace a table that is truth and system by the systems that its columns of scores are."""
    from cxr_compare.evaluation.sources.wide_tables import systems_in_table

    systems: list[GivenSystem] = []
    for system in compared:
        (first, *others) = system.members
        given = first.value if isinstance(first, GivenValues) else first
        found: dict[str, pd.DataFrame] = {}
        is_plain = not (others or columns.of_all or columns.of_one)
        if is_plain and isinstance(given, pd.DataFrame | Path) and _is_same(given, truth):
            found = systems_in_table(given)
        systems += [GivenSystem(name, [GivenValues(table)]) for name, table in found.items()]
        if not found:
            systems.append(system)
    return systems


def _is_same(given: pd.DataFrame | Path, truth: Any) -> bool:
    if isinstance(given, Path):
        return isinstance(truth, Path) and given == truth
    return given is truth


def _labelled_file(compared: Sequence[GivenSystem]) -> str:
    """Return how to give the first result file that holds labels; empty if none does."""
    from cxr_compare.evaluation.sources.wide_tables import label_column

    for path in (path for system in compared for path in system.paths):
        label = label_column(path)
        if label is not None:
            return f"; {path} has a column of labels, '{label}': say --truth {path}"
    return ""


def _refuse_options_of_truth(
    data: AnyPath, images: ImageOptions, scales: Mapping[str, float]
) -> None:
    """Refuse options that describe files of labels and results, beside a prepared data set."""
    if images.folder is not None:
        raise InputError(
            f"--images {images.folder}: is for --truth, because the data set {data} has its own "
            "images; leave it out"
        )
    if scales:
        raise InputError(
            "--scale: is for --truth; give it where a result file is read, with cxr import --scale"
        )


def _refuse_columns_of_files(columns: Sequence[str], systems: Sequence[GivenSystem]) -> None:
    """Refuse column names, beside a prepared data set, of other things than values in memory."""
    values = {
        system.name
        for system in systems
        if any(isinstance(member, GivenValues) for member in system.members)
    }
    for text in columns:
        system, dot, _ = text.partition("=")[0].rpartition(".")
        if not dot or system not in values:
            raise InputError(
                f"--columns {text}: is for --truth; name the columns of a result file where it is "
                "read, with cxr import --columns"
            )


def _without_folders(exposure: Sequence[str]) -> list[str]:
    """Return each text NAME=FILE with the name of the file alone."""
    pairs = [text.partition("=") for text in exposure]
    return [f"{name}={Path(file).name}" for name, _, file in pairs]


def _files_of_exposures(exposure: Sequence[str], mapping: Path | None) -> tuple[Path, ...]:
    """Return the files that --exposure and --mapping name."""
    lists = [Path(text.partition("=")[2]) for text in exposure]
    return tuple(lists if mapping is None else [*lists, mapping])


@dataclass(frozen=True)
class ReportRequest:
    """The options of one call of `cxr compare`, in the form in which they apply to each target.

    Attributes:
        protocol: Target and margin (largest acceptable disadvantage) of the comparison and, if a
            protocol file fixed them before the test images were used, all other choices.
        policies: Policies (rules that choose a threshold) of ``--policy``. Policies that the rows
            of the table name are added to them.
        evaluated: Options on which the figures depend, as keyword arguments of `compare_systems`.
        rows: Rows of the report's table (``--metrics``).
        recorded: Further options of the call, as the report records them.
        inputs: Files of these options.
        both: True adds the system that joins all of them (``--both``).
        exposures: Images that systems or their encoders have seen before, one object for each
            system.
        hide_names: True shows numbers in place of the ids of images and patients.
        charts: ``MODULE:NAME`` of functions of the user's own that draw a chart.
    """

    protocol: Protocol
    policies: list[str]
    images: Literal["all", "common"]
    evaluated: dict[str, Any]
    rows: Sequence[Any]
    recorded: dict[str, Any]
    inputs: tuple[Path, ...]
    both: bool
    exposures: tuple[Exposure, ...]
    overwrite: bool
    hide_names: bool
    charts: Sequence[str] = ()

    def report(self, inputs: FromDataSet | FromTruth, out: Path | None) -> Result:
        """Compare the systems on one target, and write the report; `out` None writes nothing.

        If `out` holds the finished report of the same call, it is opened and not made again. Raises
        InputError if it holds the report of another call or other files, or the systems do not fit
        the data set.
        """
        from cxr_compare.evaluation.report.result import Result

        if out is None:
            with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
                return self.in_memory(inputs, Path(folder))
        if self.is_finished(inputs, out):
            console.say(f"{out}: this report exists already; --overwrite makes it anew")
            return Result.open(out)
        require_only_files(out, files.OF_ONE_TARGET, "report")
        with folder_lock(out):
            (out / files.ANSWER).unlink(missing_ok=True)  # it is incomplete until its last file
            result = self._result(self._compare(inputs, out), inputs)
            self._write(result, inputs, out)
        return Result.open(out)

    def in_memory(
        self,
        inputs: FromDataSet | FromTruth,
        folder: Path,
        patients: pd.Index | None = None,
    ) -> Result:
        """Compare the systems on one target, and write no report.

        Runs that were not predicted before are predicted into `folder`. `patients` are resampled;
        None takes those of the test images.
        """
        return self._result(self._compare(inputs, folder, patients), inputs)

    def write(self, result: Result, inputs: FromDataSet | FromTruth, out: Path) -> None:
        """Write the report on a result that is in memory, in place of another of this folder."""
        require_only_files(out, files.OF_ONE_TARGET, "report")
        with folder_lock(out):
            (out / files.ANSWER).unlink(missing_ok=True)
            self._write(result, inputs, out)

    def _write(self, result: Result, inputs: FromDataSet | FromTruth, out: Path) -> None:
        with console.track("Drawing cases", None) as advance:
            result.write(out, call=self._call(inputs), progress=advance)

    def _result(self, comparison: Comparison, inputs: FromDataSet | FromTruth) -> Result:
        """Return the result, with numbers in place of ids if they are hidden."""
        from cxr_compare.evaluation.report.compared import Compared
        from cxr_compare.evaluation.report.result import Result

        truth, pixels = inputs.truth, inputs.pixels
        seed = self.evaluated["seed"]
        if self.hide_names:
            from cxr_compare.evaluation.report.hidden_names import hide_names

            comparison, truth, pixels = hide_names(comparison, truth, pixels, seed)
        return Result(Compared(comparison, truth, pixels, self.rows, seed, self.charts))

    def is_finished(self, inputs: FromDataSet | FromTruth, out: Path) -> bool:
        """Return True if a folder holds the report of this call, False if one is to be written.

        Raises InputError if it holds the report of another call, or an input changed since.
        """
        if self.overwrite or not (out / files.ANSWER).is_file():
            return False
        from cxr_compare.scripts.recorded_call import require_same_call

        require_same_call(out, self._call(inputs), [*self.inputs, *inputs.files(out)])
        return True

    def _call(self, inputs: FromDataSet | FromTruth) -> dict[str, Any]:
        """Return the resolved call, which the report records."""
        return {
            **inputs.record(),
            "target": inputs.truth.finding,
            "images": self.images,
            **self.evaluated,
            "margin": self.protocol.margin,
            "policies": self.policies,
            "protocol": self.protocol.file_sha256,
            **self.recorded,
        }

    def _compare(
        self, inputs: FromDataSet | FromTruth, folder: Path, patients: pd.Index | None = None
    ) -> Comparison:
        """Read the systems and compare them; runs are predicted into the folder first."""
        from cxr_compare.evaluation.compare import compare_systems
        from cxr_compare.evaluation.metrics.own_metric import OWN
        from cxr_compare.evaluation.metrics.registry import METRICS

        metric = self.protocol.metric
        boxes_by = metric if metric in choosing_figures() else BOXES_BY
        read = inputs.read(folder, images=self.images, joined_by=boxes_by if self.both else None)
        policies_of_rows = [row.policy for row in self.rows if row.policy]
        own_metrics = [row.metric for row in self.rows if METRICS[row.metric].family == OWN]
        with console.track("Resampling patients", self.evaluated["replicates"]) as advance:
            return compare_systems(
                read,
                protocol=self.protocol,
                policies=tuple(dict.fromkeys([*self.policies, *policies_of_rows])),
                own_metrics=own_metrics,
                exposures=self.exposures,
                patients=patients,
                advance=advance,
                **self.evaluated,
            )


def _predicted_once(
    inputs: Sequence[FromDataSet | FromTruth], folder: Path
) -> Sequence[FromDataSet | FromTruth]:
    """Predict runs of a data set once for all targets, into a folder."""
    from cxr_compare.scripts.from_data_set import FromDataSet

    first = inputs[0]
    if not isinstance(first, FromDataSet):
        return inputs
    systems = first.predicted(folder).systems
    return [replace(each, systems=systems) for each in inputs if isinstance(each, FromDataSet)]


def _known_to_all(
    inputs: Sequence[FromDataSet | FromTruth],
) -> tuple[list[FromDataSet | FromTruth], dict[str, str]]:
    """Return the targets that all systems know, and the reason for each that is left out."""
    known: list[FromDataSet | FromTruth] = []
    left_out = {}
    for each in inputs:
        truth = each.truth
        findings = each.findings_of_systems()
        silent = [name for name, of_one in findings.items() if of_one.isdisjoint(truth.findings)]
        silent = [name for name in silent if findings[name]]
        if silent:
            left_out[truth.finding] = f"{silent[0]} says nothing about it"
        elif truth.labels_of("test").dropna().nunique() < 2:
            left_out[truth.finding] = "its test images are of one class"
        else:
            known.append(each)
    if not known:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise InputError(f"compare: no finding can be compared: {reasons}")
    return known, left_out


def _compare_targets(
    request: ReportRequest, inputs: Sequence[FromDataSet | FromTruth], folder: Path
) -> dict[str, Result]:
    """Compare the same systems on every target, on the same resamples of the same patients."""
    tested = [each.truth.patients_of(each.truth.ids_of("test")) for each in inputs]
    patients = pd.Index(np.unique(np.concatenate(tested)))
    return {
        each.truth.finding: request.in_memory(each, folder / each.truth.finding, patients)
        for each in inputs
    }


def _report_on_targets(
    request: ReportRequest,
    inputs: Sequence[FromDataSet | FromTruth],
    left_out: Mapping[str, str],
    out: Path,
) -> ResultsByTarget:
    """Compare the same systems on every target, each into a folder of its own, with one page."""
    from cxr_compare.evaluation.report.result import Result
    from cxr_compare.evaluation.report.results_by_target import ResultsByTarget

    names = {each.truth.finding for each in inputs}
    require_only_files(out, files.OF_ALL_TARGETS.union(names), "report on these targets")
    if reserved := sorted({*files.OF_ALL_TARGETS, LOCK_NAME} & names):
        raise InputError(f"compare: a target cannot be called '{reserved[0]}'; compare it alone")
    titles = {each.truth.finding: each.truth.shown_name for each in inputs}
    with folder_lock(out):
        inputs, unknown = _known_to_all(_predicted_once(inputs, out))
        left_out = {**left_out, **unknown}
        finished = [request.is_finished(each, out / each.truth.finding) for each in inputs]
        # Without its page the folder is incomplete, whatever an earlier run had left.
        (out / files.PAGE).unlink(missing_ok=True)
        results = _compare_targets(request, inputs, out)
        answer = ResultsByTarget.of_results(results, titles, left_out)
        for each, is_finished in zip(inputs, finished, strict=True):
            name = each.truth.finding
            if not is_finished:
                console.say(f"{each.truth.shown_name}:")
                request.write(results[name], each, out / name)
        opened = {name: Result.open(out / name) for name in results}
        return answer.write(out, opened, inputs[0].truth.title)
