"""The audit of a data set, which searches for faults that would make its results wrong."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES, box_iou
from cxr_compare.data_prep.base.errors import InputError, ShownAsText, counted
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.records import Items, Record
from cxr_compare.data_prep.base.tables import OLDEST_YEARS
from cxr_compare.data_prep.dataset import DataSet

AUDIT = "audit.json"
"""File of the audit for programs, in the folder of the data set."""
AUDIT_PAGE = "audit.html"
EXCLUDE = "exclude.csv"
"""File that lists the images to leave out, for `cxr prepare --exclude`."""
MeasureShortcuts = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame], list[dict[str, Any]]]
Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
SHORTCUT_AUROC = 0.65
"""AUROC from which facts that are not the lungs are reported."""
_SAME_BOX_IOU = 0.9
_SHOWN = 5
_REASONS_SHOWN = 20
_POSITION = r"^(label file), \w+ \d+(?=: )"  # such as "label file, line 3: "
_SHORTCUT_ADVICE = {
    "person": "report systems on its subgroups, too; a difference in who was ill is not skill",
    "file": "a system may learn the kind of file instead of the disease: evaluate within one kind",
    "picture": "check if the two classes were exposed or processed differently",
    "border": "a system may learn how images are framed and marked; evaluate it on images from "
    "elsewhere",
    "siblings": "never split by image, and keep every figure of a patient in one role",
    "together": "compare every result with this figure, which needs no information from the lungs",
}


class Problem(Record):
    """A problem that was found, with the images that have it.

    Attributes:
        check: Name of the check.
        severity: An error makes results wrong, a warning may, an info is to be known.
        message: What was found.
        count: Number of images, files, patients or cases.
        images: All images that have it, or paths of files.
        groups: Number of the group of each image, of copies and patients; empty without groups.
        advice: What to do.
        split: Split that has it; empty for the whole data set.
        n_kept: Images of a group that stay if the others are left out; None if none leave.
    """

    check: str
    severity: Severity
    message: str
    count: int
    images: Items[str] = ()
    groups: Items[int] = ()
    advice: str = ""
    split: str = ""
    n_kept: int | None = None

    @property
    def counted_message(self) -> str:
        """Message that ends with the number, as part of a sentence."""
        return f"{self.message} ({self.count:,})"

    @property
    def line(self) -> str:
        """Severity, message, number and first examples as one line of text."""
        more = ", ..." if len(self.images) > _SHOWN else ""
        shown = f": {', '.join(sorted(self.images)[:_SHOWN])}{more}" if self.images else ""
        return f"{self.severity}: {self.message} ({self.count:,}{shown})"


class AuditInfo(Record, kind="audit"):
    """Content of ``audit.json``."""

    passed: bool
    checked: dict[str, int]
    problems: Items[Problem]
    facts: dict[str, Any]


@dataclass(frozen=True, repr=False)
class Audit(ShownAsText):
    """Problems that ``cxr check`` found in a data set, the most serious first, and its figures.

    Attributes:
        problems: The problems.
        checked: Numbers of images, patients, boxes and splits.
        facts: Digests of what was checked, and measured shortcuts.
        folder: Folder of the data set.
        strict: A warning counts as an error for the exit status.
    """

    problems: tuple[Problem, ...]
    checked: dict[str, int]
    facts: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    strict: bool = False
    next_steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = []
        for problem in self.problems:
            lines.append(problem.line)
            if problem.advice and problem.severity != "info":
                lines.append(f"    what to do: {problem.advice}")
        where = "" if self.folder is None else f"{self.folder}: "
        lines.append(f"{where}checked {self.scope}: {self.verdict}")
        if self.folder is not None:
            lines.append(f"Page: {self.folder / AUDIT_PAGE}")
        return "\n".join(lines)

    def for_split(self, name: str) -> Self:
        """Return a copy with the problems of one split and those of the whole data set."""
        kept = tuple(problem for problem in self.problems if problem.split in ("", name))
        return replace(self, problems=kept, checked={**self.checked, "split": 1})

    @property
    def scope(self) -> str:
        """Numbers of checked things as text, such as "10 images, 8 patients"."""
        return ", ".join(counted(n, noun) for noun, n in self.checked.items())

    @property
    def verdict(self) -> str:
        """One sentence on whether the data set can be used."""
        errors, warnings, _ = (counted(n, level) for level, n in self.counts.items())
        if not self.passed:
            return f"{errors} invalidate results, {warnings} may affect them"
        return f"no error was found that invalidates results; {warnings} may affect them"

    @property
    def table(self) -> pd.DataFrame:
        """Table of the problems with one row for each, the most serious first."""
        names = ["severity", "message", "split", "count", "advice"]
        return pd.DataFrame(
            [{n: getattr(p, n) for n in names} for p in self.problems], columns=names
        )

    @property
    def counts(self) -> dict[str, int]:
        """Number of problems by severity (``error``, ``warning``, ``info``)."""
        return {s: sum(p.severity == s for p in self.problems) for s in SEVERITIES}

    @property
    def passed(self) -> bool:
        """True if there is no problem of severity ``error``."""
        return not self.counts["error"]

    @property
    def exit_status(self) -> int:
        """Exit status of ``cxr check``: 1 after an error, or a warning if `strict`; else 0."""
        return int(not self.passed or (self.strict and bool(self.counts["warning"])))

    @property
    def exclusions(self) -> pd.DataFrame:
        """Images that users are advised to leave out, with columns ``image_id`` and ``reason``."""
        reasons: dict[str, str] = {}
        for problem in (p for p in self.problems if p.n_kept is not None):
            ids = pd.Series(problem.images, dtype=TEXT)
            for _, own in ids.groupby(list(problem.groups) or list(range(len(ids)))):
                left = [image_id for image_id in own if image_id not in reasons]
                kept = f"; {left[0]} stays" if problem.n_kept and left else ""
                reasons |= dict.fromkeys(left[problem.n_kept :], problem.message + kept)
        return pd.DataFrame(list(reasons.items()), columns=["image_id", "reason"], dtype=TEXT)

    def to_dict(self) -> dict[str, Any]:
        """Return problems and figures as values for JSON."""
        problems = [problem.model_dump() for problem in self.problems]
        summary = {"passed": self.passed, "checked": self.checked}
        return {**summary, "problems": problems, "facts": self.facts}

    def write(self, path: Path) -> None:
        """Write the problems and figures as a JSON file, such as ``audit.json``."""
        AuditInfo(**self.to_dict()).write(path)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the problems and figures from ``audit.json``."""
        content = AuditInfo.read(Path(path))
        return cls(content.problems, content.checked, content.facts)


