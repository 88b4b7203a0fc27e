"""The audit of a data set, which searches for faults that would make its results wrong."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd
from pydantic import Field

from cxr_compare.data_prep.base.boxes import EDGES, box_iou
from cxr_compare.data_prep.base.errors import (
    InputError,
    Remedy,
    ShownAsText,
    as_typed,
    counted,
    printable,
)
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.records import Items, Record
from cxr_compare.data_prep.base.tables import LABEL_KEY, OLDEST_YEARS
from cxr_compare.data_prep.base.user_tables import write_csv
from cxr_compare.data_prep.copies import copy_keys
from cxr_compare.data_prep.dataset import AUDIT, DATA_PAGE, DataSet, known_patients

EXCLUDE = "exclude.csv"
MeasureShortcuts = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame], list[dict[str, Any]]]
Severity = Literal["error", "warning", "info"]
_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
_SHORTCUT_AUROC = 0.65  # from which on facts that are not the lungs are reported
_SAME_BOX_IOU = 0.9
_SHOWN = 5
_REASONS_SHOWN = 20
_SHORTCUT_ADVICE = {
    "person": "report systems on its subgroups, too; a difference in who was ill is not skill",
    "file": "a system may learn the kind of file instead of the disease: evaluate within one kind",
    "border": "a system may learn how images are framed and marked; evaluate it on images from "
    "elsewhere",
    "together": "compare every result with this figure, which needs no information from the lungs",
}


class Problem(Record):
    """A problem that was found, with the images that have it.

    Attributes:
        check: Name of the check.
        severity: An error makes results wrong, a warning may, an info is to be known.
        message: What was found.
        count: Number of images or files.
        cases: Ids of the images (paths of the files) of each case, such as the copies of an image;
            images that do not belong together are one case.
        advice: What to do.
        split: Split that has it; empty for the whole data set.
        n_kept: Images of a case that stay if the others are left out; None if none leave.
    """

    check: str
    severity: Severity
    message: str
    count: int
    cases: Items[Items[str]] = ()
    advice: str = ""
    split: str = ""
    n_kept: int | None = None

    @property
    def images(self) -> list[str]:
        """All images that have it, or paths of files."""
        return [name for case in self.cases for name in case]

    @property
    def counted_message(self) -> str:
        """Message that ends with the number, as part of a sentence."""
        return f"{self.message} ({counted(self.count, 'image')})"

    @property
    def line(self) -> str:
        """Severity, message, number and first examples as one line of text."""
        examples_shown = [*self.images[:_SHOWN], *(["..."] if len(self.images) > _SHOWN else [])]
        examples = f": {', '.join(examples_shown)}" if examples_shown else ""
        return printable(f"{self.severity}: {self.message} ({self.count:,}{examples})")


class Audit(ShownAsText, Record, kind="audit"):
    """Problems that ``cxr check`` found in a data set, the most serious first: ``audit.json``.

    Attributes:
        passed: True if there is no problem of severity ``error``.
        checked: Numbers of images, patients, boxes and splits.
        problems: The problems.
        facts: Digests of what was checked, and measured shortcuts.
        folder: Folder of the data set.
    """

    passed: bool
    checked: dict[str, int]
    problems: Items[Problem]
    facts: dict[str, Any]
    folder: str = Field("", exclude=True)

    def __str__(self) -> str:
        lines = []
        for problem in self.problems:
            lines.append(problem.line)
            if problem.advice and problem.severity != "info":
                lines.append(f"    what to do: {problem.advice}")
        lines.append(f"{self.folder}: checked {self.scope}: {self.verdict}")
        if len(self.exclusions):
            path = shlex.quote(str(Path(self.folder) / EXCLUDE))
            lines.append(f"Images to leave out: {path} (cxr prepare ... --exclude {path})")
        lines.append(f"Page: {Path(self.folder) / DATA_PAGE}")
        return "\n".join(lines)

    def for_split(self, name: str) -> Self:
        """Return a copy with the problems of one split and those of the whole data set."""
        problems = [problem for problem in self.problems if problem.split in ("", name)]
        passed = all(problem.severity != "error" for problem in problems)
        checked = {**self.checked, "split": 1}
        return self.with_values(passed=passed, problems=problems, checked=checked)

    @property
    def scope(self) -> str:
        """Numbers of checked things as text, such as "10 images, 8 patients"."""
        return ", ".join(counted(n, noun) for noun, n in self.checked.items())

    @property
    def verdict(self) -> str:
        """One sentence on whether the data set can be used, which begins in lower case."""
        severities = [problem.severity for problem in self.problems]
        errors = counted(severities.count("error"), "error")
        warnings = counted(severities.count("warning"), "warning")
        if not self.passed:
            return f"results are invalid because of {errors}; {warnings} may affect them"
        return (
            f"no error in what the audit checks (copies, patients, roles, ages), and {warnings}; "
            "look at the pictures: they show whether labels and boxes were read rightly"
        )

    @property
    def exit_status(self) -> int:
        """Exit status of ``cxr check``: 1 after an error, else 0."""
        return int(not self.passed)

    @property
    def exclusions(self) -> pd.DataFrame:
        """Images that users are advised to leave out, with columns ``image_id`` and ``reason``."""
        reasons: dict[str, str] = {}
        for problem in self.problems:
            for case in problem.cases if problem.n_kept is not None else ():
                remaining = [image_id for image_id in case if image_id not in reasons]
                note = f"; {remaining[0]} stays" if problem.n_kept and remaining else ""
                reasons |= dict.fromkeys(remaining[problem.n_kept :], problem.message + note)
        return pd.DataFrame(list(reasons.items()), columns=["image_id", "reason"], dtype=TEXT)

    def to_json(self) -> dict[str, Any]:
        """Return problems and figures as values for JSON."""
        return self.model_dump()

    to_dict = to_json


def audit(dataset: DataSet, measure_shortcuts: MeasureShortcuts) -> Audit:
    """Search a data set for faults that would make results wrong; the most serious come first."""
    images, decode = dataset.images, dataset.decode
    splits = {name: dataset.split(name) for name in dataset.split_names}
    labels = pd.DataFrame({n: dataset.labels(t) for n, t in dataset.targets.items()})
    shortcuts = measure_shortcuts(images, decode, labels)
    pairs = dataset.table("copies")
    keys = copy_keys(decode, pairs)
    all_problems = [
        *(p for name in splits for p in split_problems(dataset, labels, keys, name)),
        *copy_problems(images, labels, decode, pairs, keys),
        *box_problems(dataset.findings, dataset.table("boxes")),
        *people_problems(images, splits),
        *excluded_problems(dataset.table("excluded")),
        *shortcut_problems(shortcuts),
    ]
    marked = decode[decode["burned_in_annotation"] == "yes"]
    text = "image whose header says that a name or a mark is burned into its pixels"
    all_problems.append(_problem("burned_in_text", "warning", text, marked, "look at each image"))
    checked = {
        "image": len(images),
        "patient": known_patients(images).nunique(),
        "box": dataset.n_boxes,
        "split": len(splits),
    }
    problems = [problem for problem in all_problems if problem.count]
    problems.sort(key=lambda problem: _SEVERITIES.index(problem.severity))
    return Audit(
        passed=all(problem.severity != "error" for problem in problems),
        checked=checked,
        problems=tuple(problems),
        facts={**dataset.ids.model_dump(), "shortcuts": shortcuts},
        folder=str(dataset.folder),
    )


def write_audit(result: Audit) -> None:
    """Write the result of an audit, and the list of exclusions unless there is one."""
    folder = Path(result.folder)
    result.write(folder / AUDIT)
    exclusions = result.exclusions
    if len(exclusions) and not (folder / EXCLUDE).exists():
        write_csv(exclusions, folder / EXCLUDE)


def _problem(
    check: str,
    severity: Severity,
    message: str,
    rows: pd.DataFrame,
    advice: str,
    split: str = "",
    n_kept: int | None = None,
) -> Problem:
    """Return a problem of the images of a table; a column ``group`` parts them into cases."""
    rows = rows.drop_duplicates("image_id").sort_values("image_id")
    cases: dict[Any, list[str]] = {}
    if "group" in rows:
        for group, name in zip(rows["group"], rows["image_id"], strict=True):
            cases.setdefault(group, []).append(name)
    elif len(rows):
        cases[""] = rows["image_id"].tolist()
    return Problem(
        check=check,
        severity=severity,
        message=message,
        count=len(rows),
        cases=tuple(map(tuple, cases.values())),
        advice=advice,
        split=split,
        n_kept=n_kept,
    )


def _differing(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows of groups in which a column has several values."""
    present = rows[rows[column].notna()]
    return present[present.groupby("group")[column].transform("nunique") > 1]


