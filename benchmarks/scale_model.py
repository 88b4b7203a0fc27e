"""Simulate 1 to 256 workers against ten million images, fed with measured stage times.

    python -m benchmarks.scale_model STAGES.json --growth GROWTH.json --engines ENGINES.json
        --write-docs docs/scale.md

`benchmarks.scale` writes all three files. ``STAGES.json`` holds, for each kind of work
(``prepare``, ``predict``), a list of stages:
``{"stage": "decode", "where": "worker", "seconds_per": "image", "seconds": 0.021}``, where

- ``where`` is ``driver`` (one process that lists rows, sends chunks and gathers answers in their
  order), ``worker``, or ``store`` (what the store itself takes; ``parallel`` requests at a time);
- ``seconds_per`` is ``image``, ``chunk`` or ``job``; a ``job`` stage of the driver is done once;
- ``bytes`` are fetched through the network by a stage of the store, ``bytes_written`` go back, and
  ``requests`` an image (1 where left out) wait for the network's latency each;
- ``cv`` is the coefficient of variation of a worker's seconds an image (0 where left out);
- ``"when": "end"`` marks what the driver does after the last chunk, such as finishing tables.

The simulation is of discrete events, one a stage and chunk. Workers hold one chunk at a time, the
driver sends `AHEAD` chunks a worker before it gathers the oldest, as `data_prep.work.engine`
does. The network is one link each way that all workers share.
"""

from __future__ import annotations

import heapq
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.scale_page import draw_measured, engines_lines, growth_lines
from cxr_compare.data_prep.contracts.atomic_files import atomic_path, write_text
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.json_files import read_json

IMAGES = 10_000_000
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
AHEAD = 3  # chunks under way a worker
# as the engine: work of one chunk, and its most images
_CHUNK_SECONDS = 0.25
_MOST_ROWS = 1024
_LATENCY = 0.001  # s, of a request within a data centre
_GOOD = 0.8  # of the ideal rate: as far a work is said to scale
_SHOWN = (1, 16, 64, 256)  # workers in the page's table
_MARKS = "growth model"
PICTURE = "growth.png"
_WORDS = {
    "driver": "driver",
    "worker": "workers",
    "store": "store",
    "down": "network, reading",
    "up": "network, writing",
    "once": "what the driver does once",
}
Where = Literal["driver", "worker", "store"]


@dataclass(frozen=True)
class Stage:
    """A stage of the work on an image; the docstring of the module explains the fields."""

    stage: str
    where: Where
    seconds_per: Literal["image", "chunk", "job"]
    seconds: float
    bytes: float = 0.0
    bytes_written: float = 0.0
    requests: float = 1.0
    parallel: int = 1
    cv: float = 0.0
    when: Literal["flow", "end"] = "flow"


@dataclass(frozen=True)
class Work:
    """One kind of work with its measured stages and its network.

    Attributes:
        name: ``prepare`` or ``predict``.
        stages: Stages in any order.
        chunk: Number of images that are sent at a time.
        bandwidth: Speed of the network in each direction, bytes per second.
        latency: Delay of each request to the store, s.
    """

    name: str
    stages: tuple[Stage, ...]
    chunk: int
    bandwidth: float = 10e9 / 8
    latency: float = _LATENCY

    def seconds(self, where: Where, per: str, when: str = "flow") -> float:
        """Add up the seconds of all stages at one location.

        Args:
            where: ``driver``, ``worker`` or ``store``.
            per: ``image``, ``chunk`` or ``job``.
            when: ``flow``, or ``end`` for stages after the last chunk.

        Returns:
            Seconds for one image, chunk or job.
        """
        found = (
            each.seconds
            for each in self.stages
            if (each.where, each.seconds_per, each.when) == (where, per, when)
        )
        return sum(found, 0.0)

    @property
    def demands(self) -> dict[str, float]:
        """Seconds that an image takes at each location, if it were alone there."""
        moved = {
            "down": sum(s.bytes for s in self.stages) / self.bandwidth,
            "up": sum(s.bytes_written for s in self.stages) / self.bandwidth,
        }
        at_store = (s.seconds / s.parallel for s in self.stages if s.where == "store")
        places: tuple[Where, ...] = ("driver", "worker")
        own = {
            str(each): self.seconds(each, "image") + self.seconds(each, "chunk") / self.chunk
            for each in places
        }
        return {**own, "store": sum(at_store), **moved}

    @property
    def trip(self) -> float:
        """Seconds that one worker takes for an image, with the way to the store and back."""
        demands = self.demands
        return demands["worker"] + demands["store"] + demands["down"] + demands["up"] + self.waits

    @property
    def waits(self) -> float:
        """Seconds that the requests of an image are under way, even if the store is free."""
        return self.latency * sum(each.requests for each in self.stages if each.where == "store")

    def once(self, images: int) -> float:
        """Return the seconds that the driver takes before and after the flow of chunks."""
        ends = self.seconds("driver", "image", "end") * images
        return ends + self.seconds("driver", "job") + self.seconds("driver", "job", "end")

    def bound(self, workers: int, images: int) -> float:
        """Return the largest possible speed, which the busiest location allows.

        Args:
            workers: Number of workers.
            images: Number of images.

        Returns:
            Images per second.
        """
        demands = self.demands
        shared = max(demands[each] for each in ("driver", "store", "down", "up"))
        return 1 / (max(shared, self.trip / workers) + self.once(images) / images)


