"""Write the tables of docs/zoo.md, and its picture, from runs, a report and measured speeds.

    python -m benchmarks.zoo_table docs/zoo.md --runs RUNS --report REPORT --speed speed.json

``speed.json`` is what `benchmarks.zoo_latency` measured; without it the table of speeds stays as
it is, and so does the table of exports before `benchmarks.zoo_exports`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.zoo_exports import BACKENDS, RESULTS
from benchmarks.zoo_latency import CANDIDATES, PEER, TARGETS
from configs.load import folder_name, read_zoo
from configs.settings import ClassifierConfig
from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import atomic_path
from training.run_folder import RunFolder

ZOO = Path(__file__).with_name("zoo_64.toml")
FIGURES = {"auroc": "", "accuracy": "max_f1", "recall": "max_f1", "specificity": "max_f1",
           "f1": "max_f1"}  # fmt: skip
"""Metrics of the table, and the policy whose threshold they need."""
_HEADINGS = (
    "network", "px, epochs", "AUROC", "accuracy", "sensitivity", "specificity", "F1",
    "parameters, millions (that learn)", "GFLOP an image, 224 px",
    "memory, MiB: training; one image", "training, min of one core", "one image, ms: torchvision",
    "torch bf16", "ONNX fp32", "OpenVINO fp32", "bf16", "int8",
)  # fmt: skip
_SINGLE = (PEER, "torch bf16", "onnx fp32", "openvino fp32", "openvino bf16", "openvino int8")


@dataclass(frozen=True)
class Trained:
    """A network of the zoo: its configuration, what its training recorded, and its judgement.

    Attributes:
        config: What trained it.
        info: Its `run.json`.
        figures: Estimate and interval by metric.
        cost: What it takes, from the report.
    """

    config: ClassifierConfig
    info: Mapping[str, Any]
    figures: Mapping[str, tuple[float, float, float]]
    cost: Mapping[str, Any]


Speeds = Mapping[tuple[str, str, str], Mapping[str, Any]]
"""Rows of `zoo_latency` by network, mode and candidate."""


def read_trained(zoo: Path, runs: Path, report: Path) -> list[Trained]:
    """The zoo's networks, in the order of its configuration.

    Raises:
        InputError: One has no complete run, or is not in the report.
    """
    content = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    found = []
    for config in read_zoo(zoo, []):
        run = RunFolder.open(runs / folder_name(config.name))
        if config.name not in content["costs"]:
            raise InputError(f"{report}: has no system '{config.name}'")
        found.append(
            Trained(
                config,
                run.info,
                figures_of(content["metrics"], config.name),
                content["costs"][config.name],
            )
        )
    return found


def figures_of(
    metrics: Iterable[Mapping[str, Any]], system: str
) -> dict[str, tuple[float, float, float]]:
    """A system's figures over all images, with their 95 % intervals.

    Example:
        >>> row = {"system": "A", "subgroup": "all", "unit": "image", "policy": "",
        ...        "metric": "auroc", "estimate": 0.9, "ci_low": 0.8, "ci_high": 0.95}
        >>> figures_of([row], "A")
        {'auroc': (0.9, 0.8, 0.95)}
    """
    return {
        row["metric"]: (row["estimate"], row["ci_low"], row["ci_high"])
        for row in metrics
        if (row["system"], row["subgroup"], row["unit"]) == (system, "all", "image")
        and FIGURES.get(row["metric"]) == row["policy"]
    }


def judged_table(trained: Sequence[Trained], speeds: Speeds, flops: Mapping[str, int]) -> list[str]:
    """The table of every network: figures, size, cost of training, time of one image."""
    rows = []
    for each in trained:
        name = each.config.model.architecture
        how = f"{each.config.data.image_size}, {each.info['epochs']}"
        cells = [
            each.config.name,
            how,
            *(_with_interval(each.figures[metric]) for metric in FIGURES),
        ]
        learn, every = each.info["trainable_parameters"], each.info["parameters"]
        cells.append(_millions(every) + ("" if learn == every else f" ({learn:,})"))
        cells.append(f"{flops[name] / 1e9:.2f}" if name in flops else "")
        memory = (each.info["peak_memory_bytes"], each.cost["peak_memory_bytes"])
        cells.append("; ".join("?" if b is None else f"{b / 2**20:.0f}" for b in memory))
        cells.append(f"{each.info['processor_seconds'] / 60:.1f}")
        found = [speeds.get((name, "single", candidate)) for candidate in _SINGLE]
        cells += ["" if f is None else f"{1000 / f['images_per_second']:.1f}" for f in found]
        rows.append(cells)
    return _markdown(_HEADINGS, rows)


_FALL, _CHANGED = "AUROC falls by", "share of decisions changed:"


def exports_table(
    trained: Sequence[Trained], results: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What became of the exports: the fall of AUROC and the decisions changed on validation."""
    rows = []
    for each in trained:
        found = results[folder_name(each.config.name)]
        rows.append([each.config.name, *(verdict_words(found[backend]) for backend in BACKENDS)])
    return _markdown(("network", *BACKENDS), rows)


def verdict_words(result: Mapping[str, Any]) -> str:
    """An export's cell of the table.

    Example:
        >>> measures = {f"{_FALL} validation images": 0.0012, f"{_CHANGED} validation images": 0.01}
        >>> verdict_words({"verdict": "kept", "measures": measures})
        'kept: 0.0012, 1.0 %'
        >>> verdict_words({"verdict": "refused", "why": "..."})
        'refused'
    """
    measures = result.get("measures", {})
    figures = [f"{value:.4f}" for name, value in measures.items() if name.startswith(_FALL)]
    figures += [f"{value:.1%}" for name, value in measures.items() if name.startswith(_CHANGED)]
    words = ", ".join(figures).replace("%", " %")
    return f"{result['verdict']}: {words}" if words else str(result["verdict"])