def split_problems(
    dataset: DataSet, labels: pd.DataFrame, keys: pd.Series, name: str
) -> Iterator[Problem]:
    """Report patients and copies of an image in two roles, and roles without one class."""
    split = dataset.split(name)
    used = split[split["role"] != "unused"].merge(dataset.images[["image_id", "patient_id"]])
    words = ["cxr", "split", str(dataset.folder), "--name", f"{name}-new"]
    groups = {"patient": used["patient_id"], "image, or its copy,": used["image_id"].map(keys)}
    for noun, group in groups.items():
        apart = _differing(used.assign(group=group), "role")
        check = f"{noun.partition(',')[0]}_leak"
        text = f"split '{name}': {noun} in more than one role, which makes test figures too good"
        yield _problem(check, "error", text, apart, f"make it anew: {shlex.join(words)}", name)
    lacking = []
    for role in ("train", "val", "test"):
        chosen = labels.reindex(used.loc[used["role"] == role, "image_id"])
        if role == "train" and chosen.empty:
            continue  # a data set may be for evaluation only
        for target in labels.columns:
            for kind, value in (("positive", 1.0), ("negative", 0.0)):
                if not (chosen[target] == value).any():
                    lacking.append(f"{role} has no {kind} image of '{target}'")
    more = f", and {len(lacking) - 3} more such" if len(lacking) > 3 else ""
    yield Problem(
        check="one_class",
        severity="warning",
        message=f"split '{name}': {', '.join(lacking[:3])}{more}",
        count=len(lacking),
        advice="add images, or draw a split with other shares; nothing can be evaluated there",
        split=name,
    )


