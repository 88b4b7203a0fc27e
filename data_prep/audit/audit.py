"""The audit of a data set: everything that would make its results wrong, in plain words."""

from __future__ import annotations

import html
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd

from cxr_compare.data_prep.audit.box_checks import check_boxes
from cxr_compare.data_prep.audit.burned_in_text import check_burned_in_text, text_suspects
from cxr_compare.data_prep.audit.copy_checks import check_duplicates, check_near_duplicates
from cxr_compare.data_prep.audit.counts import (
    count_prevalence,
    describe_images,
    expected_image_leak,
)
from cxr_compare.data_prep.audit.excluded_files import check_excluded
from cxr_compare.data_prep.audit.image_checks import check_images, check_people
from cxr_compare.data_prep.audit.image_groups import find_duplicates
from cxr_compare.data_prep.audit.problem import SEVERITIES, Problem
from cxr_compare.data_prep.audit.shortcut_checks import check_shortcuts
from cxr_compare.data_prep.audit.split_checks import check_leaks, check_roles
from cxr_compare.data_prep.audit.thumbnails import open_images
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.dataset_copies import find_dataset_copies
from cxr_compare.data_prep.duplicates.near_duplicates import NearDuplicates
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.work.engine import Engine

AUDIT = "audit.json"
"""Name of what programs read of an audit, in the folder of its data set."""
AUDIT_PAGE = "audit.html"
EXCLUDE = "exclude.csv"
"""Name of the list of images to leave out, which `cxr prepare --exclude` takes."""
_NOT_ASKED = Problem(
    "pictures_skipped", "info", "the images were not looked at (--no-pixels)", 1, unit="run"
)
MeasureShortcuts = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame], list[dict[str, Any]]]
_CONTENT = ("content_id", "labels_id")
# Checks whose advice is to leave images out, with how many of those that belong together stay.
_STAY = {
    "view_lateral": 0,
    "picture_label": 0,
    "picture_patients": 1,
    "picture_repeated": 1,
    "near_label": 0,
    "near_patients": 1,
    "near_repeated": 1,
}
_WORTH_SAYING = 0.01  # share of test images that a split by image would leak