@dataclass(frozen=True)
class Outcome:
    """Result of a simulation.

    Attributes:
        work: Name of the work.
        workers: Number of workers.
        images: Number of images.
        seconds: Time of the whole work, s.
        busy: Share of the time in which each location was busy; for workers the mean.
    """

    work: str
    workers: int
    images: int
    seconds: float
    busy: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    @property
    def bottleneck(self) -> str:
        """Location that was busy for the largest share of the time."""
        return max(self.busy, key=lambda place: self.busy[place])


def read_stages(path: Path) -> tuple[list[Work], dict[str, Any]]:
    """Read the kinds of work from a file of stage times.

    Args:
        path: File that `benchmarks.scale` wrote.

    Returns:
        The kinds of work, and the whole content of the file.

    Raises:
        InputError: The file has another form; the message names what is wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    works = []
    for name, given in content.get("work", {}).items():
        try:
            stages = tuple(_stage(each) for each in given["stages"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: {name}: a stage is not as expected: {error}") from None
        at_work = sum(s.seconds for s in stages if (s.where, s.seconds_per) == ("worker", "image"))
        chunk = min(_MOST_ROWS, max(1, round(_CHUNK_SECONDS / max(at_work, 1e-9))))
        works.append(Work(name, stages, given.get("chunk", chunk)))
    if not works:
        raise InputError(f"{path}: has no 'work'; benchmarks.scale writes such a file")
    return works, content


def _stage(given: Mapping[str, Any]) -> Stage:
    known = {name: given[name] for name in Stage.__dataclass_fields__ if name in given}
    stage = Stage(**known)
    for name, values in (
        ("where", ("driver", "worker", "store")),
        ("seconds_per", ("image", "chunk", "job")),
    ):
        if getattr(stage, name) not in values:
            raise ValueError(f"{stage.stage}: {name} must be one of {', '.join(values)}")
    if stage.seconds < 0 or (stage.where != "driver" and stage.seconds_per == "job"):
        raise ValueError(f"{stage.stage}: seconds must be at least 0, and of a job the driver's")
    if stage.where == "store" and stage.seconds_per != "image":
        raise ValueError(f"{stage.stage}: seconds of the store are of an image")
    return stage


@dataclass
class _Line:
    """A location that serves one request after another, in the order in which they come."""

    free: float = 0.0
    busy: float = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """Return the time at which a request that comes now is done."""
        self.free = max(self.free, now) + seconds
        self.busy += seconds
        return self.free


@dataclass
class _Room:
    """State of a simulation: waiting chunks, idle workers, and the times at which chunks end."""

    idle: int
    waiting: deque[int] = field(default_factory=deque)
    ended: set[int] = field(default_factory=set)
    events: list[tuple[float, int, str, int]] = field(default_factory=list)
    count: int = 0

    def at(self, time: float, what: str, chunk: int) -> None:
        """Schedule an event; events at the same time come in the order of scheduling."""
        self.count += 1
        heapq.heappush(self.events, (time, self.count, what, chunk))


def simulate(work: Work, workers: int, images: int = IMAGES, *, seed: int = 0) -> Outcome:  # noqa: C901 - a branch an event
    """Simulate the work on a number of images.

    Args:
        work: Stages, chunks and network of the work.
        workers: Number of workers.
        images: Number of images.
        seed: Random seed of the times of workers, if they vary.

    Returns:
        Time, and the share of it in which each location was busy.

    Example:
        >>> stages = (Stage("decode", "worker", "image", 0.01),)
        >>> round(simulate(Work("prepare", stages, chunk=10, latency=0.0), 4, 4000).rate)
        400
    """
    chunks = -(-images // work.chunk)
    sizes = np.full(chunks, work.chunk)
    sizes[-1] = images - work.chunk * (chunks - 1)
    at_work = _worker_seconds(work, sizes, seed)
    demands = work.demands
    send = work.seconds("driver", "chunk")
    lines = {name: _Line() for name in ("store", "down", "up", "driver")}
    room = _Room(workers)
    pending = deque[int]()
    most = AHEAD * workers
    sent = 0
    room.at(work.seconds("driver", "job"), "driver", -1)
    now = 0.0
    while room.events:
        now, _, what, chunk = heapq.heappop(room.events)
        if what == "driver":  # it sends while there is room, then gathers the oldest
            if lines["driver"].free > now:
                continue  # busy; what it is at leads here again
            if len(pending) < most and sent < chunks:
                pending.append(sent)
                room.at(lines["driver"].serve(now, send), "sent", sent)
                sent += 1
            elif pending and pending[0] in room.ended:
                _gather(work, room, lines, pending, sizes, now)
        elif what == "sent":
            room.waiting.append(chunk)
            room.at(now, "driver", -1)
        elif what == "asked":
            stored = lines["store"].serve(now, demands["store"] * sizes[chunk])
            room.at(lines["down"].serve(stored, demands["down"] * sizes[chunk]), "has", chunk)
        elif what == "has":
            room.at(now + at_work[chunk], "made", chunk)
        elif what == "made":
            room.at(lines["up"].serve(now, demands["up"] * sizes[chunk]), "done", chunk)
        elif what == "done":
            room.idle += 1
            room.ended.add(chunk)
            if pending[0] == chunk and lines["driver"].free <= now:
                room.at(now, "driver", -1)
        while room.idle and room.waiting:
            room.idle -= 1
            chunk = room.waiting.popleft()
            room.at(now + work.waits * float(sizes[chunk]), "asked", chunk)
    end = work.seconds("driver", "image", "end") * images + work.seconds("driver", "job", "end")
    total = now + end
    busy = {name: line.busy / total for name, line in lines.items()}
    trips = float(at_work.sum()) + (work.trip - demands["worker"]) * images
    busy |= {"worker": trips / workers / total, "once": work.once(images) / total}
    return Outcome(work.name, workers, images, total, busy)


def _gather(
    work: Work,
    room: _Room,
    lines: Mapping[str, _Line],
    pending: deque[int],
    sizes: np.ndarray,
    now: float,
) -> None:
    """Let the driver take the answers of its oldest chunk, and list the rows of another one."""
    chunk = pending.popleft()
    room.ended.remove(chunk)
    seconds = work.seconds("driver", "image") * float(sizes[chunk])
    room.at(lines["driver"].serve(now, seconds), "driver", -1)


def _worker_seconds(work: Work, sizes: np.ndarray, seed: int) -> np.ndarray:
    """Draw the seconds of each chunk in its worker, as sums of gamma variables if images vary."""
    rng = np.random.default_rng([seed, len(sizes)])
    total = np.full(len(sizes), work.seconds("worker", "chunk"))
    for each in work.stages:
        if each.where != "worker" or each.seconds_per != "image":
            continue
        if each.cv:
            shape = sizes / each.cv**2  # of a sum of as many gamma variables
            total += rng.gamma(shape, each.seconds * each.cv**2)
        else:
            total += sizes * each.seconds
    return total


def _between(page: str, name: str, lines: Sequence[str]) -> str:
    r"""A page with other lines between the marks of a name.

    Raises:
        InputError: The page lacks the marks.

    Example:
        >>> _between("a\n<!-- x -->\nold\n<!-- end of x -->\nb", "x", ["new"])
        'a\n<!-- x -->\n\nnew\n\n<!-- end of x -->\nb'
    """
    begin = f"<!-- {name} -->"
    end = f"<!-- end of {name} -->"
    if begin not in page or end not in page:
        raise InputError(f"the page lacks the lines {begin} and {end}")
    before, _, rest = page.partition(begin)
    return before + "\n".join([begin, "", *lines, "", end]) + rest.partition(end)[2]


def growth_table(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a Markdown table: images per second, share of the ideal, and the busiest location."""
    lines = [
        "| work | workers | images/s | of the ideal | busiest |",
        "|---|---|---|---|---|",
    ]
    first = {each.work: each for each in reversed(outcomes)}
    for each in outcomes:
        ideal = first[each.work].rate / first[each.work].workers * each.workers
        lines.append(
            f"| {each.work} | {each.workers} | {_three(each.rate)} | {each.rate / ideal:.0%} | "
            f"{_WORDS[each.bottleneck]}, {each.busy[each.bottleneck]:.0%} |".replace("%", " %")
        )
    return lines


