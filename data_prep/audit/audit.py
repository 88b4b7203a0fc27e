"""The audit of a data set, which searches for faults that would make its results wrong."""

from __future__ import annotations

import html
import shlex
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd

from cxr_compare.data_prep.audit.images import (
    check_burned_in_text,
    check_duplicates,
    check_excluded,
    check_images,
    check_near_duplicates,
    check_people,
    find_duplicates,
)
from cxr_compare.data_prep.audit.labels import check_boxes, check_shortcuts, count_prevalence
from cxr_compare.data_prep.audit.problem import SEVERITIES, Problem, Severity
from cxr_compare.data_prep.audit.splits import (
    check_image_leak,
    check_leaks,
    check_roles,
    expected_image_leak,
)
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.records import Items, Record, Whole
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.duplicates.dataset_copies import find_dataset_copies
from cxr_compare.data_prep.duplicates.image_reader import open_reader
from cxr_compare.data_prep.duplicates.near_duplicates import NearDuplicates
from cxr_compare.data_prep.store.dataset_info import SplitInfo
from cxr_compare.data_prep.work.map_images import Workers

AUDIT = "audit.json"
"""File of the audit for programs, in the folder of the data set."""
AUDIT_PAGE = "audit.html"
EXCLUDE = "exclude.csv"
"""File that lists the images to leave out, for `cxr prepare --exclude`."""
MeasureShortcuts = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame], list[dict[str, Any]]]
_CONTENT = ("content_id", "labels_id")
# Number of images of a group that are kept, for each check whose advice is to leave images out.
_N_KEPT = {
    "view_lateral": 0,
    "image_label": 0,
    "image_patients": 1,
    "image_repeated": 1,
    "near_label": 0,
    "near_patients": 1,
    "near_repeated": 1,
}
_OPTIONAL_COLUMNS = {"view": TEXT, "sex": TEXT, "age_years": "float64"}


class StoredProblem(Record):
    """A problem without the table of all its cases; the attributes are those of `Problem`."""

    check: str
    severity: Severity
    message: str
    count: Whole
    examples: Items[str]
    advice: str
    unit: str
    images: Items[Items[str]]
    split: str


