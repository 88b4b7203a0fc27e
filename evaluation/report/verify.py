"""Verification of a report: everything is computed again from its folder alone, and compared."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, ShownAsText, counted, first_line
from cxr_compare.data_prep.base.files import is_work_file, make_folder
from cxr_compare.data_prep.base.folders import require_folder
from cxr_compare.data_prep.base.provenance import package_versions
from cxr_compare.data_prep.base.records import Record, changed_files
from cxr_compare.data_prep.base.user_tables import read_json_file
from cxr_compare.evaluation.compare import Comparison, Request
from cxr_compare.evaluation.findings import corrected_together
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.answer import Answer
from cxr_compare.evaluation.report.cases import read_cases
from cxr_compare.evaluation.report.inputs import given_file, read_inputs
from cxr_compare.evaluation.report.result import Result
from cxr_compare.evaluation.report.results_by_target import (
    AnswerByFinding,
    ResultsByTarget,
    numbers_of_means,
)
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP

_TOLERANCE = 1e-9
"""Largest difference of two equal numbers, relative for numbers above 1."""
_RESAMPLED = ("ci_low", "ci_high", "p_value", "p_holm")
_KEYS = ("target", "topic", "group", "system", "first", "second", "metric", "policy", "curve")
_NOT_COMPUTED = ("files", "command", "created", "revision", "versions")
"""Parts of an answer that no computation gives; the digests of its files are compared before."""
_PICTURE = re.compile(r'src="data:image/jpeg;base64,[^"]*"')
_DRAWN = re.compile(r"<svg.*?</svg>|<[^>]*>", re.DOTALL)
_SHOWN = 5
_SIDE = 256
_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True, repr=False)
class Verification(ShownAsText):
    """Result of `verify_report`.

    Attributes:
        differences: What differs, one line each; empty for a report that is equal.
        remarks: Other versions and what follows from them, and what was not compared.
        computed: Number of cells, values and files that were computed again.
        sha256: Digest in the record of the report, by which all its files are named.
    """

    folder: Path
    differences: tuple[str, ...]
    remarks: tuple[str, ...]
    computed: int
    sha256: str

    @property
    def is_equal(self) -> bool:
        """True if everything was computed again, and nothing differs."""
        return bool(self.computed) and not self.differences

    @property
    def exit_status(self) -> int:
        """0 for a report that is equal, else 1."""
        return int(not self.is_equal)

    def __str__(self) -> str:
        count = len(self.differences)
        verdict = counted(count, "difference") if count else "no change, and not computed again"
        verdict = f"equal ({self.computed:,} values)" if self.is_equal else verdict
        lines = [f"{self.folder}: {verdict}"]
        lines += [f"  {line}" for line in (*self.differences, *self.remarks)]
        return "\n".join([*lines, f"  SHA-256 of the report: {self.sha256}"])

    def to_dict(self) -> dict[str, Any]:
        """Return what ``cxr verify --json`` prints."""
        return {
            "equal": self.is_equal,
            "differences": list(self.differences),
            "remarks": list(self.remarks),
            "computed": self.computed,
            "sha256": self.sha256,
        }


@dataclass
class _Found:
    """What is found while a report is compared."""

    differences: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    computed: int = 0
    same_versions: bool = True

    def add(self, file: str, place: str, stored: Any, again: Any) -> None:
        """Note a difference; of long texts what stands around the first one."""
        texts = [str(stored), str(again)]
        pairs = enumerate(zip_longest(*texts))
        first = max(0, next((n for n, (a, b) in pairs if a != b), 0) - 30)
        parts = [text[first : first + 80] for text in texts]
        self.differences.append(f"{file}: {place}: {parts[0]} stored, {parts[1]} computed again")


def verify_report(folder: Path, given: Sequence[Path] = ()) -> Verification:
    """Compute a report again from its folder, and compare it with all that the folder holds.

    `given` are files that are said to be those of which the report was made.

    Raises:
        InputError: The folder is no finished report, or is one of several findings, which are
            verified together.
    """
    several = (folder / files.ANSWERS).is_file()
    if not several:
        require_folder(folder, "report")
    found = _Found()
    main = files.ANSWERS if several else files.ANSWER
    found.differences += [f"{name}: {how}" for name, how in changed_files(folder, main)]
    found.differences += [f"{name}: was added to the report" for name in _added(folder, main)]
    whole = _record(AnswerByFinding, folder / main) if several else None
    names = whole.findings if whole else ("",)
    answers = {name: _record(Answer, folder / name / files.ANSWER) for name in names}
    answer = answers[names[0]]
    if not several and answer.n_findings > 1:
        raise InputError(
            f"{folder}: is one of {answer.n_findings} findings that were compared together; give "
            "the folder of all of them"
        )
    _compare_versions(answer, found)
    if answer.provenance.request.get("without_inputs"):
        found.remarks.append(
            "not computed again: figures, sentences, tables and charts, as the report was written "
            "without its inputs; its files were compared by their digests"
        )
    else:
        try:
            with tempfile.TemporaryDirectory(prefix="cxr-") as fresh:
                _compute(folder, Path(fresh), answers, whole, found)
        except Exception as error:  # noqa: BLE001 - what was changed may raise anything
            found.differences.append(f"{files.INPUTS}: give no report ({first_line(error)})")
    _compare_given(answer, given, found)
    seal = str(read_json_file(folder / main).get("sha256", ""))
    return Verification(
        folder, tuple(found.differences), tuple(found.remarks), found.computed, seal
    )


def _added(folder: Path, main: str) -> Iterator[str]:
    """Yield the files of a report that no record names."""
    content = read_json_file(folder / main)
    named = {*content.get("files", ()), main}
    records = [name for name in named if "/" in name and name.endswith(".json")]
    inside = {str(Path(name).parent): Path(name).name for name in records}
    inside.pop(files.INPUTS, None)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_inside = any(name.startswith(f"{part}/") for part in inside)
        if path.is_file() and not (name in named or is_inside or is_work_file(path)):
            yield name
    for part, record in inside.items():
        if (folder / part / record).is_file():
            yield from (f"{part}/{name}" for name in _added(folder / part, record))


def _record(kind: type[_R], path: Path) -> _R:
    """Read a record, whose seal was compared before."""
    content = read_json_file(path)
    for name in ("sha256", "contract", "schema_version"):
        content.pop(name, None)
    return kind.from_content(content, path)


def _compare_versions(answer: Answer, found: _Found) -> None:
    was, now = answer.provenance.versions or {}, package_versions()
    other = [f"{n} {was[n]} there, {now.get(n, 'none')} here" for n in was if was[n] != now.get(n)]
    found.same_versions = not other
    found.remarks += [f"other versions: {'; '.join(other)}"] if other else []


def _compare_given(answer: Answer, given: Sequence[Path], found: _Found) -> None:
    """Compare files with those of which the report was made."""
    known = {each["sha256"]: each for each in answer.provenance.files}
    lacking = {each["name"] for each in known.values()}
    for path in given:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        file = given_file(path)
        lacking.discard(file["name"])
        if file["sha256"] not in known:
            roles = [e["given_as"] for e in known.values() if e["name"] == file["name"]]
            was = f"; the {' and '.join(roles)} was another file" if roles else ""
            found.differences.append(f"{path}: the report was not made of this file{was}")
    if given and lacking:
        found.remarks.append(f"not given, so not compared: {', '.join(sorted(lacking))}")


def _compute(
    folder: Path,
    fresh: Path,
    answers: Mapping[str, Answer],
    whole: AnswerByFinding | None,
    found: _Found,
) -> None:
    """Write the report again into a new folder, and compare each file."""
    read = {name: read_inputs(folder / name, answer) for name, answer in answers.items()}
    made = {name: each.compare() for name, each in _together(read).items()}
    if len(made) > 1:
        made = corrected_together(made)
    results = {}
    for name, answer in answers.items():
        _, readings, drawn = read[name]
        results[name] = _again(folder / name, answer, made[name], readings, found, name, drawn)
        results[name].write(make_folder(fresh / name))
    if whole is not None:
        ResultsByTarget.of(results, whole.left_out).write(fresh)
    for path in sorted(fresh.rglob("*")):
        name = path.relative_to(fresh).as_posix()
        if path.is_dir() or path.suffix in (".parquet", ".png") or path.parent.name == files.INPUTS:
            continue
        found.computed += 1
        if not (folder / name).is_file():
            found.differences.append(f"{name}: is missing")
        elif path.suffix == ".json":
            stored, again = (read_json_file(of / name) for of in (folder, fresh))
            _compare_values(name, stored, again, "", found)
        elif path.suffix == ".csv":
            _compare_tables(name, _csv(folder / name), _csv(path), found)
        else:
            _compare_lines(name, _text(folder / name), _text(path), found)
    pictures = sum(len(answer.overlays) for answer in answers.values())
    if pictures:
        text = f"not computed again: {counted(pictures, 'picture')}, compared by their digests"
        found.remarks.append(text)
    systems = {
        name
        for each in answers.values()
        for name, of in each.provenance.systems.items()
        if of.get("inference_id")
    }
    if systems:
        found.remarks.append(
            f"not computed again: the predictions of {', '.join(sorted(systems))}, which are "
            "inputs, compared by their digests"
        )


def _together(read: Mapping[str, tuple[Request, Any, bool]]) -> dict[str, Request]:
    """Return requests for several findings, whose resamples are of the patients of them all."""
    requests = {name: each[0] for name, each in read.items()}
    if len(requests) < 2:
        return requests
    drawn = np.unique(np.concatenate([r.truth.of("test").owners for r in requests.values()]))
    return {
        name: replace(each, truth=replace(each.truth, drawn=drawn))
        for name, each in requests.items()
    }


def _again(
    folder: Path,
    answer: Answer,
    made: Comparison,
    readings: pd.DataFrame | None,
    found: _Found,
    finding: str,
    drawn: bool,
) -> Result:
    """Compare the tables of one finding; return the result that is right, to be written.

    A table that is equal keeps its stored digits, so that no last digit is printed otherwise.
    """
    tables: dict[str, pd.DataFrame] = {}
    for name in files.TABLES:
        file = f"{finding}/{name}.parquet".removeprefix("/")
        again = getattr(Result.of(made), name)
        stored = None
        if (folder / f"{name}.parquet").is_file():
            stored = files.with_texts(pd.read_parquet(folder / f"{name}.parquet"))
        tables[name] = again
        if stored is not None and _compare_tables(file, stored, again, found, made):
            tables[name] = stored
    made = replace(made, figures=tables["figures"])
    again = Result.of(made, numbers_for_ids=answer.numbers_for_ids)
    origin = again.answer.provenance.with_values(
        request=answer.provenance.request, files=answer.provenance.files
    )
    right = again.answer.with_values(composition=answer.composition, provenance=origin)
    result = Result(right, tables.__getitem__, comparison=made)
    if not drawn:
        return result
    blank = partial(_blank, made.truth.sizes, result.drawn_images(answer.overlays))
    return replace(result, images=read_cases(made, blank, readings).in_order(right.systems))


def _blank(sizes: pd.DataFrame, drawn: Sequence[str], image_id: str) -> npt.NDArray[np.uint8]:
    """Return empty pixels: words below a drawing rest on the size of the image alone."""
    if image_id not in drawn:
        raise InputError(f"{image_id}: was not drawn")
    width, height = np.nan_to_num(sizes.loc[image_id].to_numpy(np.float64), nan=_SIDE)
    return np.zeros((int(height), int(width)), np.uint8)


def _csv(path: Path) -> pd.DataFrame:
    """Read a table of a report: as texts, as all but means are written from the stored digits."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return numbers_of_means(table) if path.name == files.MACRO_CSV else table