def measured_table(works: Sequence[Work], measured: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a Markdown table of measured rows beside the simulated speed.

    Args:
        works: Kinds of work.
        measured: Measured rows.

    Returns:
        Lines of the table.

    Raises:
        InputError: A measured row has no stages.
    """
    by_name = {work.name: work for work in works}
    lines = [
        "| work | workers | images | measured, images/s | simulated | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for each in measured:
        if each["work"] not in by_name:
            raise InputError(f"measured: there are no stages of '{each['work']}'")
        simulated = simulate(by_name[each["work"]], each["workers"], each["images"]).rate
        rate = each["images_per_second"]
        lines.append(
            f"| {each['work']} | {each['workers']} | {each['images']:,} | {_three(rate)} | "
            f"{_three(simulated)} | {simulated / rate:.2f} |"
        )
    return lines


def _three(value: float) -> str:
    """Return a number with three digits as text.

    Example:
        >>> _three(12345.6), _three(0.01234)
        ('12,300', '0.0123')
    """
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


_COLOURS = ("#D55E00", "#0072B2", "#009E73")


def draw_growth(
    works: Sequence[Work], outcomes: Sequence[Outcome], growth: Mapping[str, Any] | None = None
) -> Figure:
    """Draw measured times, if there are any, and simulated speed against the number of workers.

    Args:
        works: Kinds of work.
        outcomes: Results of the simulations.
        growth: Measured times; None without any.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(6.4 if growth is None else 12.0, 4.6), layout="constrained")
    both = figure.subplots(1, 1 if growth is None else 2, squeeze=False)[0]
    if growth is not None:
        draw_measured(both[0], growth)
    _draw_simulated(both[-1], works, outcomes)
    return figure


