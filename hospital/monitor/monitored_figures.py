"""The monitored figures of a log: means per patient of variables between 0 and 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.hospital.monitor.monitor_result import KINDS

HEADERS = ("view", "sex", "age_band", "maker")
"""Columns of a log that come from the headers of the images."""


_QUANTILES = {"score": (0.1, 0.5, 0.9), "guard_distance": (0.1, 0.5, 0.9), "seconds": (0.95,)}


_SHARES = (0.0, 1.0)  # ends of scores that need no scale


_ALONE = ("", "")  # ending of the key, and own title, of a figure that is the only one of its kind


MOST_SYSTEMS = 20
"""Largest number of monitored systems; the number of their pairs grows with its square."""


class FirstWeeks(NamedTuple):
    """Systems, classes and quantiles that the first weeks of a log define for the whole log.

    The log has the answers of systems (models in use), such as their scores. Later days are
    compared with these first weeks. A class is a group of images whose share is monitored, such as
    those of the view AP, or those with a score above a quantile.

    Attributes:
        systems: Names of the monitored systems: those with the most answers, at most 20.
        cuts: Quantiles of a column's values in the first weeks, such as ``score``, by name of the
            system and column. They divide the values into classes, whose shares are monitored.
        score_ends: Lowest and highest score of a system, by its name; scores are scaled so that
            these become 0 and 1.
        patients: For each of the columns ``view``, ``sex``, ``age_band`` and ``maker``: number of
            patients with each value in the first weeks.
        window: Number of days within which all images of a patient count as one value.
    """

    systems: list[str]
    cuts: dict[tuple[str, str], Floats]
    score_ends: dict[str, tuple[float, float]]
    patients: dict[str, pd.Series]
    window: int


class FigureBlock(NamedTuple):
    """Values of several monitored figures on the same images, and the day of each patient.

    A figure is, for example, the share of positive calls. The images of a patient within a window
    of days count as one value. A patient who returns after the window counts as another patient.

    Attributes:
        kind_and_system: Kind of the figures, such as ``call_rate`` (a key of `KINDS`), and name of
            the system (model) or pair of systems. The name is empty if the figures belong to no
            system, or if the log has only one system.
        titles: Title of each figure by its key, such as ``{"call_rate": "Call rate"}``.
        values: Value of each figure on each image, in [0, 1], shape ``(images, figures)``.
        headers: Columns ``view``, ``sex``, ``age_band`` and ``maker`` of the log, one row for each
            image.
        patient: Patient of each image as an index in the order of time, shape ``(images,)``.
        means: Mean of each figure over the images of each patient, in [0, 1], shape ``(figures,
            patients)``.
        day: Day on which each patient counts, as a number from 0, the first day of the log, shape
            ``(patients,)``.
    """

    kind_and_system: tuple[str, str]
    titles: dict[str, str]
    values: Floats
    headers: pd.DataFrame
    patient: Integers
    means: Floats
    day: Integers

    @property
    def kind(self) -> str:
        """Kind of the figures, such as ``call_rate``, a key of `KINDS`."""
        return self.kind_and_system[0]

    @property
    def n(self) -> int:
        """Number of patients of these figures."""
        return len(self.day)


def read_first_weeks(weeks: pd.DataFrame, window: int) -> FirstWeeks:
    """Determine the systems, classes and quantiles of the first weeks of a log.

    The rows, one for each image and system, have the columns ``system``, ``status``, ``score``,
    ``guard_distance``, ``seconds``, ``patient``, ``view``, ``sex``, ``age_band`` and ``maker``.
    `window` is as in `FirstWeeks`.
    """
    answered = weeks[weeks["status"] == "ok"]
    cuts = {
        (str(system), column): np.quantile(values, quantiles)
        for system, rows in answered.groupby("system")
        for column, quantiles in _QUANTILES.items()
        if (values := rows[column].dropna().to_numpy()).size
    }
    score_ends = {
        str(system): _score_ends(scores.dropna())
        for system, scores in answered.groupby("system")["score"]
    }
    patients = {column: weeks.groupby(column)["patient"].nunique() for column in HEADERS}
    answers = weeks["system"].value_counts()
    by_answers = sorted(answers.index, key=lambda system: (-answers[system], system))
    return FirstWeeks(sorted(by_answers[:MOST_SYSTEMS]), cuts, score_ends, patients, window)


def _score_ends(scores: pd.Series) -> tuple[float, float]:
    """Return 0 and 1 if all scores lie between them, else the lowest and the highest score."""
    if scores.between(0, 1).all():
        return _SHARES
    return float(scores.min()), float(max(scores.max(), scores.min() + 1e-9))


def figure_blocks(
    log: pd.DataFrame, first_weeks: FirstWeeks, *, is_first_weeks: bool = False
) -> Iterator[FigureBlock]:
    """Yield the monitored figures of a log: of systems, of pairs of systems, and of image headers.

    The figures are, for example, the call rate of a system, the share of images on which two
    systems disagree, and the share of images whose header states the view AP. There is one block
    for each kind of figure and system, of figures on the same images.

    The log, or a part of it, has one row for each image and system, with all columns as
    `hospital.monitor.monitoring.monitor_log` completes them. `is_first_weeks` is True if it has the
    first weeks only.
    """
    for system in first_weeks.systems:
        yield from _blocks_of_system(log[log["system"] == system], system, first_weeks)
    for one, other in combinations(first_weeks.systems, 2):
        pair = [log[log["system"] == system].drop_duplicates("image") for system in (one, other)]
        both = pair[0].merge(pair[1][["image", "decision"]], on="image", suffixes=("", "_other"))
        calls = both[["decision", "decision_other"]]
        differ = calls["decision"] != calls["decision_other"]
        shown = calls.notna().all(axis=1)
        kind_and_system = ("disagreement", f"{one} and {other}")
        figures = {_ALONE: differ}
        yield from _block(kind_and_system, both, shown, figures, first_weeks.window)
    images = log.drop_duplicates("image")
    for column, patients in first_weeks.patients.items():
        classes = list(patients.index)
        # With two classes, the share of one follows from the share of the other.
        watched = classes[:1] if len(classes) == 2 else classes
        title = KINDS[column].title
        shares = {(f"={name}", f"{title} {name}"): images[column] == name for name in watched}
        if classes:
            new_title = f"{title} not seen in the first weeks"
            # In the first weeks, a class counts as new if no other patient has it. If nothing
            # changes, a class is new about as often later on.
            of_one_patient = images[column].isin(patients.index[patients == 1])
            is_new = of_one_patient if is_first_weeks else ~images[column].isin(classes)
            shares["=new", new_title] = is_new
        is_stated = images[column].notna()
        yield from _block((column, ""), images, is_stated, shares, first_weeks.window)


def _blocks_of_system(
    log: pd.DataFrame, system: str, first_weeks: FirstWeeks
) -> Iterator[FigureBlock]:
    called = log["decision"]
    label = log["label"]
    answered = log["status"] == "ok"
    name = system if first_weeks.systems[1:] else ""
    audited = called.notna() & label.notna()
    figures = [
        ("call_rate", called.notna(), {_ALONE: called}),
        ("sensitivity", audited & (label == 1), {_ALONE: called}),
        ("specificity", audited & (label == 0), {_ALONE: 1 - called}),
        ("ppv", audited & (called == 1), {_ALONE: label}),
    ]
    low, high = first_weeks.score_ends.get(system, _SHARES)
    scaled = ((log["score"] - low) / (high - low)).clip(0, 1)
    title = KINDS["score_mean"].title
    if (low, high) != _SHARES:
        title = f"{title} (0: {low:.3g}, 1: {high:.3g})"
    figures.append(("score_mean", answered & log["score"].notna(), {("", title): scaled}))
    for kind, column in (("score", "score"), ("guard", "guard_distance"), ("slow", "seconds")):
        cuts = zip(_QUANTILES[column], first_weeks.cuts.get((system, column), ()), strict=False)
        above = {
            (f">q{100 * quantile:g}", f"{KINDS[kind].title} above {cut:.3g}"): log[column] > cut
            for quantile, cut in cuts
        }
        figures.append((kind, answered & log[column].notna(), above))
    figures.append(("failed", log["status"].notna(), {_ALONE: ~answered}))
    for kind, shown, values in figures:
        yield from _block((kind, name), log, shown, values, first_weeks.window)


def _block(
    kind_and_system: tuple[str, str],
    log: pd.DataFrame,
    shown: pd.Series,  # True for images whose figures are known
    figures: Mapping[tuple[str, str], pd.Series],  # values by the ending of the key and the title
    window: int,
) -> Iterator[FigureBlock]:
    """Compute the figures by patient, as means over the images of the days that count."""
    if not figures or not shown.any():
        return
    kind, system = kind_and_system
    titles = {}
    for ending, title in figures:
        key = f"{kind}{ending}"
        full_title = title or KINDS[kind].title
        if system:
            key = f"{key}@{system}"
            full_title = f"{full_title}, {system}"
        titles[key] = full_title
    images = log[shown]
    images = images[counting_days(images["patient"].to_numpy(), images["day"].to_numpy(), window)]
    values = np.stack([column[images.index].to_numpy(float) for column in figures.values()], axis=1)
    units = images.groupby(["patient", "day"], sort=False)
    patient = units.ngroup().to_numpy()
    day = units["day"].first().to_numpy()
    means = np.stack([np.bincount(patient, column) for column in values.T]) / np.bincount(patient)
    headers = images[[*HEADERS]]
    yield FigureBlock(kind_and_system, titles, values, headers, patient, means, day)


def counting_days(patient: Integers, day: Integers, window: int) -> npt.NDArray[np.bool_]:
    """Find the images of the days that count, so that a patient counts once within a window.

    The first day of a patient counts. A later day of the patient counts if it is the first one that
    is at least `window` days (1 or more) after the last day that counted. Patients and days are
    numbers, ``(N,)``, days from 0.

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
    keys = np.unique(key)  # one for each day of a patient, in the order of patients and days
    patient_of_key = keys // (last + window + 1)
    # Position of the patient's first day that is a window later. Without such a day, it is the
    # position of the next patient's first day.
    following = np.searchsorted(keys, keys + window)
    chosen = np.zeros(len(keys), dtype=bool)
    front = np.flatnonzero(np.diff(patient_of_key, prepend=-1))  # first day of each patient
    while front.size:
        chosen[front] = True
        after = following[front]
        inside = after < len(keys)
        front = front[inside]
        after = after[inside]
        front = after[patient_of_key[after] == patient_of_key[front]]
    return np.asarray(chosen[np.searchsorted(keys, key)])