@dataclass(frozen=True)
class Audit:
    """What an audit found, the worst first."""

    problems: tuple[Problem, ...]  # one a kind of fault
    checked: dict[str, int]  # how many images, patients, boxes and splits were looked at
    # figures to read results against, JSON-ready: `prevalence`, `shortcuts`, `split_by_image`,
    # `images`, `copies`; and of what was looked at `content_id`, `labels_id` and `split_ids`
    facts: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)  # the data set that has the page
    strict: bool = field(default=False, compare=False)  # whether a warning, too, is a failure
    next_steps: tuple[str, ...] = field(default=(), compare=False)  # commands that usually follow

    def __repr__(self) -> str:
        found = ", ".join(f"{severity} {n}" for severity, n in self.counts.items())
        return f"<Audit of {counted(self.checked.get('images', 0), 'image')}: {found}>"

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
        if n := len(self.exclusions):
            listed = f"{self.folder / EXCLUDE}, a list to edit and for cxr prepare --exclude"
            lines.append(f"{counted(n, 'image')} to leave out: {listed}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What was found as a table, in a notebook."""
        with pd.option_context("display.max_colwidth", None):
            table = self.table.to_html(index=False, justify="left") if self.problems else ""
        table = table.replace("<td>", '<td style="text-align: left">')
        return f"<p>{html.escape(repr(self))}</p>{table}"

    @property
    def table(self) -> pd.DataFrame:
        """One row a problem, the worst first: what it is, where, how many, what to do."""
        names = ["severity", "message", "split", "count", "unit", "examples", "advice"]
        rows = [{name: getattr(problem, name) for name in names} for problem in self.problems]
        table = pd.DataFrame(rows, columns=names)
        return table.assign(examples=[", ".join(problem.examples) for problem in self.problems])

    @property
    def scope(self) -> str:
        """What was checked, as counts with their nouns."""
        names = {"pictures": "decoded image", "boxes": "box"}
        nouns = {thing: names.get(thing, thing.removesuffix("s")) for thing in self.checked}
        return ", ".join(counted(count, nouns[thing]) for thing, count in self.checked.items())

    @property
    def counts(self) -> dict[str, int]:
        """Number of problems by severity."""
        return {s: sum(p.severity == s for p in self.problems) for s in SEVERITIES}

    @property
    def passed(self) -> bool:
        """Whether nothing was found that makes results wrong."""
        return not self.counts["error"]

    @property
    def exit_status(self) -> int:
        """1 where something is wrong; where strict, of a warning, too."""
        return int(not self.passed or (self.strict and bool(self.counts["warning"])))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        problems = [asdict(replace(problem, cases=pd.DataFrame())) for problem in self.problems]
        for row in problems:
            del row["cases"]
        found = {"passed": self.passed, "counts": self.counts, "checked": self.checked}
        return {**found, "problems": problems, "facts": self.facts}

    @property
    def exclusions(self) -> pd.DataFrame:
        """``image_id, reason`` of the images that 'what to do' suggests to leave out."""
        reasons: dict[str, str] = {}
        for problem in self.problems:
            n_stay = _STAY.get(problem.check)
            if n_stay is None:
                continue
            cases = problem.cases
            for _, ids in cases["image_id"].groupby(cases.get("group", cases.index), sort=False):
                left = [image_id for image_id in ids if image_id not in reasons]
                stays = f"; {left[0]} stays" if n_stay and left else ""
                reasons |= dict.fromkeys(left[n_stay:], f"{problem.message}{stays}")
        return pd.DataFrame(list(reasons.items()), columns=["image_id", "reason"], dtype=TEXT)

    def of_split(self, name: str) -> Self:
        """What concerns one split: its own problems, and those of the whole set."""
        kept = tuple(problem for problem in self.problems if problem.split in ("", name))
        return replace(self, problems=kept, checked={**self.checked, "splits": 1})

    def write(self, path: Path) -> None:
        """Write ``audit.json``."""
        write_json(path, "audit", self.to_dict())

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read ``audit.json``."""
        content = read_json(Path(path), "audit")
        problems = tuple(_problem(row) for row in content["problems"])
        return cls(problems, content["checked"], content.get("facts", {}))


def _problem(row: dict[str, Any]) -> Problem:
    known = {each.name: row[each.name] for each in fields(Problem) if each.name in row}
    images = tuple(tuple(case) for case in row.get("pictures", ()))
    return Problem(**{**known, "examples": tuple(row["examples"]), "pictures": images})


def audit(
    dataset: DataSet,
    *,
    pixels: bool = True,
    near: NearDuplicates | None = None,
    measure_shortcuts: MeasureShortcuts | None = None,
    engine: Engine | None = None,
) -> Audit:
    """Look for what would make results on a data set wrong.

    `measure_shortcuts` says of images, decode table and labels (a column a target) how well
    metadata and image borders predict each target; shortcuts are not audited without it. `near`
    are copies found before, `engine` decodes the images that look like copies.
    """
    images = _with_columns(dataset.images)
    decode = dataset.optional_table("decode")
    names = sorted(path.stem for path in (dataset.folder / "splits").glob("*.parquet"))
    splits = {name: dataset.split(name) for name in names}
    labels = pd.DataFrame({n: dataset.labels(t) for n, t in dataset.targets.items()})
    unseen = open_images(dataset)[1] if pixels else _NOT_ASKED
    near = near or find_dataset_copies(dataset, decode, pixels=pixels, engine=engine)
    shortcuts = measure_shortcuts(images, decode, labels) if measure_shortcuts else []
    leak = expected_image_leak(images)
    problems = [p for name, table in splits.items() for p in check_leaks(images, table, name)]
    problems += check_duplicates(images, decode, labels, splits)
    problems += check_near_duplicates(near, images, labels, splits)
    boxes = dataset.optional_table("boxes")
    problems += check_boxes(boxes, images, dataset.findings, dataset.box_coverage)
    problems += check_burned_in_text(decode)
    problems += check_people(images, splits)
    problems += check_images(images, decode)
    problems += [p for name, table in splits.items() for p in check_roles(table, labels, name)]
    problems += check_shortcuts(shortcuts)
    problems += _say_image_leak(leak)
    problems += check_excluded(dataset.optional_table("excluded"))
    problems += [unseen] if unseen else []
    problems += _say_no_fingerprints(decode)
    checked = {
        "images": len(images),
        "patients": leak["n_patients"],
        "pictures": len(decode),
        "boxes": len(dataset.boxes),
        "splits": len(splits),
    }
    facts = {
        **{key: dataset.ids[key] for key in _CONTENT},
        "split_ids": {name: dataset.ids["split_ids"].get(name) for name in splits},
        "shortcuts": shortcuts,
        "split_by_image": leak,
        "prevalence": count_prevalence(images, labels, splits, text_suspects(decode)),
        "pictures": describe_images(images, decode),
        "copies": {"equal": len(find_duplicates(decode)), "near": len(near.groups)},
    }
    ordered = sorted((p for p in problems if p.count), key=lambda p: SEVERITIES.index(p.severity))
    return Audit(tuple(_with_redraw(p, dataset.folder) for p in ordered), checked, facts)


def _with_redraw(problem: Problem, folder: Path) -> Problem:
    """A split's error with the command that makes the split anew without it."""
    if problem.severity != "error" or not problem.split:
        return problem
    return replace(problem, advice=f"make the split anew: {redraw_command(folder, problem.split)}")


def redraw_command(folder: Path, name: str) -> str:
    """The command that makes a split anew, with no patient and no image in two roles."""
    path = folder / "splits" / f"{name}.json"
    how = read_json(path, "split")["how"] if path.is_file() else {}
    more = []
    if "folds" in how:
        name = name.rpartition("-")[0]
        more = ["--folds", str(how["rule"]["folds"])]
        more += ["--test-folds"] * how["folds"].startswith("each fold tests")
    elif not how.get("method", "by patient").startswith("by patient"):
        more = ["--from", name]  # its test images were chosen: they stay
    return shlex.join(["cxr", "split", str(folder), "--name", name, "--replace", *more])


def audit_again(dataset: DataSet, measure_shortcuts: MeasureShortcuts) -> Audit:
    """Audit a data set whose splits have changed; what no split changes is not measured again."""
    path = dataset.folder / AUDIT
    before = Audit.read(path).facts if path.is_file() else {}
    if all(before.get(key) == dataset.ids[key] for key in _CONTENT):
        known = before["shortcuts"]
        return audit(dataset, measure_shortcuts=lambda images, decode, labels: known)
    return audit(dataset, measure_shortcuts=measure_shortcuts)


def split_errors(dataset: DataSet, split: str) -> tuple[Problem, ...] | None:
    """Errors of the kept audit that concern a split."""
    path = dataset.folder / AUDIT
    if not path.is_file():
        return None
    kept = Audit.read(path)
    looked = kept.facts.get("split_ids", {}).get(split) == dataset.ids["split_ids"].get(split)
    names = ("", split) if looked else ("",)
    errors = tuple(p for p in kept.problems if p.severity == "error" and p.split in names)
    return errors if errors or looked else None


def require_sound(
    dataset: DataSet, split: str, *, despite_errors: bool = False
) -> tuple[bool, tuple[str, ...]]:
    """Refuse a split on which the audit found what makes results wrong.

    Returns whether an audit has looked at it (else only patients and equal images were compared),
    and its errors in plain words.
    """
    errors = split_errors(dataset, split)
    audited = errors is not None
    errors = _quick_errors(dataset, split) if errors is None else errors
    if errors and not despite_errors:
        first = errors[0]
        more = f" (and {len(errors) - 1} more: cxr check {dataset.folder})" * (len(errors) > 1)
        raise InputError(
            f"{dataset.folder}: the audit found an error: {first.said}{more}. What to do: "
            f"{first.advice}; or go on nevertheless with --despite-audit"
        )
    return audited, tuple(problem.said for problem in errors)


def _quick_errors(dataset: DataSet, split: str) -> tuple[Problem, ...]:
    """Patients and equal images in two roles, which takes no look at an image."""
    table = dataset.split(split)
    nothing = pd.DataFrame(index=pd.Index(dataset.images["image_id"]))
    decode = dataset.optional_table("decode")
    problems = check_leaks(dataset.images, table, split)
    problems += check_duplicates(dataset.images, decode, nothing, {split: table})
    errors = [p for p in problems if p.count and p.severity == "error" and p.split == split]
    return tuple(_with_redraw(problem, dataset.folder) for problem in errors)


def _with_columns(images: pd.DataFrame) -> pd.DataFrame:
    """Add the optional columns that the checks read, all missing."""
    wanted = {"view": TEXT, "sex": TEXT, "age_years": "float64"}
    lacking = {name: dtype for name, dtype in wanted.items() if name not in images.columns}
    new = {name: pd.Series(None, images.index, dtype=dtype) for name, dtype in lacking.items()}
    return images.assign(**new)


def _say_image_leak(leak: dict[str, Any]) -> list[Problem]:
    share = leak["expected_share"]
    if share < _WORTH_SAYING:
        return []
    text = (
        f"a split by image instead of by patient would leak {share:.1%} of the test images: their "
        "patients would train too"
    )
    advice = "split by patient, as cxr does; distrust published figures that did not"
    images = round(leak["expected_images"])
    return [Problem("split_by_image", "info", text, images, (), advice, "test image")]


def _say_no_fingerprints(decode: pd.DataFrame) -> list[Problem]:
    if "perceptual_hash" in decode.columns and decode["perceptual_hash"].notna().any():
        return []
    text = "the images have no fingerprints, so only copies that are equal were looked for"
    advice = "prepare the set again with this version"
    return [Problem("near_unsought", "info", text, len(decode), (), advice)]