def _draw_simulated(axes: Axes, works: Sequence[Work], outcomes: Sequence[Outcome]) -> None:
    """Draw images per second against workers on log-log axes, with the ideal line of each work."""
    axes.set(xscale="log", yscale="log")
    for work, colour in zip(works, _COLOURS, strict=False):
        own = [each for each in outcomes if each.work == work.name]
        at = [each.workers for each in own]
        ideal = [own[0].rate / own[0].workers * workers for workers in at]
        axes.plot(at, ideal, color=colour, linewidth=1, linestyle=(0, (1, 2)))
        axes.plot(at, [e.rate for e in own], color=colour, marker="o", label=work.name)
        for place, each in enumerate(own):
            if place == 0 or each.bottleneck != own[place - 1].bottleneck:
                beside: dict[str, Any] = {"textcoords": "offset points", "xytext": (6, -12)}
                words = _WORDS[each.bottleneck]
                axes.annotate(words, (each.workers, each.rate), fontsize=8, color=colour, **beside)
    axes.set_xticks(WORKERS, list(map(str, WORKERS)))
    axes.minorticks_off()
    axes.set(xlabel="Workers", ylabel="Images a second, simulated")
    axes.grid(color="#D9DCD8")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False, title="Dotted: ideal. Named: what is busiest from there on", title_fontsize=8
    )