class AuditInfo(Record, kind="audit"):
    """Content of ``audit.json``.

    Attributes:
        passed: True if there is no problem of severity ``error``.
        counts: Number of problems by severity.
    """

    passed: bool
    counts: dict[str, Whole]
    checked: dict[str, Whole]
    problems: Items[StoredProblem]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Audit:
    """Problems that ``cxr check`` found in a data set, the most serious first, and its figures.

    Attributes:
        problems: Problems, one for each kind of problem.
        checked: Number of checked ``images``, ``patients``, ``boxes``, ``splits`` and others, by
            name.
        facts: Figures to compare results with, by name, ready for JSON: ``prevalence`` (positive
            images by group), ``shortcuts`` (how well metadata and image borders predict the label),
            ``split_by_image`` (test images that would leak if images were drawn instead of
            patients), ``files`` and ``copies``. The digests of what was checked are among them:
            ``content_id`` (images), ``labels_id`` (labels) and ``split_ids``.
        folder: Data set folder with the HTML page of the problems; None if no page was written.
        strict: True if `exit_status` is 1 after a warning, too.

    Example:
        >>> from cxr_compare.data_prep.audit.audit import Audit
        >>> Audit(problems=(), checked={"images": 2}).counts["error"]
        0
    """

    problems: tuple[Problem, ...]
    checked: dict[str, int]
    facts: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)
    strict: bool = field(default=False, compare=False)

    def __repr__(self) -> str:
        counts = ", ".join(f"{severity} {n}" for severity, n in self.counts.items())
        return f"<Audit of {counted(self.checked.get('images', 0), 'image')}: {counts}>"

    def __str__(self) -> str:
        lines = []
        for problem in self.problems:
            lines.append(problem.line)
            if problem.advice and problem.severity != "info":
                lines.append(f"    what to do: {problem.advice}")
        nouns = {"info": "note"}
        counts = ", ".join(counted(n, nouns.get(level, level)) for level, n in self.counts.items())
        summary = f"checked {self.scope}: {counts}"
        if self.folder is None:
            return "\n".join([*lines, summary])
        lines += [f"{self.folder}: {summary}", f"Page: {self.folder / AUDIT_PAGE}"]
        n_exclusions = len(self.exclusions)
        if n_exclusions:
            lines.append(
                f"{counted(n_exclusions, 'image')} to leave out: {self.folder / EXCLUDE}; edit the "
                "list and give it to cxr prepare --exclude"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the problems as an HTML table for a notebook."""
        with pd.option_context("display.max_colwidth", None):
            table = self.table.to_html(index=False, justify="left") if self.problems else ""
        table = table.replace("<td>", '<td style="text-align: left">')
        return f"<p>{html.escape(repr(self))}</p>{table}"

    @property
    def table(self) -> pd.DataFrame:
        """Table of the problems with one row for each, the most serious first.

        The columns are ``severity, message, split, count, unit, examples, advice``, as in
        `Problem`; ``examples`` is one text with commas.
        """
        names = ["severity", "message", "split", "count", "unit", "examples", "advice"]
        rows = [{name: getattr(problem, name) for name in names} for problem in self.problems]
        table = pd.DataFrame(rows, columns=names)
        return table.assign(examples=[", ".join(problem.examples) for problem in self.problems])

    @property
    def scope(self) -> str:
        """Numbers of checked things as text, such as "10 images, 8 patients"."""
        names = {"decoded_images": "decoded image", "boxes": "box"}
        nouns = {thing: names.get(thing, thing.removesuffix("s")) for thing in self.checked}
        return ", ".join(counted(count, nouns[thing]) for thing, count in self.checked.items())

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

    def to_dict(self) -> dict[str, Any]:
        """Return problems and figures as values for JSON, without the tables of affected images."""
        problems = [asdict(replace(problem, cases=pd.DataFrame())) for problem in self.problems]
        for row in problems:
            del row["cases"]
        summary = {"passed": self.passed, "counts": self.counts, "checked": self.checked}
        return {**summary, "problems": problems, "facts": self.facts}

    @property
    def exclusions(self) -> pd.DataFrame:
        """Images that users are advised to leave out, with columns ``image_id`` and ``reason``."""
        reasons: dict[str, str] = {}
        for problem in self.problems:
            n_kept = _N_KEPT.get(problem.check)
            if n_kept is None:
                continue
            cases = problem.cases
            for _, ids in cases["image_id"].groupby(cases.get("group", cases.index), sort=False):
                left = [image_id for image_id in ids if image_id not in reasons]
                kept = f"; {left[0]} stays" if n_kept and left else ""
                reasons |= dict.fromkeys(left[n_kept:], f"{problem.message}{kept}")
        return pd.DataFrame(list(reasons.items()), columns=["image_id", "reason"], dtype=TEXT)

    def for_split(self, name: str) -> Self:
        """Return a copy with the problems of one split and those of the whole data set.

        A split assigns each image to train, validation or test.

        Args:
            name: Name of the split, such as ``default``.
        """
        kept = tuple(problem for problem in self.problems if problem.split in ("", name))
        return replace(self, problems=kept, checked={**self.checked, "splits": 1})

    def write(self, path: Path) -> None:
        """Write the problems and figures as a JSON file, such as ``audit.json``.

        Args:
            path: Path of the file to write.
        """
        AuditInfo(**self.to_dict()).write(path)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the problems and figures from ``audit.json``.

        Args:
            path: File ``audit.json`` of a data set.

        Raises:
            InputError: The file is missing, damaged or of another kind.
        """
        content = AuditInfo.read(Path(path))
        problems = tuple(Problem(**dict(stored)) for stored in content.problems)
        return cls(problems, content.checked, content.facts)


def audit(
    dataset: DataSet,
    *,
    pixels: bool = True,
    near: NearDuplicates | None = None,
    text: pd.DataFrame | None = None,
    measure_shortcuts: MeasureShortcuts | None = None,
    workers: Workers = 1,
) -> Audit:
    """Search a data set for faults that would make results wrong; the most serious come first.

    Without `pixels`, images that may be copies of each other are compared by fingerprints only.
    `near` is the result of an earlier search for such pairs; None searches for them. `text` is from
    `find_burned_in_text`, None if no text was sought in the pixels. None for `measure_shortcuts`
    omits that check. The workers decode images that may be copies.
    """
    images = with_optional_columns(dataset.images)
    # Several checks group by patient: codes are compared much faster than texts.
    images = images.assign(patient_id=images["patient_id"].astype("category"))
    decode = dataset.decode
    names = sorted(path.stem for path in (dataset.folder / "splits").glob("*.parquet"))
    splits = {name: dataset.split(name) for name in names}
    labels = pd.DataFrame({n: dataset.labels(t) for n, t in dataset.targets.items()})
    near = near or find_dataset_copies(dataset, decode, pixels=pixels, workers=workers)
    shortcuts = measure_shortcuts(images, decode, labels) if measure_shortcuts else []
    leak = expected_image_leak(images)
    twins = find_duplicates(decode)
    boxes = dataset.optional_table("boxes")
    problems = [p for name, table in splits.items() for p in check_leaks(images, table, name)]
    problems += check_duplicates(twins, images, labels, splits)
    problems += check_near_duplicates(near, images, labels, splits)
    problems += check_boxes(boxes, images, dataset.findings, dataset.box_coverage)
    problems += check_burned_in_text(decode, text)
    problems += check_people(images, splits)
    problems += check_images(images)
    problems += [p for name, table in splits.items() for p in check_roles(table, labels, name)]
    problems += check_shortcuts(shortcuts)
    problems += check_image_leak(leak)
    problems += check_excluded(dataset.optional_table("excluded"))
    problems += _unchecked_pixels(dataset, pixels=pixels)
    problems = [_with_redraw(problem, dataset.folder) for problem in problems]
    checked = {
        "images": len(images),
        "patients": leak["n_patients"],
        "decoded_images": len(decode),
        "boxes": len(dataset.boxes),
        "splits": len(splits),
    }
    facts = {
        **{key: getattr(dataset.ids, key) for key in _CONTENT},
        "split_ids": {name: dataset.ids.split_ids.get(name) for name in splits},
        "shortcuts": shortcuts,
        "split_by_image": leak,
        "prevalence": _rows(count_prevalence(images, labels, splits)),
    }
    return Audit(serious_first(problems), checked, facts)


def with_optional_columns(images: pd.DataFrame) -> pd.DataFrame:
    """Add the optional columns that the checks read, all missing."""
    lacking = {n: kind for n, kind in _OPTIONAL_COLUMNS.items() if n not in images.columns}
    new = {name: pd.Series(None, images.index, dtype=kind) for name, kind in lacking.items()}
    return images.assign(**new)


def serious_first(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the problems that have a case, the most serious first."""
    found = [problem for problem in problems if problem.count]
    return tuple(sorted(found, key=lambda problem: SEVERITIES.index(problem.severity)))


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as values for JSON, with None where a value is missing."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _unchecked_pixels(dataset: DataSet, *, pixels: bool) -> list[Problem]:
    """Report what could not be checked because images or fingerprints are not there."""
    problems = []
    n_paths = int(dataset.images["path"].notna().sum())
    read, lacking = open_reader(dataset) if pixels and n_paths else (None, None)
    if not pixels:
        text = "the pixels of the images were not checked"
        problems.append(Problem("images_skipped", "info", text, 1, unit="run"))
    elif not n_paths:
        text = "the data set has no images, so only the tables were checked"
        problems.append(Problem("images_none", "info", text, len(dataset.images)))
    elif lacking is not None:
        text = lacking.text if read else f"{lacking.text}; only the tables were checked"
        severity: Severity = "warning" if lacking.lost else "info"
        problems.append(Problem("images_gone", severity, text, n_paths, (), lacking.advice))
    hashes = dataset.decode.get("perceptual_hash", pd.Series(dtype=TEXT))
    if hashes.isna().all():
        text = "the images have no fingerprints, so only equal copies could be searched for"
        advice = "prepare the set again with this version"
        count = len(dataset.decode)
        problems.append(Problem("near_unsought", "info", text, count, (), advice))
    return problems


def _with_redraw(problem: Problem, folder: Path) -> Problem:
    """Add to an error of a split the command that makes the split anew without it."""
    if problem.severity != "error" or not problem.split:
        return problem
    return replace(problem, advice=f"make the split anew: {redraw_command(folder, problem.split)}")


def redraw_command(folder: Path, name: str) -> str:
    """Return the command that draws another split, so that no patient is in two of its parts.

    Copies of an image are assigned to the same part, too.

    Example:
        >>> redraw_command(Path("no-such-folder"), "default")
        'cxr split no-such-folder --name default-new'
    """
    path = folder / "splits" / f"{name}.json"
    how = SplitInfo.read(path).how if path.is_file() else None
    more = []
    if how is not None and how.folds is not None and how.rule is not None:
        name = name.rpartition("-")[0]
        more = ["--folds", str(max(how.rule.folds, 3))]
    elif how is not None and not how.method.startswith("by patient"):
        more = ["--from", name]  # its test images were chosen, so they are kept
    return shlex.join(["cxr", "split", str(folder), "--name", f"{name}-new", *more])


def audit_again(dataset: DataSet, measure_shortcuts: MeasureShortcuts) -> Audit:
    """Search a data set for faults again after its splits have changed.

    How well metadata predict the label is taken from the stored ``audit.json``; the function is
    called only if images or labels have changed since.
    """
    path = dataset.folder / AUDIT
    before = Audit.read(path).facts if path.is_file() else {}
    if all(before.get(key) == getattr(dataset.ids, key) for key in _CONTENT):
        stored = before["shortcuts"]
        return audit(dataset, measure_shortcuts=lambda images, decode, labels: stored)
    return audit(dataset, measure_shortcuts=measure_shortcuts)


def split_errors(dataset: DataSet, split: str) -> tuple[Problem, ...] | None:
    """Return the errors of one split that ``cxr check`` has stored in ``audit.json``.

    None means that the split has changed since the check, or that there was no check.
    """
    path = dataset.folder / AUDIT
    if not path.is_file():
        return None
    stored = Audit.read(path)
    audited_id = stored.facts.get("split_ids", {}).get(split)
    is_covered = audited_id == dataset.ids.split_ids.get(split)
    names = ("", split) if is_covered else ("",)
    errors = tuple(p for p in stored.problems if p.severity == "error" and p.split in names)
    return errors if errors or is_covered else None


def require_no_errors(
    dataset: DataSet, split: str, *, despite_errors: bool = False
) -> tuple[bool, tuple[str, ...]]:
    """Check that ``cxr check`` found no error in a split before it is used for training.

    If there is no stored result for the split, only patients and copies of an image in two of
    train, validation and test are sought. Returned are True if there is a stored result, and the
    messages of the errors, which raise an `InputError` unless `despite_errors` is True.
    """
    errors = split_errors(dataset, split)
    audited = errors is not None
    errors = _quick_errors(dataset, split) if errors is None else errors
    if errors and not despite_errors:
        first = errors[0]
        more = f" (and {len(errors) - 1} more: cxr check {dataset.folder})" if errors[1:] else ""
        raise InputError(
            f"{dataset.folder}: the audit found an error: {first.counted_message}{more}. "
            f"What to do: {first.advice}; or go on nevertheless with --despite-audit"
        )
    return audited, tuple(problem.counted_message for problem in errors)


def _quick_errors(dataset: DataSet, split: str) -> tuple[Problem, ...]:
    """Find patients and equal images in two roles, which needs no pixels."""
    table = dataset.split(split)
    nothing = pd.DataFrame(index=pd.Index(dataset.images["image_id"]))
    twins = find_duplicates(dataset.decode)
    problems = check_leaks(dataset.images, table, split)
    problems += check_duplicates(twins, dataset.images, nothing, {split: table})
    errors = [p for p in problems if p.count and p.severity == "error" and p.split == split]
    return tuple(_with_redraw(problem, dataset.folder) for problem in errors)