def copy_problems(
    images: pd.DataFrame,
    labels: pd.DataFrame,
    decode: pd.DataFrame,
    pairs: pd.DataFrame,
    keys: pd.Series,
) -> Iterator[Problem]:
    """Report equal images and other copies: those with two labels or patients, and the rest."""
    equal = decode.set_index("image_id")["pixel_sha256"]
    near = keys[keys.isin(keys[[*pairs["image_id"], *pairs["other_id"]]])]
    kinds: list[tuple[str, str, pd.Series, Severity, Severity]] = [
        ("image", "the same image", equal, "error", "warning"),
        ("near", "a copy of the image (stretched, compressed or turned)", near, "warning", "info"),
    ]
    for kind, noun, key, severe, mild in kinds:
        rows = images.assign(group=images["image_id"].map(key)).dropna(subset="group")
        rows = rows[rows["group"].duplicated(keep=False)]
        for target in labels.columns:
            apart = _differing(rows.assign(label=rows["image_id"].map(labels[target])), "label")
            text = f"{noun} is labelled differently for '{target}'"
            advice = "read the image again and correct the label, or leave the image out"
            yield _problem(f"{kind}_label", severe, text, apart, advice, n_kept=0)
        # Where each image counts as a patient of its own, two ids do not contradict each other.
        apart = _differing(rows[rows["patient_id_source"] != "assumed_image"], "patient_id")
        text = f"{noun} under more than one patient: one of the patient ids is wrong"
        advice = "find out whose image it is and correct the ids, or remove one copy"
        yield _problem(f"{kind}_patients", severe, text, apart, advice, n_kept=1)
        rest = rows[~rows["group"].isin(apart["group"])]
        text = f"{noun} appears more than once"
        advice = "keep one: an image that appears more than once is counted more than once"
        yield _problem(f"{kind}_repeated", mild, text, rest, advice, n_kept=1)


def box_problems(findings: pd.DataFrame, boxes: pd.DataFrame) -> Iterator[Problem]:
    """Report boxes that mark one lesion twice, and positive images without a box."""
    numbered = boxes.assign(number=range(len(boxes)))
    both = numbered.merge(numbered, on=LABEL_KEY)
    both = both[both["number_x"] < both["number_y"]]
    one, other = (both[[f"{edge}_{side}" for edge in EDGES]].to_numpy(float) for side in "xy")
    twice = both[box_iou(one, other) > _SAME_BOX_IOU]
    text = f"two boxes overlap by IoU above {_SAME_BOX_IOU:g}, so one lesion counts as two"
    yield _problem("box_repeated", "warning", text, twice, "keep one of the two")
    present = findings[
        (findings["state"] == "present") & is_member(findings["finding"], boxes["finding"])
    ]
    with_boxes = present[LABEL_KEY].merge(
        boxes[LABEL_KEY].drop_duplicates(), how="left", indicator="found"
    )
    yield _problem(
        "positive_without_box",
        "warning",
        "positive image whose lesions are not boxed: the detector does not learn from it, and "
        "localisation is not evaluated on it",
        with_boxes[with_boxes["found"] == "left_only"],
        "have the lesions boxed; until then only the classifier learns from these images",
    )