def speed_table(speeds: Speeds) -> list[str]:
    """Images a second in batches by back end, with the ratio to torchvision in eager."""
    rows = []
    for name in dict.fromkeys(name for name, _, _ in speeds):
        found = [speeds[name, "batch", candidate] for candidate in CANDIDATES]
        rows.append([f"`{name}`", *(_rate(row) for row in found)])
    return _markdown(("network", *CANDIDATES), rows)


def _rate(row: Mapping[str, Any]) -> str:
    rate, candidate = row["images_per_second"], row["candidate"]
    words = f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
    if candidate == PEER:
        return words
    low, high = row["ratio_range"]
    words += f" ({row['ratio']:.1f}x, {low:.1f} to {high:.1f})"
    return f"**{words}**" if row["ratio"] >= TARGETS.get(candidate, float("inf")) else words


def target_sentence(speeds: Speeds) -> str:
    """How many networks reach the wanted ratios.

    Example:
        >>> row = {"ratio": 5.0}
        >>> sentence = target_sentence({("vgg16", "batch", name): row for name in TARGETS})
        >>> sentence.partition(": ")[2]
        '4 times with openvino bf16 (1 of 1), 7 times with openvino int8 (0 of 1).'
    """
    parts = []
    for candidate, target in TARGETS.items():
        ratios = [
            row["ratio"]
            for (_, mode, name), row in speeds.items()
            if (mode, name) == ("batch", candidate)
        ]
        reached = sum(ratio >= target for ratio in ratios)
        parts.append(f"{target:g} times with {candidate} ({reached} of {len(ratios)})")
    return f"Bold, against torchvision: {', '.join(parts)}."


def _with_interval(figure: tuple[float, float, float]) -> str:
    estimate, low, high = figure
    return f"{estimate:.3f} ({low:.3f} to {high:.3f})"


def _millions(count: int) -> str:
    """A count of parameters in millions.

    Example:
        >>> _millions(6_954_881), _millions(143_667_240)
        ('6.95', '144')
    """
    return f"{count / 1e6:.3g}"


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def between(page: str, name: str, lines: Sequence[str]) -> str:
    r"""A page with other lines between the marks of a name.

    Raises:
        InputError: The page lacks the marks.

    Example:
        >>> between("a\n<!-- x -->\nold\n<!-- end of x -->\nb", "x", ["new"])
        'a\n<!-- x -->\n\nnew\n\n<!-- end of x -->\nb'
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if begin not in page or end not in page:
        raise InputError(f"the page lacks the lines {begin} and {end}")
    before, _, rest = page.partition(begin)
    return before + "\n".join([begin, "", *lines, "", end]) + rest.partition(end)[2]


_PICTURE = "![AUROC and time of an image by back end](zoo.png)"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_DRAWN = {PEER: "o", "onnx fp32": "s", "openvino bf16": "^", "openvino int8": "D"}


def draw(trained: Sequence[Trained], speeds: Speeds, path: Path) -> None:
    """Draw AUROC against the time of an image by back end, a line for each network."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawn: dict[str, list[tuple[float, float]]] = {candidate: [] for candidate in _DRAWN}
    for each in trained:
        name, auroc = each.config.model.architecture, each.figures["auroc"][0]
        if each.config.model.trainable != "all" or (name, "batch", PEER) not in speeds:
            continue  # a frozen network computes the same as the other
        times = {c: 1000 / speeds[name, "batch", c]["images_per_second"] for c in _DRAWN}
        axes.plot(list(times.values()), [auroc] * len(times), color="#bbbbbb", zorder=1)
        axes.annotate(
            each.config.name,
            (min(times.values()), auroc),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
        )
        for candidate, time in times.items():
            drawn[candidate].append((time, auroc))
    for (candidate, marker), colour in zip(_DRAWN.items(), _COLOURS, strict=True):
        if drawn[candidate]:
            x, y = zip(*drawn[candidate], strict=True)
            axes.scatter(x, y, marker=marker, color=colour, label=candidate, zorder=2, s=28)
    axes.set_xscale("log")
    axes.margins(x=0.22)
    axes.set_xlabel("time of an image at 224 px in batches of 8, ms (two CPU cores)")
    axes.set_ylabel("AUROC on held-out children (64 px, random weights)")
    axes.grid(color="#eeeeee")
    axes.legend()
    figure.savefig(path)


def write(
    page: Annotated[Path, typer.Argument(help="The page whose tables are written.")],
    runs: Annotated[Path, typer.Option(help="Folder of the zoo's runs.")],
    report: Annotated[Path, typer.Option(help="Their report, by cxr compare.")],
    zoo: Annotated[Path, typer.Option(help="What trained them.")] = ZOO,
    speed: Annotated[Path | None, typer.Option(help="By benchmarks.zoo_latency.")] = None,
) -> None:
    """Write the tables of docs/zoo.md, and its picture."""
    trained = read_trained(zoo, runs, report)
    measured = [] if speed is None else json.loads(speed.read_text(encoding="utf-8"))["rows"]
    speeds = {(row["network"], row["mode"], row["candidate"]): row for row in measured}
    flops = {row["network"]: row["flops"] for row in measured}
    text = page.read_text(encoding="utf-8")
    text = between(text, "networks", judged_table(trained, speeds, flops))
    if (runs / RESULTS).is_file():
        results = json.loads((runs / RESULTS).read_text(encoding="utf-8"))["runs"]
        text = between(text, "exports", exports_table(trained, results))
    if speeds:
        lines = [*speed_table(speeds), "", target_sentence(speeds), "", _PICTURE]
        text = between(text, "speeds", lines)
        draw(trained, speeds, page.with_suffix(".png"))
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(write)
