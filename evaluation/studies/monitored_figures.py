"""The figures of a log: means per patient of variables between 0 and 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.studies.monitor_result import KINDS

HEADERS = ("view", "sex", "age_band", "maker")


_QUANTILES = {"score": (0.1, 0.5, 0.9), "guard_distance": (0.1, 0.5, 0.9), "seconds": (0.95,)}


_ALONE = ("", "")  # key and title of the only figure of a kind


MOST_SYSTEMS = 20  # that are watched: figures, and pairs of systems, grow with them


class FirstWeeks(NamedTuple):
    """Classes, quantiles and systems of the first weeks, which define the monitored figures."""

    systems: list[str]  # those with the most answers, at most `MOST_SYSTEMS`
    cuts: dict[tuple[str, str], Floats]  # quantiles, by system and column
    patients: dict[str, pd.Series]  # of each class of each header, how many
    window: int  # days in which a patient counts once


class FigureBlock(NamedTuple):
    """Figures that are known for the same images, on the days on which their patients count."""

    of: tuple[str, str]  # kind and system, "" of what is no system's
    titles: dict[str, str]  # by key
    values: Floats  # in [0, 1], shape (images, figures)
    headers: pd.DataFrame  # of the images
    patient: Integers  # of each image: place in what follows, which is in the order of time
    means: Floats  # shape (figures, patients)
    day: Integers  # on which a patient counts, from the first of the log

    @property
    def kind(self) -> str:
        """Key of `KINDS`."""
        return self.of[0]

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(self.day)


def read_first_weeks(weeks: pd.DataFrame, window: int) -> FirstWeeks:
    """Learn the classes, quantiles and systems of the first weeks of a log."""
    answered = weeks[weeks["status"] == "ok"]
    cuts = {
        (str(system), column): np.quantile(values, quantiles)
        for system, rows in answered.groupby("system")
        for column, quantiles in _QUANTILES.items()
        if (values := rows[column].dropna().to_numpy()).size
    }
    patients = {column: weeks.groupby(column)["patient"].nunique() for column in HEADERS}
    answers = weeks["system"].value_counts()
    by_answers = sorted(answers.index, key=lambda system: (-answers[system], system))
    return FirstWeeks(sorted(by_answers[:MOST_SYSTEMS]), cuts, patients, window)


def figure_blocks(
    log: pd.DataFrame, known: FirstWeeks, *, weeks: bool = False
) -> Iterator[FigureBlock]:
    """Return the figures of a log: of each system, of each pair of systems, and of the headers.

    Args:
        log: The log, or its first weeks.
        known: Classes, quantiles and systems of the first weeks.
        weeks: True if `log` is the first weeks.
    """
    for system in known.systems:
        yield from _of_system(log[log["system"] == system], system, known)
    for one, other in combinations(known.systems, 2):
        pair = [log[log["system"] == system].drop_duplicates("image") for system in (one, other)]
        both = pair[0].merge(pair[1][["image", "decision"]], on="image", suffixes=("", "_other"))
        calls = both[["decision", "decision_other"]]
        differ = calls["decision"] != calls["decision_other"]
        shown = calls.notna().all(axis=1)
        of = "disagreement", f"{one} and {other}"
        yield from _block(of, both, shown, {_ALONE: differ}, known.window)
    images = log.drop_duplicates("image")
    for column, patients in known.patients.items():
        classes = list(patients.index)
        watched = classes[:1] if len(classes) == 2 else classes  # one of two tells the other
        title = KINDS[column].title
        figures = {(f"={name}", f"{title} {name}"): images[column] == name for name in watched}
        if classes:
            new = f"{title} not seen in the first weeks"
            # In the first weeks: by those of all other patients, as chance has it later on.
            own = images[column].isin(patients.index[patients == 1])
            figures["=new", new] = own if weeks else ~images[column].isin(classes)
        yield from _block((column, ""), images, images[column].notna(), figures, known.window)


def _of_system(log: pd.DataFrame, system: str, known: FirstWeeks) -> Iterator[FigureBlock]:
    called = log["decision"]
    label = log["label"]
    answered = log["status"] == "ok"
    name = system if known.systems[1:] else ""
    audited = called.notna() & label.notna()
    figures = [
        ("call_rate", called.notna(), {_ALONE: called}),
        ("sensitivity", audited & (label == 1), {_ALONE: called}),
        ("specificity", audited & (label == 0), {_ALONE: 1 - called}),
        ("ppv", audited & (called == 1), {_ALONE: label}),
    ]
    for kind, column in (("score", "score"), ("guard", "guard_distance"), ("slow", "seconds")):
        cuts = zip(_QUANTILES[column], known.cuts.get((system, column), ()), strict=False)
        above = {
            (f">q{100 * quantile:g}", f"{KINDS[kind].title} above {cut:.3g}"): log[column] > cut
            for quantile, cut in cuts
        }
        figures.append((kind, answered & log[column].notna(), above))
    figures.append(("failed", log["status"].notna(), {_ALONE: ~answered}))
    for kind, shown, of_kind in figures:
        yield from _block((kind, name), log, shown, of_kind, known.window)


def _block(
    of: tuple[str, str],
    log: pd.DataFrame,
    shown: pd.Series,  # images of which the figures are known
    figures: Mapping[tuple[str, str], pd.Series],  # by the last part of the key, and the title
    window: int,
) -> Iterator[FigureBlock]:
    """Return the figures by patient: means over the images of the days that count."""
    if not figures or not shown.any():
        return
    kind, system = of
    words, at = (f", {system}", f"@{system}") if system else ("", "")
    titles = {
        f"{kind}{part}{at}": f"{title or KINDS[kind].title}{words}" for part, title in figures
    }
    images = log[shown]
    images = images[counting_days(images["patient"].to_numpy(), images["day"].to_numpy(), window)]
    values = np.stack([each[images.index].to_numpy(float) for each in figures.values()], axis=1)
    units = images.groupby(["patient", "day"], sort=False)
    patient = units.ngroup().to_numpy()
    day = units["day"].first().to_numpy()
    means = np.stack([np.bincount(patient, column) for column in values.T]) / np.bincount(patient)
    yield FigureBlock(of, titles, values, images[[*HEADERS]], patient, means, day)


def counting_days(patient: Integers, day: Integers, window: int) -> npt.NDArray[np.bool_]:
    """Mark the images of days that count: a patient's first day, and the first a window later.

    Args:
        patient: Number of each image's patient, shape ``(N,)``.
        day: Day of each image, counted from 0, shape ``(N,)``.
        window: Days in which a patient counts once.

    Example:
        >>> counting_days(np.array([0, 0, 1, 0, 0]), np.array([1, 1, 2, 300, 366]), 365).tolist()
        [True, True, True, False, True]
    """
    counts = np.zeros(len(day), dtype=bool)
    if not len(day):
        return counts
    last = int(day.max())
    window = min(window, last + 1)
    key = patient * np.int64(last + window + 1) + day
    keys = np.unique(key)  # a day of a patient, in the order of patients and days
    whose = keys // (last + window + 1)
    following = np.searchsorted(keys, keys + window)  # the first a window later, or who comes next
    chosen = np.zeros(len(keys), dtype=bool)
    front = np.flatnonzero(np.diff(whose, prepend=-1))  # each patient's first
    while front.size:
        chosen[front] = True
        after = following[front]
        inside = after < len(keys)
        front = front[inside]
        after = after[inside]
        front = after[whose[after] == whose[front]]
    return np.asarray(chosen[np.searchsorted(keys, key)])