def _text(path: Path) -> str:
    return _PICTURE.sub("", path.read_text("utf-8", errors="replace"))


def _compare_tables(
    name: str,
    stored: pd.DataFrame,
    again: pd.DataFrame,
    found: _Found,
    made: Comparison | None = None,
) -> bool:
    """Compare a table cell by cell; return True if its stored digits may stay."""
    found.computed += again.size
    if list(stored) != list(again) or len(stored) != len(again):
        found.add(name, "rows and columns", stored.shape, again.shape)
        return False
    again = again.reset_index(drop=True)
    near = np.zeros(len(again), bool)
    if made is not None and not found.same_versions and "method" in again:
        near = again["method"].eq(BOOTSTRAP).to_numpy()
    wrong = []
    for column in again:
        gap = _gaps(stored[column], again[column])
        limit = 2 / made.resamples.n_replicates if made and column in _RESAMPLED else 0.0
        is_near = near & (gap > _TOLERANCE) & (gap <= limit)
        if is_near.any():
            text = (
                f"{name}: {column} of {counted(int(is_near.sum()), 'row')} differ by no more than "
            )
            found.remarks.append(text + f"{limit:g}, as these versions resample otherwise")
        wrong += [(row, column) for row in np.flatnonzero((gap > _TOLERANCE) & ~is_near)]
    keys = [key for key in (*_KEYS, "image_id") if key in again]
    for row, column in wrong[:_SHOWN]:
        words = ", ".join(filter(None, map(str, again.loc[row, keys])))
        found.add(
            name, f"row {row + 1} ({words}), {column}", stored[column][row], again[column][row]
        )
    if len(wrong) > _SHOWN:
        found.differences.append(f"{name}: {len(wrong) - _SHOWN:,} further cells")
    return not wrong


