"""Verification of a report: everything is computed again from its folder alone, and compared."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import (
    InputError,
    ShownAsText,
    counted,
    first_line,
    require_extra,
)
from cxr_compare.data_prep.base.files import make_folder
from cxr_compare.data_prep.base.folders import require_folder
from cxr_compare.data_prep.base.provenance import git_revision, package_versions
from cxr_compare.data_prep.base.records import Record, changed_files
from cxr_compare.data_prep.base.user_tables import read_json_file
from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.findings import corrected_together, patients_of_all
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
_KEYS = ("topic", "group", "system", "first", "second", "metric", "policy", "curve", "image_id")
_PICTURE = re.compile(r'(?<=src=")data:image/jpeg;base64,[A-Za-z0-9+/=]+(?=")')
_DRAWN = re.compile(r"<svg.*?</svg>|<[^>]*>", re.DOTALL)
_SHOWN = 10
_SIDE = 256
_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True, repr=False)
class Verification(ShownAsText):
    """Result of `verify_report`.

    Attributes:
        differences: What differs, one line each, and of many in one file how many more there are;
            empty for a report that is equal.
        remarks: Another commit or other versions, what follows, and what was not compared.
        n_differences: Number of all differences.
        computed: Number of cells, values and files that were computed again.
        sha256: Digest in the record of the report, by which all its files are named.
        tables_equal: True if all tables were computed again, and none differs.
    """

    folder: Path
    differences: tuple[str, ...]
    remarks: tuple[str, ...]
    n_differences: int
    computed: int
    sha256: str
    tables_equal: bool = False

    @property
    def is_equal(self) -> bool:
        """True if everything was computed again, and nothing differs."""
        return bool(self.computed) and not self.differences

    @property
    def exit_status(self) -> int:
        """0 for a report that is equal, else 1."""
        return int(not self.is_equal)

    def __str__(self) -> str:
        count = self.n_differences
        verdict = counted(count, "difference") if count else "no change, and not computed again"
        verdict = f"equal ({self.computed:,} values)" if self.is_equal else verdict
        lines = [f"{self.folder}: {verdict}"]
        lines += [f"  {line}" for line in (*self.remarks, *self.differences)]
        if count and self.tables_equal:
            lines.append("  all figures in the tables are equal")
        text = "  SHA-256 of what was written, which the record states"
        return "\n".join([*lines, f"{text}: {self.sha256}"])

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
    """Differences and remarks that are found while a report is compared."""

    differences: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    n_hidden: int = 0
    computed: int = 0
    same_versions: bool = True
    is_whole: bool = False

    def compare(
        self,
        file: str,
        stored: Mapping[str, Any],
        again: Mapping[str, Any],
        loose: Collection[str] = (),
        limit: float = 0.0,
    ) -> bool:
        """Compare values by their place; return True if the stored ones may stay.

        Those at the places `loose` may differ by a limit under other versions.
        """
        wrong, n_near = [], 0
        for place in {**again, **stored}:
            one, other = stored.get(place), again.get(place)
            gap = float(one != other)
            if gap and isinstance(one, int | float) and isinstance(other, int | float):
                gap = abs(one - other) / max(1.0, abs(one), abs(other))
            if gap > _TOLERANCE and place in loose and gap <= limit:
                n_near += 1
            elif gap > _TOLERANCE:
                wrong.append((place, *_around(str(one), str(other))))
        self.computed += len(again)
        if n_near:
            numbers = counted(n_near, "number")
            text = f"{file}: {numbers} by resamples of other versions, within {limit:g}"
            self.remarks.append(text)
        lines = [f"{file}: {at}: {a} stored, {b} computed again" for at, a, b in wrong[:_SHOWN]]
        if n_more := len(wrong[_SHOWN:]):
            lines.append(f"{file}: {counted(n_more, 'further difference')}")
            self.n_hidden += n_more - 1
        self.differences += lines
        return not wrong


def _around(stored: str, again: str) -> tuple[str, str]:
    """Return two texts, of long ones what stands around the first difference."""
    pairs = enumerate(zip_longest(stored, again))
    first = max(0, next((n for n, (a, b) in pairs if a != b), 0) - 30)
    return stored[first : first + 80], again[first : first + 80]


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
    main = files.ANSWERS if several else files.ANSWER
    found = _Found([f"{name}: {how}" for name, how in changed_files(folder, main)])
    whole = _record(AnswerByFinding, folder / main) if several else None
    names = whole.findings if whole else ("",)
    answers = {name: _record(Answer, folder / name / files.ANSWER) for name in names}
    answer = answers[names[0]]
    if not several and answer.n_findings > 1:
        raise InputError(
            f"{folder}: is one of {answer.n_findings} findings that were compared together; give "
            "the folder of all of them"
        )
    was, now = answer.provenance.versions or {}, package_versions()
    other = [f"{n} {was[n]} there, {now.get(n, 'none')} here" for n in was if was[n] != now.get(n)]
    found.same_versions = not other
    if commits := _other_commit(answer.provenance.revision):
        found.remarks.append(f"{commits}; what changed between the two differs, too")
    found.remarks += [f"other versions: {'; '.join(other)}"] if other else []
    found.remarks += _not_computed(answers)
    if not answer.provenance.request.get("without_inputs"):
        try:
            with tempfile.TemporaryDirectory(prefix="cxr-") as fresh:
                _compute(folder, Path(fresh), answers, whole, found)
        except Exception as error:  # noqa: BLE001 - what was changed may raise anything
            found.differences.append(f"{files.INPUTS}: give no report ({first_line(error)})")
    _compare_given(answer, given, found)
    seal = str(read_json_file(folder / main).get("sha256", ""))
    files_named = [line.partition(":")[0] for line in found.differences]
    return Verification(
        folder,
        tuple(found.differences),
        tuple(found.remarks),
        len(found.differences) + found.n_hidden,
        found.computed,
        seal,
        found.is_whole and not any(name.endswith((".parquet", ".csv")) for name in files_named),
    )


def _record(kind: type[_R], path: Path) -> _R:
    """Read a record, whose seal was compared before."""
    content = read_json_file(path)
    for name in ("sha256", "contract", "schema_version"):
        content.pop(name, None)
    try:
        return kind.from_content(content, path)
    except InputError as error:
        made = content.get("provenance")
        commits = _other_commit(made.get("revision")) if isinstance(made, dict) else ""
        if not commits:
            raise
        raise InputError(f"{path}: {commits}, which cannot read it") from error


def _other_commit(revision: Any) -> str:
    """Return which other commit made a report than the one here; empty if none is known."""
    here = git_revision()
    if not (revision and here) or revision == here:
        return ""
    return f"made by another commit of cxr-compare: {revision} there, {here} here"


def _not_computed(answers: Mapping[str, Answer]) -> Iterator[str]:
    """Yield what cannot be computed from a report."""
    made = {name: of for a in answers.values() for name, of in a.provenance.systems.items()}
    systems = [name for name, of in made.items() if of.get("inference_id")]
    pictures = sum(len(answer.overlays) for answer in answers.values())
    if any(answer.provenance.request.get("without_inputs") for answer in answers.values()):
        yield (
            "not computed again, but compared by their digests: all figures, sentences, tables and "
            "charts, as the report was written without its inputs"
        )
    if pictures:
        yield f"not computed again, but compared by their digests: {counted(pictures, 'picture')}"
    if systems:
        yield f"not computed again, as they are inputs: the predictions of {', '.join(systems)}"


def _compare_given(answer: Answer, given: Sequence[Path], found: _Found) -> None:
    """Compare files with those of which the report was made."""
    known = answer.provenance.files
    lacking = {each["name"] for each in known}
    for path in given:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        file = given_file(path)
        lacking.discard(file["name"])
        if file["sha256"] not in [each.get("sha256") for each in known]:
            roles = [each["given_as"] for each in known if each["name"] == file["name"]]
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
    drawn = patients_of_all([request.truth for request, _ in read.values()])
    made = {
        name: replace(request, truth=replace(request.truth, drawn=drawn)).compare()
        for name, (request, _) in read.items()
    }
    if len(made) > 1:
        made = corrected_together(made)
    results = {}
    for name, answer in answers.items():
        tables = _tables(folder, name, made[name], found)
        results[name] = _result(answer, made[name], tables, read[name][1])
        results[name].write(make_folder(fresh / name))
    if whole is not None:
        ResultsByTarget.of(results, whole.left_out).write(fresh)
    for path in sorted(fresh.rglob("*.*")):
        name = path.relative_to(fresh).as_posix()
        if path.suffix in (".parquet", ".png") or path.parent.name == files.INPUTS:
            continue
        if not (folder / name).is_file():
            found.differences.append(f"{name}: is missing")
            continue
        stored, again = _content(folder / name), _content(path)
        if stored != again and not found.same_versions and path.suffix in (".svg", ".html"):
            numbers = [_numbers(folder / name), _numbers(path)]
            if numbers[0] == numbers[1]:
                found.remarks.append(f"{name}: is drawn otherwise by these versions")
                continue
        found.compare(name, stored, again)
    found.is_whole = True


def _tables(folder: Path, finding: str, made: Comparison, found: _Found) -> dict[str, pd.DataFrame]:
    """Compare the tables of a finding; return those that are right.

    A table that is equal keeps its stored digits, so that no last digit is printed otherwise.
    """
    tables: dict[str, pd.DataFrame] = {}
    for name in files.TABLES:
        file = f"{finding}/{name}.parquet".removeprefix("/")
        again: pd.DataFrame = getattr(Result.of(made), name)
        tables[name] = again
        if not (folder / file).is_file():
            continue
        stored = files.with_texts(pd.read_parquet(folder / file))
        cells = _cells(again)
        loose: list[str] = []
        if not found.same_versions and "method" in again:
            rows = again[again["method"] == BOOTSTRAP]
            ends = tuple(f", {column}" for column in _RESAMPLED)
            starts = tuple(f"row {row + 1} " for row in rows.index)
            loose = [at for at in cells if at.startswith(starts) and at.endswith(ends)]
        limit = 2 / made.resamples.n_replicates
        if found.compare(file, _cells(stored), cells, loose, limit):
            tables[name] = stored
    return tables


def _result(
    answer: Answer,
    made: Comparison,
    tables: Mapping[str, pd.DataFrame],
    readings: pd.DataFrame | None,
) -> Result:
    """Return the result that is right, of tables and of what no computation gives."""
    made = replace(made, figures=tables["figures"])
    right = Result.of(made, numbers_for_ids=answer.numbers_for_ids).answer
    computed = {
        name: getattr(right.provenance, name) for name in ("systems", "protocol", "bootstrap")
    }
    origin = answer.provenance.with_values(**computed)
    right = right.with_values(composition=answer.composition, provenance=origin)
    result = Result(right, tables.__getitem__, comparison=made)
    if not answer.overlays:
        return result
    require_extra("verify: a report with drawn images", "images")
    blank = partial(_blank, made.truth.sizes, result.drawn_images(answer.overlays))
    return replace(
        result, images=read_cases(made, blank, readings).in_order(right.systems, result.ordered)
    )


def _blank(sizes: pd.DataFrame, drawn: Sequence[str], image_id: str) -> npt.NDArray[np.uint8]:
    """Return empty pixels: words below a drawing rest on the size of the image alone."""
    if image_id not in drawn:
        raise InputError(f"{image_id}: was not drawn")
    width, height = np.nan_to_num(sizes.loc[image_id].to_numpy(np.float64), nan=_SIDE)
    return np.zeros((int(height), int(width)), np.uint8)


def _content(path: Path) -> dict[str, Any]:
    """Return the content of a file by place: keys, cells or lines, but for pictures and digests.

    A CSV file is compared as texts, as it is written from stored digits; the means are numbers.
    """
    if path.suffix == ".json":
        content = read_json_file(path)
        return dict(_values({k: v for k, v in content.items() if k not in ("files", "sha256")}))
    if path.suffix == ".csv":
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return _cells(numbers_of_means(table) if path.name == files.MACRO_CSV else table)
    text = path.read_text("utf-8", errors="replace")
    text = _PICTURE.sub("", text) if path.suffix == ".html" else text
    return {f"line {number}": line for number, line in enumerate(text.splitlines(), start=1)}


def _numbers(path: Path) -> list[str]:
    """Return the numbers of a page outside its tags and charts."""
    return re.findall(r"\d[\d.,]*", _DRAWN.sub(" ", path.read_text("utf-8", errors="replace")))


def _cells(table: pd.DataFrame) -> dict[str, Any]:
    """Return the cells of a table by row, with what it is of, and column."""
    names = [name for name in _KEYS if name in table]
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return {
        f"row {number} ({', '.join(str(row[n]) for n in names if row[n])}), {column}": value
        for number, row in enumerate(rows, start=1)
        for column, value in row.items()
    }


def _values(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of a JSON file with its keys."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content, start=1)
        for name, value in items:
            yield from _values(value, f"{key}.{name}".strip("."))
    else:
        yield key, content
