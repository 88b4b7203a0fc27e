"""The output of the benchmark: lines, the page `docs/benchmarks.md` and its picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from cxr_compare.data_prep.contracts.atomic_files import atomic_path, write_text
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.data_prep.contracts.text_files import read_json_file

RECORDED = Path(__file__).with_name("recorded.json")
_PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_RATIOS = "benchmarks.png"
_FEWEST_ROUNDS = 3  # for a comparison with what was recorded
_LEAST_LOSS = 0.1  # share of the recorded ratio
_OURS = "#1f5fa8"
_PEERS = "#c1651d"
_TITLES = {
    "machine": "What the machine can do",
    "training": "Training",
    "inference": "Inference",
    "predict": "The whole of `cxr predict`",
    "start": "First answers",
    "data": "Images and tables",
    "evaluation": "Evaluation",
}
_INTRO = """# How fast

This page compares the speed of cxr-compare with that of other programs. Each piece of work was done
in turns by cxr-compare and by the fastest other program that was measured. The last column is the
ratio of the two speeds: above 1 cxr-compare is faster. It is the median over several rounds, and
the brackets hold the lowest and the highest ratio.

A bold line names the work, and its last cell is the unit of the figures below it. `prepare` and
`predict` are compared with simple loops, which do less: they apply no window to the grey values and
check nothing. With hashes and fingerprint, `prepare` is slower than such a loop. When it was
measured it also searched for burned-in text, which took about as long as decoding an image.

Evaluating 27,000 images takes longer than its limit of 10 s since a rule of boxes is chosen for
each system and more figures of boxes are resampled. The first answers do not meet their limits.
They were measured on another AMD EPYC, without bf16: its 3 × 3 convolution in fp32 computes 118
GFLOP/s, that of the other rows 217.

The picture shows the ratios of all rows, in which *ours* is cxr-compare. All rows are also in
`benchmarks/recorded.json`. `python -m benchmarks [GROUP] --write-docs` measures again and writes
this page. Words on this page are explained in the [glossary](glossary.md).
"""


def line_of(row: Mapping[str, Any]) -> str:
    """Return a measured row as a sentence."""
    ours = row["names"]["ours"]
    peer = row["names"]["peer"]
    what = f"{row['work']}: {ours}"
    if row["failed"]:
        return f"{what}: failed ({row['failed']})"
    if row["ours"] is None:
        return f"{what}: not measured, others use the machine"
    against = "" if row["peer"] is None else f", {peer} {figure(row['peer'])}"
    ratio = "" if row["ratio"] is None else f", {figure(row['ratio'])}x"
    return f"{what} {figure(row['ours'])} {row['unit']}{against}{ratio}"


def as_lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    r"""Return measured rows as a plain table; cells that were not measured stay empty.

    Example:
        >>> from benchmarks.bench import Row, Sample
        >>> row = Row("open", "s", "store", limit=2.0)
        >>> rounds = [{"store": Sample(1.0, seconds, 0.0)} for seconds in (0.4, 0.5, 0.6)]
        >>> print("\n".join(as_lines([row.measured(rounds, {})])))
        work  candidate  ours     peer  unit  ratio  min-max  of peak  n  rejected
        open  store       0.5  limit 2  s                              3         0
    """
    cells = [
        (
            "work",
            "candidate",
            "ours",
            "peer",
            "unit",
            "ratio",
            "min-max",
            "of peak",
            "n",
            "rejected",
        )
    ]
    for row in rows:
        peer = f"limit {figure(row['limit'])}" if row["limit"] else figure(row["peer"])
        ratio = f"{figure(row['ratio'])}x" if row["ratio"] else ""
        spread = "-".join(map(figure, row["ratio_range"] or ()))
        names = " / ".join(name for name in row["names"].values() if name)
        counts = str(row["n"]), str(row["rejected"])
        arguments = names, figure(row["ours"]), peer, row["unit"], ratio, spread, _share(row)
        cells.append((row["work"], *arguments, *counts))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shaped = [zip(line, "<<>><>>>>>", widths, strict=True) for line in cells]
    return ["  ".join(f"{c:{a}{w}}" for c, a, w in line).rstrip() for line in shaped]


def _share(row: Mapping[str, Any]) -> str:
    return "" if row["share"] is None else f"{row['share']:.0%} {row['share_of']}"


def figure(value: float | None) -> str:
    """Return a number with three significant digits; empty for None.

    Example:
        >>> [figure(value) for value in (31245.6, 12.34, 0.01234, None)]
        ['31,200', '12.3', '0.0123', '']
    """
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{round(value, 3 - len(str(int(abs(value))))):,.0f}"
    return f"{value:.3g}"


def recorded() -> dict[str, Any]:
    """Return the rows that are recorded in the repository."""
    return dict(read_json_file(RECORDED))


def losses(payload: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Return the rows that failed, exceeded their limit, or got slower than recorded.

    A row got slower if every ratio lies below every recorded ratio, and the median is lower by a
    tenth or more. Ratios of another machine are not compared.

    `payload` is this run, and `before` the recorded rows.
    """
    found = []
    same = _machine(payload) == _machine(before)
    known = {_key(row): row for row in before["rows"]} if same and not payload["quick"] else {}
    for row in payload["rows"]:
        was = known.get(_key(row))
        if row["failed"]:
            found.append(line_of(row))
        elif row["within_limit"] is False:
            found.append(f"{line_of(row)}: over its limit")
        elif was is not None and _is_slower(row, was):
            found.append(f"{line_of(row)}: slower than recorded, {figure(was['ratio'])}x")
    return found