def audit(dataset: DataSet, measure_shortcuts: MeasureShortcuts | None = None) -> Audit:
    """Search a data set for faults that would make results wrong; the most serious come first."""
    images = dataset.images
    missing = {"sex": TEXT, "age_years": "float64"}.items()
    new = {n: pd.Series(None, images.index, kind) for n, kind in missing if n not in images}
    images = images.assign(**new)
    decode = dataset.decode
    splits = {name: dataset.split(name) for name in dataset.split_names}
    labels = pd.DataFrame({n: dataset.labels(t) for n, t in dataset.targets.items()})
    shortcuts = measure_shortcuts(images, decode, labels) if measure_shortcuts else []
    problems = [
        *(p for name, split in splits.items() for p in _check_split(images, split, labels, name)),
        *_check_copies(dataset, images, labels, splits),
        *_check_boxes(dataset),
        *_check_people(images, splits),
        *_check_excluded(dataset.table("excluded")),
        *_check_shortcuts(shortcuts),
    ]
    text = decode.get("burned_in_annotation", pd.Series(dtype=TEXT)).eq("yes")
    message = "image whose header says that a name or a mark is burned into its pixels"
    ids = decode["image_id"][text.to_numpy(dtype=bool)]
    problems.append(_problem("burned_in_text", "warning", message, ids, "look at each image"))
    found = [_with_redraw(dataset, problem) for problem in problems if problem.count]
    return Audit(
        tuple(sorted(found, key=lambda problem: SEVERITIES.index(problem.severity))),
        {
            "image": len(images),
            "patient": int(images["patient_id"].nunique()),
            "box": len(dataset.boxes),
            "split": len(splits),
        },
        {
            "content_id": dataset.ids.content_id,
            "labels_id": dataset.ids.labels_id,
            "split_ids": dict(dataset.ids.split_ids),
            "shortcuts": shortcuts,
        },
        dataset.folder,
    )


