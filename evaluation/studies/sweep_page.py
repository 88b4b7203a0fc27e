"""The page of a sweep: its answer, a chart for each varied key, and the table of its trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.evaluation.report.chart import Axis, Chart, Curve, Point
from cxr_compare.evaluation.report.inline_svg import legend_sample
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.studies.study_page import Section, ShownChart, StudyPage
from cxr_compare.evaluation.studies.study_sentences import study_sentence

PAGE = "sweep.html"
"""Name of the page."""
_STATES = {
    "complete": "trained",
    "failed": "failed",
    "pruned": "stopped early",
    "repeated": "settings of another trial",
    "unfinished": "not ended",
}
_TITLES = {
    "auroc": "AUROC",
    "ap50": "AP50",
    "ap": "AP",
    "average_precision": "average precision",
    "val_loss": "loss",
}
_MOST_CATEGORY = 12  # largest number of letters of one value below an axis
_MOST_LETTERS = 34  # largest number of letters of all values below an axis
_NOTHING = np.empty(0)


def write_page(sweep: Mapping[str, Any], folder: Path) -> Path:
    """Write ``sweep.html``, the page with the results of a sweep.

    A sweep trains a model with many settings (trials), and looks for the setting that is best on
    validation images. The page needs no other file; its links lead to the folders of the trials.

    Args:
        sweep: Content of the file ``sweep.json``: the trials of the sweep and their results.
        folder: Folder of the sweep, which contains a folder for each trial.

    Returns:
        Path of the page ``sweep.html``.
    """
    answer, *further = sentences(sweep)
    charts = [ShownChart(chart, _samples(chart)) for chart in _charts(sweep)]
    page = StudyPage(
        title=f"Sweep of {sweep['name']}",
        kicker=_sentence(
            "kicker",
            sweep["name"],
            sweep["data_set"]["name"],
            len(sweep["trials"]),
            len(sweep["space"]),
        ),
        answer=answer,
        scope=further[:-1],
        notes=further[-1:],
        sections=[Section("charts", "Trials", charts=charts)] if charts else [],
        provenance={**sweep["data_set"], "seed": sweep["sweep_seed"], **sweep["provenance"]},
        skip_to="charts",
    )
    html = page.render(
        "sweep.html.jinja",
        columns=trial_columns(sweep),
        rows=trial_rows(sweep),
        space=sweep["space"],
    )
    return write_text(folder / PAGE, html)


def _sentence(macro: str, *values: Any) -> str:
    return study_sentence("sweep", macro, *values)


def sentences(sweep: Mapping[str, Any]) -> list[str]:
    """Return sentences with the results of a sweep: the best setting first, a caution last.

    A sweep trains a model with many settings (trials), and looks for the setting that is best on
    validation images.

    Args:
        sweep: Content of the file ``sweep.json``: the trials of the sweep and their results.

    Returns:
        The sentences, in the order of the page.

    Example:
        >>> len(sentences({"best": None, "trials": []}))
        1
    """
    best = sweep["best"]
    trials = sweep["trials"]
    if best is None:
        return [_sentence("nothing", len(trials))]
    objective = _TITLES[sweep["objective"]]
    spread = sweep["spread"]
    settings = _settings_text(best["settings"])
    statements = [
        _sentence("best", best["number"], objective, best["value"], best["best_epoch"], settings),
        _sentence(
            "spread", spread["n"], objective, spread["low"], spread["high"], spread["median"]
        ),
    ]
    unchanged = sweep["as_it_stands"]
    if unchanged is not None and trials[unchanged]["value"] is not None:
        statements.append(_sentence("unchanged", unchanged, trials[unchanged]["value"]))
    pruned = [trial["epochs"] for trial in trials if trial["state"] == "pruned"]
    if pruned:
        statements.append(_sentence("pruned", len(pruned), sum(pruned)))
    statements.append(_sentence("optimistic", spread["n"], best["value"]))
    return statements


def _settings_text(settings: Mapping[str, str]) -> str:
    items = [(key, _short(text)) for key, text in settings.items()]
    return _sentence("settings", items)


def trial_line(sweep: Mapping[str, Any], number: int, trials: int) -> str:
    """Return a line for the terminal on one trial of a sweep: its settings and its result.

    A sweep trains a model with many settings; a trial is the training with one of them. The line
    also has the number of ended trials and the best trial so far.

    Args:
        sweep: Content of the file ``sweep.json``: the trials of the sweep and their results.
        number: Number of the trial, from 0.
        trials: Number of trials that the sweep will have in all.

    Returns:
        One line for the terminal.
    """
    trial = sweep["trials"][number]
    settings = {key.rpartition(".")[2]: text for key, text in trial["settings"].items()}
    figure = trial["reason"]
    if trial["value"] is not None:
        figure = f"{sweep['objective']} {trial['value']:.4f}"
    state = "" if trial["state"] == "complete" else trial["state"]
    ended = sum(trial["state"] != "unfinished" for trial in sweep["trials"])
    return _sentence(
        "trial_line", ended, trials, number, _settings_text(settings), state, figure, sweep["best"]
    )


def _short(text: str) -> str:
    """Round a setting to three digits, for reading only."""
    if text.lstrip("-").isdigit():
        return text
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text


def _charts(sweep: Mapping[str, Any]) -> Iterator[Chart]:
    """Draw the objective by trial, then against each varied key."""
    shown = [trial for trial in sweep["trials"] if trial["state"] == "complete"]
    values = [trial["value"] for trial in shown]
    objective = _TITLES[sweep["objective"]]
    y = _numeric_axis(f"{objective} on validation", values)
    best = sweep["best"] and sweep["best"]["number"]
    if not shown:
        return
    numbers = [trial["number"] for trial in shown]
    pick = np.minimum if sweep["direction"] == "minimize" else np.maximum
    so_far = Curve(
        "best so far", 1, np.asarray(numbers, float), pick.accumulate(values), in_steps=True
    )
    points = [_point(trial, trial["number"], best) for trial in shown]
    trials = Curve("trial", 0, _NOTHING, _NOTHING, tuple(points))
    description = _sentence("trials_description", objective, len(shown))
    yield Chart(
        key="by-trial",
        title="Trials in their order",
        x=_numeric_axis("Trial", numbers),
        y=y,
        curves=(trials, so_far),
        description=description,
    )
    for index, key in enumerate(sweep["space"]):
        texts = [trial["settings"][key] for trial in shown]
        axis, at = setting_axis(key, texts, sweep["scales"][key])
        points = [_point(trial, x, best) for trial, x in zip(shown, at, strict=True)]
        yield Chart(
            key=f"key-{index}",
            title=key,
            x=axis,
            y=y,
            curves=(Curve("trial", 0, _NOTHING, _NOTHING, tuple(points)),),
            description=_sentence("key_description", objective, key),
        )


def _samples(chart: Chart) -> list[tuple[str, str]]:
    """Return the legend of the first chart; the other charts show the same points."""
    if chart.key != "by-trial":
        return []
    return [
        (legend_sample(chart.key, 1), "best so far"),
        (legend_sample(f"{chart.key}-best", marker="D"), "best trial"),
    ]


def _point(trial: Mapping[str, Any], x: float, best: int | None) -> Point:
    settings = _settings_text(trial["settings"])
    label = _sentence("point", trial["number"], trial["value"], settings)
    return Point(x, trial["value"], label, "D" if trial["number"] == best else ".")


def _numeric_axis(title: str, values: Sequence[float]) -> Axis:
    """Return an axis around some numbers, with whole ticks if all numbers are whole."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    whole = all(float(value).is_integer() for value in values)
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10], integer=whole).tick_values(low, high)
    low = low - margin
    high = high + margin
    labels = tuple((float(tick), f"{tick:.4g}") for tick in ticks if low <= tick <= high)
    return Axis(title, labels, low, high)


