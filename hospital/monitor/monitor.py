"""`cxr monitor`: detect that a system in use has changed, at a fixed rate of false alarms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from cxr_compare import DataSet
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.evaluation.report.study_page import study_files
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import read_output, stored_decision
from cxr_compare.evaluation.statistics.arrays import is_positive
from cxr_compare.hospital.answers.answer_log import AGE_BANDS, LOG_KEY
from cxr_compare.hospital.answers.answer_log_reader import read_audit, read_log
from cxr_compare.hospital.monitor.monitoring import monitor_log
from cxr_compare.scripts.command_frame import (
    AnyPath,
    DataFolder,
    Outcome,
    as_path,
    command,
    open_predictions,
    own_split,
)

_BASELINE_DAYS = 28  # days at the start that all later ones are compared with
_PATIENT_DAYS = 28  # a patient counts once in so many days


@command
def monitor(
    log: AnyPath,
    *,
    out: AnyPath,
    labels: AnyPath | None = None,
    reference: AnyPath | None = None,
    data: DataFolder | None = None,
    target: str | None = None,
    since: str | None = None,
    simulate: bool = False,
) -> Outcome:
    """Test from its log whether a system in use has changed.

    If nothing changes, the chance that any figure ever raises an alarm is at most 5 %, however
    often the same log is read. A patient counts once in 28 days. The command watches the rate of
    positive decisions, scores, out-of-distribution distances, failures, and the mix of views, sex,
    age and makers. With --labels it also watches sensitivity, specificity and PPV. It writes
    monitor.html, monitor.csv and monitor.json. Exit status 1 means that something has changed, and
    2 that nothing can be tested.

    Args:
        log: Folder that cxr log or cxr pacs --log wrote, with plain or gzip-compressed
            files. It may also be a CSV with the columns of the log, of which time, patient and
            score are needed.
        out: Folder for the page and the tables. It must be new or hold an earlier monitor.
        labels: CSV of images whose truth a person has established: label (1 or 0), and image_id
            (the name of the image) or image (its name in the log). Choose these images without
            regard to the system's answer.
        reference: Predictions folder, or run (folder of cxr train), for which cxr tune has chosen a
            threshold; needs --data. Sensitivity, specificity and the first weeks of use are
            compared with its validation images.
        data: Data set (of cxr prepare) that the reference was made on.
        target: Watch only this target (a finding, or a group of findings). Needed with --reference
            if the log has several targets.
        since: Leave out answers before this day, written as 2026-03-01. Use it after the cause of
            an alarm has been dealt with.
        simulate: Also say how many patients it takes to detect a change of each figure.

    Returns:
        What has changed, since about when, with how much confidence, at which sites, and what to
        do.

    Raises:
        InputError: The log, the labels or the reference are damaged or do not fit each other.

    Example:
        cxr monitor out/log --out out/monitor

        cxr monitor out/log --out out/monitor --labels audited.csv --reference out/chexnet
        --data out/data --simulate
    """
    log = as_path(log)
    out = as_path(out)
    labels = as_path(labels)
    reference = as_path(reference)
    data = as_path(data)
    if (reference is None) != (data is None):
        raise InputError("monitor: --reference and --data go together")
    require_only_files(out, set(study_files("monitor")), "monitor")
    passed_over: list[str] = []
    answers = _chosen(read_log(log, passed_over.append), since, target, log)
    if labels is not None:
        key = log / LOG_KEY
        answers = _audited(answers, labels, key if key.is_file() else None)
    validation = None
    if reference is not None and data is not None:
        dataset = DataSet.open(data)
        split = own_split(None, [reference], dataset)
        test_set = LabelledSplit(dataset, dataset.target(target), split)
        validation = _validation(test_set, reference, answers)
    from cxr_compare.hospital.monitor.monitor_page import write_monitor

    found = monitor_log(answers, validation, first=_BASELINE_DAYS, window=_PATIENT_DAYS)
    found = replace(found, notes=(*passed_over, *found.notes))
    make_folder(out)
    with folder_lock(out):
        written = write_monitor(found, out, simulate=simulate)
    return Outcome(
        written.text,
        file=out / "monitor.json",
        page=written.page,
        exit_status=written.status,
    )


def _chosen(
    answers: pd.DataFrame, since: str | None, target: str | None, log: Path
) -> pd.DataFrame:
    """Return the answers from a day on, for one target."""
    if since is not None:
        begin = pd.to_datetime(since, format="ISO8601", utc=True, errors="coerce")
        if pd.isna(begin):
            raise InputError(f"monitor --since {since}: is no day such as 2026-03-01")
        answers = answers[answers["time"] >= begin]
        if answers.empty:
            raise InputError(f"monitor --since {since}: {log} holds no answer from then on")
    targets = answers["target"].dropna().unique()
    if target is not None and targets.size:
        if target not in targets:
            words = f"{log} answers for {', '.join(sorted(targets))}"
            raise InputError(f"monitor --target {target}: {words}; choose one of them")
        answers = answers[answers["target"] == target]
    return answers


def _audited(answers: pd.DataFrame, labels: Path, key: Path | None) -> pd.DataFrame:
    """Return the log with the labels of the images that were audited."""
    audit = read_audit(labels, key)
    joined = answers.merge(audit, on="image", how="left")
    if joined["label"].isna().all():
        raise InputError(
            f"{labels}: none of its images is in the log; name images as the log does (image), or "
            f"as their files are called (image_id), with the file '{LOG_KEY}' in the log's folder"
        )
    return joined


def _validation(test_set: LabelledSplit, reference: Path, answers: pd.DataFrame) -> pd.DataFrame:
    """Return the validation images of a reference, with labels, in the columns of a log."""
    target = test_set.target
    predictions = open_predictions(reference)
    if (others := answers["target"].nunique()) > 1:
        raise InputError(f"monitor: the log answers for {others} targets; choose one by --target")
    systems = sorted(answers["system"].unique())
    if systems[1:] and predictions.name not in systems:
        words = f"is of '{predictions.name}', but the log holds {', '.join(systems)}"
        raise InputError(f"{reference}: {words}; give the reference of one of them")
    decision = stored_decision(predictions, target.name)
    if decision is None:
        raise InputError(f"{reference}: has no threshold for '{target.name}'; run cxr tune first")
    ids = test_set.truth.ids_of("val").intersection(predictions.images_run)
    scores = read_output(predictions, target, ids).scores(decision.reduction)
    of_system = answers[(answers["system"] == predictions.name) | (len(systems) == 1)]
    used = of_system["threshold"].dropna()  # what the log decides by
    chosen = decision.thresholds[decision.policy(None, reference)]
    threshold = chosen.threshold if used.empty else float(used.iloc[0])
    if threshold is None:
        words = f"has no threshold for {chosen.policy} ({chosen.reason})"
        raise InputError(f"{reference}: {words}; tune it with another policy")
    images = test_set.dataset.images.set_index("image_id").reindex(ids)
    facts = images.reindex(columns=["view", "sex", "age_years"]).astype(object)
    years = pd.to_numeric(facts.pop("age_years"))
    bands = pd.cut(years, [0, *AGE_BANDS.values()], right=False, labels=[*AGE_BANDS])
    return facts.assign(
        system=predictions.name,
        patient=test_set.truth.patients_of(ids),
        image=ids,
        score=scores,
        decision=is_positive(scores, threshold),
        label=test_set.truth.label.reindex(ids),
        age_band=bands.astype(object),
    )