def _with_redraw(dataset: DataSet, problem: Problem) -> Problem:
    """Add to an error of a split the command that makes the split anew without it."""
    if problem.severity != "error" or not problem.split:
        return problem
    name, how, more = problem.split, dataset.split_rule(problem.split), []
    if how is not None and how.rule is not None and "folds tests once" in how.method:
        name, more = name.rpartition("-")[0], ["--folds", str(how.rule.folds)]
    elif how is not None and not how.method.startswith("by patient"):
        more = ["--from", name]  # its test images were chosen, so they are kept
    words = ["cxr", "split", str(dataset.folder), "--name", f"{name}-new", *more]
    return problem.with_values(advice=f"make the split anew: {shlex.join(words)}")


def _problem(
    check: str,
    severity: Severity,
    message: str,
    ids: pd.Series,
    advice: str = "",
    *,
    group: pd.Series | None = None,
    split: str = "",
    n_kept: int | None = None,
) -> Problem:
    """Return a problem of images, which `group` puts together."""
    rows = pd.DataFrame({"id": ids.astype(TEXT).to_numpy(dtype=object)})
    rows["group"] = range(len(rows)) if group is None else pd.factorize(group.to_numpy())[0]
    rows = rows.drop_duplicates("id").sort_values(["group", "id"])
    groups = [] if group is None else rows["group"].tolist()
    return Problem(
        check=check,
        severity=severity,
        message=message,
        count=len(rows),
        images=tuple(rows["id"]),
        groups=tuple(groups),
        advice=advice,
        split=split,
        n_kept=n_kept,
    )


def _differing(rows: pd.DataFrame, group: str, column: str) -> pd.DataFrame:
    """Return the rows of groups in which a column has several values."""
    present = rows[rows[column].notna()]
    return present[present.groupby(group)[column].transform("nunique") > 1]


def _check_split(
    images: pd.DataFrame, split: pd.DataFrame, labels: pd.DataFrame, name: str
) -> list[Problem]:
    """Report patients in two roles, images without a role, and roles without one class."""
    used = split[split["role"] != "unused"].merge(images[["image_id", "patient_id"]])
    leaks = _differing(used, "patient_id", "role")
    anew = "correct the split, or draw another one with cxr split"
    text = f"split '{name}': patient in more than one role, which makes test figures too good"
    lacking_role = images["image_id"][~is_member(images["image_id"], split["image_id"])]
    lacking = []
    for role in ("train", "val", "test"):
        chosen = labels[is_member(labels.index, split.loc[split["role"] == role, "image_id"])]
        if role == "train" and chosen.empty:
            continue  # a data set may be for evaluation only
        for target in labels.columns:
            for kind, value in (("positive", 1.0), ("negative", 0.0)):
                if not (chosen[target] == value).any():
                    lacking.append(f"{role} has no {kind} image of '{target}'")
    more = f", and {len(lacking) - 3} more such" if len(lacking) > 3 else ""
    one_class = Problem(
        check="one_class",
        severity="warning",
        message=f"split '{name}': {', '.join(lacking[:3])}{more}",
        count=len(lacking),
        advice="add images, or draw a split with other shares; nothing can be evaluated there",
        split=name,
    )
    return [
        _problem(
            "patient_leak",
            "error",
            text,
            leaks["image_id"],
            anew,
            group=leaks["patient_id"],
            split=name,
        ),
        _problem(
            "split_lacks",
            "error",
            f"split '{name}': image without a role",
            lacking_role,
            anew,
            split=name,
        ),
        one_class,
    ]