def _is_slower(row: Mapping[str, Any], was: Mapping[str, Any]) -> bool:
    if row["ratio"] is None or was["ratio"] is None or min(row["n"], was["n"]) < _FEWEST_ROUNDS:
        return False
    apart = row["ratio_range"][1] < was["ratio_range"][0]
    return apart and row["ratio"] < (1 - _LEAST_LOSS) * was["ratio"]


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["group"], row["work"], *row["names"].values()


def _machine(payload: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(payload.get("hardware", {}).get(key) for key in ("processor", "cpus"))


def record(payload: Mapping[str, Any]) -> Path:
    """Store a run in the repository, and write the page and its picture.

    Recorded rows of groups that were not measured this time stay, if they are of the same machine.

    Returns the path of the page. Raises InputError if the run was quick, or only a part was
    measured and the rest is of another machine.
    """
    if payload["quick"]:
        raise InputError("benchmarks: --quick says nothing of speed; leave out --write-docs")
    before = recorded()
    measured = {row["group"] for row in payload["rows"]}
    kept = [row for row in before["rows"] if row["group"] not in measured]
    if kept and _machine(payload) != _machine(before):
        raise InputError(
            f"{RECORDED}: holds other groups of another machine; measure all groups here"
        )
    rows = sorted([*kept, *payload["rows"]], key=lambda row: list(_TITLES).index(row["group"]))
    whole = {**payload, "rows": rows}
    write_json(RECORDED, "bench", whole)
    draw(whole, _PAGE.parent)
    write_text(_PAGE, page(whole))
    return _PAGE


def page(payload: Mapping[str, Any]) -> str:
    """Return the page of a recorded run, as Markdown."""
    rows = payload["rows"]
    if not rows:
        return f"{_INTRO}\nNothing is recorded yet.\n"
    machine = "{processor}, {cpus} processors, {memory_gib:g} GiB".format(**payload["hardware"])
    lines = [_INTRO, f"Machine: {machine}. Images: {payload['n_images']} {payload['images']}.", ""]
    if any(row["ratio"] for row in rows):
        lines += [f"![Ratios of all rows, with their spread]({_RATIOS})", ""]
    for group, of_group in groupby(rows, key=lambda row: row["group"]):
        lines += [] if group == "machine" else _section(group, list(of_group))
    return "\n".join(lines).rstrip() + "\n"


def _section(group: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of a group: each of our candidates against its fastest peer."""
    least: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        key = row["work"], row["names"]["ours"]
        least[key] = min(least.get(key, row), row, key=lambda each: each["ratio"] or 0)
    single = list(least.values())
    revisions = sorted({f"{row['revision']}, {row['created'][:10]}" for row in rows})
    lines = [f"## {_TITLES[group]}", "", f"`{group}`: {'; '.join(revisions)}.", ""]
    if single:
        lines += [_cells(("cxr-compare", "other", "ratio")), _cells(["---"] * 3)]
        for work, of_work in groupby(single, key=lambda row: row["work"]):
            in_unit = list(of_work)
            lines += [_cells([f"**{work}**", "", in_unit[0]["unit"]])]
            last = ""
            for cells in map(_table_row, in_unit):
                peer = "" if cells.peer == last else cells.peer
                lines += [_cells((cells.ours, peer, cells.ratio))]
                last = cells.peer
        lines += [""]
    return lines


class _TableRow(NamedTuple):
    ours: str
    peer: str
    ratio: str


def _table_row(row: Mapping[str, Any]) -> _TableRow:
    names = row["names"]
    own = names["ours"].removeprefix("ours").strip()  # the column says whose it is
    if row["failed"]:
        return _TableRow(own, names["peer"] or "", "failed")
    ours = f"{own}: {figure(row['ours'])}".removeprefix(": ")
    peer = "" if row["peer"] is None else f"{names['peer']}: {figure(row['peer'])}"
    if row["limit"]:
        peer = f"limit {figure(row['limit'])}"
    if row["limit_gib"]:
        peer += f", {figure(row['limit_gib'])} GiB"
    ratio = ""
    if row["ratio"] is not None:
        low, high = map(figure, row["ratio_range"])
        ratio = f"**{figure(row['ratio'])}** ({low}–{high})"
    if row["ours"] is None:
        ours = f"{own}: not measured, others used the machine".removeprefix(": ")
    return _TableRow(ours, peer, ratio)


def _cells(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def draw(payload: Mapping[str, Any], folder: Path) -> None:
    """Write the picture: ratios with their ranges."""
    rows = payload["rows"]
    ratios = [row for row in rows if row["ratio"] is not None]
    if ratios:
        _save(_draw_ratios(ratios), folder / _RATIOS)


def _save(drawn: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        drawn.savefig(temporary, format="png", dpi=120, facecolor="white", bbox_inches="tight")


def _draw_ratios(rows: Sequence[Mapping[str, Any]]) -> Figure:
    drawn = Figure(figsize=(9.0, 1.0 + 0.34 * len(rows)), layout="constrained")
    axes = drawn.subplots()
    place = np.arange(len(rows))[::-1]
    ratio = np.array([row["ratio"] for row in rows])
    low, high = np.array([row["ratio_range"] for row in rows]).T
    axes.barh(place, ratio - 1, left=1, height=0.6, color=np.where(ratio < 1, _PEERS, _OURS))
    axes.errorbar(ratio, place, xerr=(ratio - low, high - ratio), fmt="none", ecolor="black", lw=1)
    axes.set_xscale("log")
    axes.axvline(1, color="black", lw=1)
    names = [
        f"{row['work']}: {row['names']['ours']}\nagainst {row['names']['peer']}" for row in rows
    ]
    axes.set_yticks(place, names, fontsize=6.5)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    for y, x, text in zip(place, high, map(figure, ratio), strict=True):
        axes.annotate(
            f"{text}x", (max(x, 1), y), (4, 0), textcoords="offset points", va="center", fontsize=7
        )
    axes.set_xlim(min(0.8, low.min() / 1.2), high.max() * 1.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("times as fast as the peer (lines: lowest and highest round)")
    axes.spines[["top", "right"]].set_visible(False)
    return drawn