def setting_axis(
    key: str, texts: Sequence[str], scale: str | Sequence[str]
) -> tuple[Axis, Sequence[float]]:
    """Return the axis of a chart for one varied setting of a sweep, and the trials' positions.

    A sweep trains a model with many settings; a trial is the training with one of them.

    Args:
        key: Name of the setting in the configuration, such as ``optim.learning_rate``.
        texts: Value of the setting in each trial, as text.
        scale: ``log`` or ``linear`` for a numeric axis, or the list of all values that were tried,
            which have equal distances on the axis.

    Returns:
        The axis, and one position for each trial.

    Example:
        >>> axis, positions = setting_axis("model.depth", ["18", "50"], ["18", "34", "50"])
        >>> positions
        [0, 2]
    """
    if scale == "log":
        numbers = list(map(float, texts))
        return Axis.log(f"{key}, log scale", min(numbers) / 1.12, max(numbers) * 1.12), numbers
    if scale == "linear":
        return _numeric_axis(key, numbers := list(map(float, texts))), numbers
    with suppress(ValueError):  # values that are no numbers keep their given order
        scale = sorted(scale, key=float)
    named = [_cut(name) for name in scale]
    every = -(-sum(len(name) + 2 for name in named) // _MOST_LETTERS)  # so that no texts overlap
    ticks = tuple((at, name) for at, name in enumerate(named) if at % every == 0)
    return Axis(key, ticks, -0.5, len(scale) - 0.5), [scale.index(text) for text in texts]


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CATEGORY else f"…{text[1 - _MOST_CATEGORY :]}"


def trial_columns(sweep: Mapping[str, Any]) -> list[str]:
    """Return the column headings of the table of a sweep's trials.

    A sweep trains a model with many settings; a trial is the training with one of them. There is a
    column for each setting that varies.

    Args:
        sweep: Content of the file ``sweep.json``: the trials of the sweep and their results.

    Returns:
        The headings.

    Example:
        >>> trial_columns({"space": {"optim.learning_rate": ""}, "objective": "auroc"})[3]
        'learning rate'
    """
    keys = [key.rpartition(".")[2].replace("_", " ") for key in sweep["space"]]
    return ["Trial", _TITLES[sweep["objective"]], "Epoch", *keys, "Minutes", "Files", "What became"]


def trial_rows(sweep: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table of a sweep's trials, the best first.

    A sweep trains a model with many settings; a trial is the training with one of them. Trials
    without a result come last.

    Args:
        sweep: Content of the file ``sweep.json``: the trials of the sweep and their results.

    Returns:
        A dictionary for each trial: the texts of its cells, its state (such as ``complete``) and
        its folder.

    Example:
        >>> trial_rows({"best": None, "direction": "maximize", "trials": [], "space": {}})
        []
    """
    best = sweep["best"] and sweep["best"]["number"]
    sign = 1 if sweep["direction"] == "minimize" else -1
    ordered = sorted(
        sweep["trials"],
        key=lambda trial: (trial["value"] is None, sign * (trial["value"] or 0), trial["number"]),
    )
    return [
        {
            "number": trial["number"],
            "best": trial["number"] == best,
            "value": "–" if trial["value"] is None else number(trial["value"], 4),
            "epoch": _epochs(trial),
            "settings": [_short(trial["settings"][key]) for key in sweep["space"]],
            "minutes": "–" if trial["seconds"] is None else f"{trial['seconds'] / 60:.1f}",
            "run": trial["run"] if trial["state"] in ("complete", "repeated") else None,
            "log": f"{trial['run']}.log",
            "words": trial["reason"] or _STATES[trial["state"]],
            "state": _STATES[trial["state"]],
        }
        for trial in ordered
    ]


def _epochs(trial: Mapping[str, Any]) -> str:
    """Return the best epoch of a trial and the number of its epochs, or only the number."""
    if trial["best_epoch"]:
        return f"{trial['best_epoch']} of {trial['epochs']}"
    return f"– of {trial['epochs']}" if trial["epochs"] else "–"