def _check_copies(
    dataset: DataSet,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    splits: Mapping[str, pd.DataFrame],
) -> list[Problem]:
    """Report copies of images, equal and nearly equal: roles, labels, patients and repeats."""
    from cxr_compare.data_prep.copies import copy_keys

    decode = dataset.decode
    pairs = dataset.table("copies")
    keys = copy_keys(decode, pairs)
    if keys is None:
        return []
    near = is_member(keys.index, [*pairs["image_id"], *pairs["other_id"]])
    kinds = {
        "image": ("the same image", decode.set_index("image_id")["pixel_sha256"]),
        "near": ("a copy of the image (stretched, compressed or turned)", keys),
    }
    problems = []
    for kind, (what, key) in kinds.items():
        rows = images[["image_id", "patient_id", "patient_id_source"]]
        rows = rows.assign(group=rows["image_id"].map(key)).dropna(subset="group")
        if kind == "near":
            rows = rows[is_member(rows["group"], keys[near].unique())]
        rows = rows[rows["group"].duplicated(keep=False)]
        severity: Severity = "error" if kind == "image" else "warning"
        for name, split in splits.items():
            roles = split.loc[split["role"] != "unused", ["image_id", "role"]]
            apart = _differing(rows.merge(roles, on="image_id"), "group", "role")
            text = f"split '{name}': {what} in more than one role"
            problems.append(
                _problem(
                    f"{kind}_leak",
                    "error",
                    text,
                    apart["image_id"],
                    "correct the split",
                    group=apart["group"],
                    split=name,
                )
            )
        for target in labels.columns:
            of_target = rows.assign(label=rows["image_id"].map(labels[target]))
            apart = _differing(of_target, "group", "label")
            text = f"{what} is labelled differently for '{target}'"
            advice = "read the image again and correct the label, or leave the image out"
            problems.append(
                _problem(
                    f"{kind}_label",
                    severity,
                    text,
                    apart["image_id"],
                    advice,
                    group=apart["group"],
                    n_kept=0,
                )
            )
        # Where each image counts as a patient of its own, two ids do not contradict each other.
        named = rows[rows["patient_id_source"] != "assumed_image"]
        apart = _differing(named, "group", "patient_id")
        text = f"{what} under more than one patient: one of the patient ids is wrong"
        advice = "find out whose image it is and correct the ids, or remove one copy"
        problems.append(
            _problem(
                f"{kind}_patients",
                severity,
                text,
                apart["image_id"],
                advice,
                group=apart["group"],
                n_kept=1,
            )
        )
        rest = rows[~is_member(rows["group"], apart["group"])]
        advice = "keep one: an image that appears more than once is counted more than once"
        problems.append(
            _problem(
                f"{kind}_repeated",
                "warning" if kind == "image" else "info",
                f"{what} appears more than once",
                rest["image_id"],
                advice,
                group=rest["group"],
                n_kept=1,
            )
        )
    return problems


def _check_boxes(dataset: DataSet) -> list[Problem]:
    """Report boxes that mark one lesion twice, and positive images without a box."""
    boxes = dataset.table("boxes").reset_index(drop=True)
    key = ["image_id", "finding", "reader"]
    pairs = boxes[key].reset_index().merge(boxes[key].reset_index(), on=key)
    pairs = pairs[pairs["index_x"] < pairs["index_y"]]
    edges = boxes[EDGES].to_numpy(dtype="float64")
    overlap = box_iou(edges[pairs["index_x"].to_numpy()], edges[pairs["index_y"].to_numpy()])
    twice = pairs.loc[overlap > _SAME_BOX_IOU, "image_id"]
    findings = dataset.findings
    is_present = (findings["state"] == "present") & findings["finding"].isin(boxes["finding"])
    present = findings.loc[is_present, key]
    boxed = pd.concat([dataset.boxes[key], dataset.box_coverage[key]]).drop_duplicates()
    merged = present.merge(boxed, how="left", indicator="found")
    bare = merged.loc[merged["found"] == "left_only", "image_id"]
    return [
        _problem(
            "box_repeated",
            "warning",
            f"two boxes overlap by IoU above {_SAME_BOX_IOU:g}, so one lesion counts as two",
            twice,
            "keep one of the two",
        ),
        _problem(
            "positive_without_box",
            "warning",
            "positive image whose lesions are not boxed: the detector does not learn from it, and "
            "localisation is not evaluated on it",
            bare,
            "have the lesions boxed, or train the classifier only on these",
        ),
    ]