def people_problems(images: pd.DataFrame, splits: dict[str, pd.DataFrame]) -> Iterator[Problem]:
    """Report impossible ages, patients with two sexes, and images of unknown patients."""
    if "age_years" in images:
        ages = images["age_years"]
        text = f"age below 0 or above {OLDEST_YEARS:g} years"
        advice = "correct the source or leave the age empty; until then subgroups by age are wrong"
        yield _problem("age", "warning", text, images[(ages < 0) | (ages > OLDEST_YEARS)], advice)
    if "sex" in images:
        of_known_sex = images[is_member(images["sex"], ["M", "F"])]
        text = "patient with images of both sexes, so the patient id may be wrong"
        advice = "compare the images; if they show two people, give them two ids"
        apart = _differing(of_known_sex.assign(group=of_known_sex["patient_id"]), "sex")
        yield _problem("two_sexes", "warning", text, apart, advice)
    assumed = images[images["patient_id_source"] == "assumed_image"]
    if splits:
        used = pd.concat([s.loc[s["role"] != "unused", "image_id"] for s in splits.values()])
        assumed = assumed[is_member(assumed["image_id"], used)]
    yield _problem(
        "patient_assumed",
        "warning",
        "image of an unknown patient, which counts as a patient of its own: without a column "
        "patient that says more than the names of the images, or "
        f"{as_typed({'patient_pattern': 'REGEX'})}, one person may be in training and test",
        assumed,
        "give the patients; until then every interval is too narrow",
    )


def excluded_problems(excluded: pd.DataFrame) -> Iterator[Problem]:
    """Report the files that were left out when the data set was prepared, one problem a reason."""
    rows = excluded.rename(columns={"path": "image_id"})
    reason = rows["reason"].str.replace(r"\b\d+(?:[.,]\d+)*\b", "N", regex=True)
    common = reason.value_counts().index[:_REASONS_SHOWN]
    reason = reason.where(reason.isin(common), "other reasons, see excluded.parquet")
    for (stage, text), left_out in rows.groupby([rows["stage"], reason], sort=False):
        advice = "check if this is intended; otherwise correct the source and prepare again"
        severity: Severity = "info" if stage == "list" else "warning"
        text = f"left out when prepared: {text}"
        yield _problem(f"excluded_{stage}", severity, text, left_out, advice)


def shortcut_problems(measured: list[dict[str, Any]]) -> Iterator[Problem]:
    """Report metadata and image borders that predict the label without the lungs (shortcuts)."""
    for kind, advice in _SHORTCUT_ADVICE.items():
        strong = [
            row
            for row in measured
            if row["kind"] == kind
            and row["auroc"] >= _SHORTCUT_AUROC
            and (row["ci_low"] or 1) > 0.5
        ]
        if not strong:
            continue
        row = max(strong, key=lambda row: row["auroc"])
        subject = f"{row['fact']} alone predicts"
        if kind == "together":
            subject = "metadata and image borders together predict"
        ends = f" ({row['ci_low']:.3f} to {row['ci_high']:.3f})" if row["ci_low"] else ""
        more = f"; {len(strong) - 1} more such facts or targets" if len(strong) > 1 else ""
        yield Problem(
            check=f"shortcut_{kind}",
            severity="warning" if kind == "file" else "info",
            message=f"{subject} '{row['target']}' with AUROC {row['auroc']:.3f}{ends}{more}",
            count=int(row["n_known"]),
            advice=advice,
        )


def strongest_shortcut(dataset: DataSet, target: str) -> dict[str, Any] | None:
    """Return the fact that predicts a target best, as ``audit.json`` has it; None if unknown."""
    path = dataset.folder / AUDIT
    if not path.is_file():
        return None
    facts = Audit.read(path).facts
    ids = dataset.ids
    if (facts.get("content_id"), facts.get("labels_id")) != (ids.content_id, ids.labels_id):
        return None
    rows = [row for row in facts.get("shortcuts", []) if row["target"] == target]
    return max(rows, key=lambda row: row["auroc"], default=None)


def split_errors(dataset: DataSet, split: str) -> tuple[Problem, ...] | None:
    """Return the errors of one split in ``audit.json``; None if it is of another split."""
    path = dataset.folder / AUDIT
    if not path.is_file():
        return None
    stored = Audit.read(path)
    if stored.facts.get("split_ids", {}).get(split) != dataset.ids.split_ids.get(split):
        return None
    return tuple(p for p in stored.for_split(split).problems if p.severity == "error")


def require_no_errors(
    dataset: DataSet, split: str, *, despite_errors: bool = False
) -> tuple[bool, tuple[str, ...]]:
    """Check that the audit found no error in a split before it is used for training.

    Returns:
        True if the split was audited, and the errors, if training goes on despite them.
    """
    errors = split_errors(dataset, split)
    if errors and not despite_errors:
        raise InputError(
            f"{dataset.folder}: the audit found an error: {errors[0].message}. What to do: "
            f"{errors[0].advice}",
            [Remedy("the training shall go on nevertheless", {"despite_audit": True})],
        )
    return errors is not None, tuple(problem.message for problem in errors or ())