def _gaps(one: pd.Series, other: pd.Series) -> npt.NDArray[np.float64]:
    """Return the differences of cells, relative for numbers above 1; infinite for other texts."""
    empty = one.isna().to_numpy() & other.isna().to_numpy()
    if all(pd.api.types.is_numeric_dtype(each) for each in (one, other)):
        a, b = (each.to_numpy(np.float64, na_value=np.nan) for each in (one, other))
        gap = np.where(a == b, 0.0, np.abs(a - b) / np.fmax(1.0, np.fmax(np.abs(a), np.abs(b))))
    else:
        gap = np.where(one.astype(str).to_numpy() == other.astype(str).to_numpy(), 0.0, np.inf)
    return np.where(empty, 0.0, np.nan_to_num(gap, nan=np.inf))


def _compare_values(file: str, stored: Any, again: Any, key: str, found: _Found) -> None:
    """Compare two JSON values, and name the keys that differ."""
    if isinstance(stored, dict) and isinstance(again, dict):
        for name in {**stored, **again}:
            if name not in _NOT_COMPUTED and not (name == "sha256" and not key):
                place = f"{key}.{name}".strip(".")
                _compare_values(file, stored.get(name), again.get(name), place, found)
    elif isinstance(stored, list) and isinstance(again, list) and len(stored) == len(again):
        for number, pair in enumerate(zip(stored, again, strict=True), start=1):
            _compare_values(file, *pair, f"{key} {number}", found)
    else:
        found.computed += 1
        kinds = {type(stored), type(again)}
        is_number = kinds <= {int, float}
        limit = _TOLERANCE * max(1.0, abs(stored), abs(again)) if is_number else 0.0
        if stored != again and not (is_number and abs(stored - again) <= limit):
            found.add(file, key, json.dumps(stored), json.dumps(again))


def _compare_lines(name: str, stored: str, again: str, found: _Found) -> None:
    """Name the first lines in which two texts differ."""
    if not found.same_versions and stored != again:
        numbers = [re.findall(r"\d[\d.,]*", _DRAWN.sub(" ", text)) for text in (stored, again)]
        if numbers[0] == numbers[1]:
            found.remarks.append(f"{name}: is drawn otherwise by these versions")
            return
    lines = list(zip_longest(stored.splitlines(), again.splitlines(), fillvalue=""))
    wrong = [number for number, (one, other) in enumerate(lines) if one != other]
    for number in wrong[:_SHOWN]:
        found.add(name, f"line {number + 1}", *lines[number])
    if len(wrong) > _SHOWN:
        found.differences.append(f"{name}: {len(wrong) - _SHOWN:,} further lines")