def _check_people(images: pd.DataFrame, splits: Mapping[str, pd.DataFrame]) -> list[Problem]:
    """Report impossible ages, patients with two sexes, and images of unknown patients."""
    ages = images["age_years"]
    impossible = images["image_id"][(ages < 0) | (ages > OLDEST_YEARS)]
    sexes = _differing(images[is_member(images["sex"], ["M", "F"])], "patient_id", "sex")
    assumed = images.loc[images["patient_id_source"] == "assumed_image", "image_id"]
    if splits:
        used = pd.concat([s.loc[s["role"] != "unused", "image_id"] for s in splits.values()])
        assumed = assumed[is_member(assumed, used)]
    text = "image of an unknown patient, which counts as a patient of its own: the same person may "
    return [
        _problem(
            "age",
            "warning",
            f"age below 0 or above {OLDEST_YEARS:g} years",
            impossible,
            "correct the source or leave the age empty; until then subgroups by age are wrong",
        ),
        _problem(
            "two_sexes",
            "warning",
            "patient with images of both sexes, so the patient id may be wrong",
            sexes["image_id"],
            "compare the images; if they show two people, give them two ids",
            group=sexes["patient_id"],
        ),
        _problem(
            "patient_assumed",
            "warning",
            f"{text}be in training and test",
            assumed,
            "give patient ids (--patient-pattern, or a patient_id column); until then every "
            "interval is too narrow",
        ),
    ]


def _check_excluded(excluded: pd.DataFrame) -> list[Problem]:
    """Report the files that were left out when the data set was prepared, one problem a reason."""
    # In these reasons, the text after the colon describes the single case, such as a size.
    measured = excluded["stage"] == "size"
    reasons = excluded["reason"].mask(measured, excluded["reason"].str.split(":").str[0])
    reasons = reasons.str.replace(_POSITION, r"\1", regex=True)
    reasons = reasons.mask(excluded["stage"] == "list", "named in the list of --exclude")
    common = reasons.value_counts().index[:_REASONS_SHOWN]
    shown = reasons.where(reasons.isin(common), "other reasons, see excluded.parquet")
    advice = "check if this is intended; otherwise correct the source and prepare again"
    problems = []
    for reason, rows in excluded.groupby(shown, sort=False):
        stage = rows["stage"].iloc[0]
        severity: Severity = "info" if stage == "list" else "warning"
        text = f"left out when prepared: {reason}"
        problems.append(_problem(f"excluded_{stage}", severity, text, rows["path"], advice))
    return problems


def _check_shortcuts(measured: list[dict[str, Any]]) -> list[Problem]:
    """Report metadata and image borders that predict the label without the lungs (shortcuts)."""
    problems = []
    for kind, advice in _SHORTCUT_ADVICE.items():
        strong = [row for row in measured if row["kind"] == kind and (row["ci_low"] or 1.0) > 0.5]
        strong = [row for row in strong if row["auroc"] >= SHORTCUT_AUROC]
        if not strong:
            continue
        row = max(strong, key=lambda row: row["auroc"])
        ends = f" ({row['ci_low']:.3f} to {row['ci_high']:.3f})" if row["ci_low"] else ""
        subject = {
            "together": "metadata and image borders together predict",
            "siblings": "other images of the same patient predict",
        }.get(kind, f"{row['fact']} alone predicts")
        more = f"; {len(strong) - 1} more such facts or targets" if len(strong) > 1 else ""
        problems.append(
            Problem(
                check=f"shortcut_{kind}",
                severity="warning" if kind == "file" else "info",
                message=f"{subject} '{row['target']}' with AUROC {row['auroc']:.3f}{ends}{more}",
                count=int(row["n_known"]),
                advice=advice,
            )
        )
    return problems


def split_errors(dataset: DataSet, split: str) -> tuple[Problem, ...] | None:
    """Return the errors of one split in ``audit.json``; None if it is of another split."""
    path = dataset.folder / AUDIT
    if not path.is_file():
        return None
    stored = Audit.read(path)
    if stored.facts.get("split_ids", {}).get(split) != dataset.ids.split_ids.get(split):
        return None
    return tuple(p for p in stored.problems if p.severity == "error" and p.split in ("", split))


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
            f"{errors[0].advice}; or go on nevertheless with --despite-audit"
        )
    return errors is not None, tuple(problem.message for problem in errors or ())