def verdict(work: Work, outcomes: Sequence[Outcome]) -> str:
    """Return a sentence on how far a work scales, from its simulation.

    Args:
        work: Kind of work.
        outcomes: Results of its simulations, by rising number of workers.

    Returns:
        The sentence.
    """
    good = [g for g in outcomes if g.rate >= _GOOD * outcomes[0].rate * g.workers]
    workers = counted(good[-1].workers, "worker")
    return (
        f"Up to {workers}, `{work.name}` reaches at least {_GOOD:.0%} of the ideal speed (that of "
        "one worker times the number of workers)."
    ).replace("%", " %")


def document(
    works: Sequence[Work],
    content: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    growth: Mapping[str, Any] | None = None,
    engines: Mapping[str, Any] | None = None,
) -> str:
    """Return the text between the two comments of docs/scale.md.

    Args:
        works: Kinds of work.
        content: Content of the file of stage times.
        outcomes: Results of the simulations.
        growth: Measured times; None without any.
        engines: Ratios of Ray to the local pool; None without any.

    Returns:
        The text, as Markdown.
    """
    images = outcomes[0].images
    lines = [] if growth is None else growth_lines(growth)
    lines += [] if engines is None else engines_lines(engines)
    drawn = "Images a second against workers"
    if growth is not None:
        drawn = f"Seconds against images, measured; {drawn.lower()}, simulated"
    measured_by = f" (`{content['command']}`)" if "command" in content else ""
    lines += [
        f"![{drawn}]({PICTURE})",
        "",
        "The speed with more workers was simulated. The time of each stage of the work is that of "
        f"{content.get('machine', 'one machine')}{measured_by}. The simulation assumes "
        f"{images:,} images, a network of {works[0].bandwidth * 8 / 1e9:g} Gbit/s and "
        f"{works[0].latency * 1000:g} ms for each request. A worker gets "
        + " and ".join(f"{w.chunk} images at a time with `{w.name}`" for w in works)
        + "."
        + _store_words(works),
        "",
        *growth_table([each for each in outcomes if each.workers in _SHOWN]),
        "",
    ]
    said = (verdict(work, [each for each in outcomes if each.work == work.name]) for work in works)
    lines += [" ".join(said), ""]
    if measured := content.get("measured"):
        lines += [
            "Measured and simulated speed of one and two workers:",
            "",
            *measured_table(works, measured),
            "",
        ]
    return "\n".join(lines).rstrip()


def _store_words(works: Sequence[Work]) -> str:
    """Return a sentence on whether the simulation includes the store's own time."""
    known = any(s.seconds for work in works for s in work.stages if s.where == "store")
    return (
        ""
        if known
        else " The time that an object store itself takes was not measured and is taken as 0."
    )


def main(
    stages: Annotated[Path, typer.Argument(help="Stage times that were measured, JSON.")],
    write_docs: Annotated[
        Path | None, typer.Option(help="Page whose growth is written, and the picture beside it.")
    ] = None,
    growth: Annotated[
        Path | None, typer.Option(help="Times by the number of images that were measured, JSON.")
    ] = None,
    engines: Annotated[
        Path | None, typer.Option(help="Ray beside the local pool as it was measured, JSON.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many there are.")] = IMAGES,
) -> None:
    """Simulate the growth of prepare and predict, and write it into a page."""
    works, content = read_stages(stages)
    grown = None if growth is None else read_json(growth, "growth")
    compared = None if engines is None else read_json(engines, "engines")
    outcomes = [simulate(work, workers, images) for work in works for workers in WORKERS]
    if write_docs is None:
        typer.echo("\n".join(growth_table(outcomes)))
        return
    text = document(works, content, outcomes, grown, compared)
    with atomic_path(write_docs.with_name(PICTURE)) as temporary:
        draw_growth(works, outcomes, grown).savefig(temporary, dpi=150, format="png")
    page = _between(write_docs.read_text(encoding="utf-8"), _MARKS, text.split("\n"))
    write_text(write_docs, page)


if __name__ == "__main__":
    typer.run(main)
