"""What `benchmarks.scale` measured, as lines and a plot of docs/scale.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

_COLOURS = {"prepare": "#D55E00", "predict": "#0072B2", "gather": "#009E73"}
_NAMES = {"prepare": "`prepare`", "predict": "`predict`", "gather": "`predict`, driver alone"}


def growth_lines(growth: Mapping[str, Any]) -> list[str]:
    """The table of `benchmarks.scale growth`, with its slopes and the growth of memory."""
    side, workers = growth["side"], growth["workers"]
    lines = [
        f"Measured on {origin_words(growth)}, {workers} workers. Files are made up ({side} px) and "
        "the network is the smallest, so the table shows what commands and engines take:",
        "",
        "| command | engine | images | seconds | images/s | driver, ms an image | driver, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in (row for row in growth["rows"] if row["images"] >= growth["slope_from"]):
        own = each["driver_seconds"] / each["images"] * 1000
        lines.append(
            f"| {_NAMES[each['verb']]} | {each['engine']} | {each['images']:,} | "
            f"{each['seconds']:.1f} | {each['images'] / each['seconds']:,.0f} | {own:.2f} | "
            f"{each['peak_mib']:,.0f} |"
        )
    fitted = [
        f"{each['slope']:.2f} ({_NAMES[each['verb']]}, {each['engine']})"
        for each in growth["slopes"]
    ]
    lines += ["", f"From {growth['slope_from']:,} images on, time grows as the images to the power "
              f"of {', '.join(fitted)}. {_memory_words(growth['rows'])}", ""]  # fmt: skip
    return lines


def _memory_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the driver's memory grows by an image, between its two largest sets."""
    found = []
    for key in dict.fromkeys((each["verb"], each["engine"]) for each in rows):
        own = sorted(
            (e for e in rows if (e["verb"], e["engine"]) == key), key=lambda e: e["images"]
        )[-2:]
        if len(own) == 2:
            more = (own[1]["peak_mib"] - own[0]["peak_mib"]) * 1024
            an_image = more / (own[1]["images"] - own[0]["images"])
            found.append(f"{an_image:.1f} KiB ({_NAMES[key[0]]}, {key[1]})")
    return (
        f"From the second largest to the largest set an image costs the driver {', '.join(found)}."
    )


def engines_lines(engines: Mapping[str, Any]) -> list[str]:
    """What Ray takes beside the local pool."""
    ratios = engines["ratios"]
    return [
        f"Ray took {float(np.median(ratios)):.2f} times as long as the local pool on the same "
        f"{engines['rows']:,} rows, PNG of {engines['side']} px that are decoded and shrunk "
        f"(median of {len(ratios)} rounds in turn, {min(ratios):.2f} to {max(ratios):.2f}; "
        f"`{engines['command']}`).",
        "",
    ]


def origin_words(content: Mapping[str, Any]) -> str:
    """The machine, the command and the seed of a measurement."""
    hardware = content["hardware"]
    return (
        f"{hardware['cpus']} processors ({hardware['processor']}) by `{content['command']}`, "
        f"seed {content['seed']}"
    )


def draw_measured(axes: Axes, growth: Mapping[str, Any]) -> None:
    """Seconds against images on log-log axes, a line a command and engine, its slope beside it."""
    slopes = {(each["verb"], each["engine"]): each["slope"] for each in growth["slopes"]}
    for verb, engine in dict.fromkeys((each["verb"], each["engine"]) for each in growth["rows"]):
        own = [e for e in growth["rows"] if (e["verb"], e["engine"]) == (verb, engine)]
        words = f"{_NAMES[verb].replace('`', '')}, {engine}"
        if (verb, engine) in slopes:
            words += f": slope {slopes[verb, engine]:.2f}"
        axes.plot(
            [e["images"] for e in own],
            [e["seconds"] for e in own],
            color=_COLOURS[verb],
            linestyle="-" if engine == "local" else "--",
            marker="o" if engine == "local" else "s",
            label=words,
        )
    axes.set(xscale="log", yscale="log", xlabel="Images", ylabel="Seconds, measured")
    axes.minorticks_off()
    axes.grid(color="#D9DCD8")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
