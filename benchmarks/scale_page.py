"""The measurements of `benchmarks.scale`, as text and as a plot of docs/scale.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

_COLOURS = {"prepare": "#D55E00", "predict": "#0072B2", "gather": "#009E73"}
_NAMES = {"prepare": "`prepare`", "predict": "`predict`", "gather": "`predict`, driver alone"}


def growth_lines(growth: Mapping[str, Any]) -> list[str]:
    """Return the table of `benchmarks.scale growth`."""
    side = growth["side"]
    workers = growth["workers"]
    return [
        f"The speed of `prepare` and `predict` was measured on {origin_words(growth)}, {workers} "
        f"workers, with made-up files ({side} px) and the smallest network:",
        "",
        "| command | engine | images | images/s | driver, MiB |",
        "|---|---|---|---|---|",
        *(
            f"| {_NAMES[each['command']]} | {each['engine']} | {each['images']:,} | "
            f"{each['images'] / each['seconds']:,.0f} | {each['peak_mib']:,.0f} |"
            for each in growth["rows"]
            if each["images"] > growth["slope_from"]  # a smaller set is mostly the start
        ),
        "",
    ]


def engines_lines(engines: Mapping[str, Any]) -> list[str]:
    """Return the lines on the time that Ray takes compared with the local pool."""
    ratios = engines["ratios"]
    return [
        f"With Ray, reading and shrinking {engines['rows']:,} images (PNG of {engines['side']} px) "
        f"took {float(np.median(ratios)):.2f} times as long as with the processes of one machine "
        f"(the local engine). This is the median of {len(ratios)} rounds, which gave "
        f"{min(ratios):.2f} to {max(ratios):.2f} (`{engines['command']}`).",
        "",
    ]


def origin_words(content: Mapping[str, Any]) -> str:
    """Return the machine, the command and the seed of a measurement as text."""
    hardware = content["hardware"]
    return (
        f"{hardware['cpus']} processors ({hardware['processor']}) by `{content['command']}`, "
        f"seed {content['seed']}"
    )


def draw_measured(axes: Axes, growth: Mapping[str, Any]) -> None:
    """Draw seconds against images on log-log axes, one line for each command and engine.

    Args:
        axes: Axes to draw on.
        growth: Measured times.
    """
    slopes = {(each["command"], each["engine"]): each["slope"] for each in growth["slopes"]}
    for command, engine in dict.fromkeys(
        (each["command"], each["engine"]) for each in growth["rows"]
    ):
        own = [e for e in growth["rows"] if (e["command"], e["engine"]) == (command, engine)]
        words = f"{_NAMES[command].replace('`', '')}, {engine}"
        if (command, engine) in slopes:
            words += f": slope {slopes[command, engine]:.2f}"
        axes.plot(
            [e["images"] for e in own],
            [e["seconds"] for e in own],
            color=_COLOURS[command],
            linestyle="-" if engine == "local" else "--",
            marker="o" if engine == "local" else "s",
            label=words,
        )
    axes.set(xscale="log", yscale="log", xlabel="Images", ylabel="Seconds, measured")
    axes.minorticks_off()
    axes.grid(color="#D9DCD8")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
