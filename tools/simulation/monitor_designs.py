"""Streams of answers without a change and with one: how often a monitor rings, and how soon.

A stream is a log as `read_log` gives it; its first weeks are the reference, and the patients who
come later are others. Real scores are CheXNet's of NIH images (consolidation), with view, sex and
age of the NIH table, and RSNA's labels of those that it labels. Inverted images and children need
a model of ours, whose logs lie in the folder of ``CXR_STAGED``:

    cxr prepare rsna sets/rsna --format rsna --size 128
    cxr split sets/rsna --name cv --folds 5 --test-folds
    cxr split sets/rsna --from cv-1 --val 0.12 --name fold-1
    cxr train chexnet_small --data sets/rsna --out cls --set model.backbone=efficientnet_lite0
        --set model.weights=imagenet --set data.split=fold-1 --set data.image_size=128
        --set training.epochs=6 --set training.learning_rate=5e-4
    cxr predict A=cls plain --no-overlay --csv plain.csv
    cxr log A=cls plain --log log_plain

and so for ``inverted`` and ``children``: PNG files of the test images of fold-1, the same as
255 - pixel, and Kermany's images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit, ndtr

from cxr_compare.hospital.answers.answer_log import AGE_BANDS
from cxr_compare.hospital.monitor import monitor_result, monitoring
from cxr_compare.hospital.monitor.monitored_figures import figure_blocks, read_first_weeks
from cxr_compare.hospital.monitor.monitoring import _completed
from tools.simulation.makers import IMAGES_OF_A_PATIENT, LABELS_ALIKE, PREVALENCE, skill_of

Floats = npt.NDArray[np.float64]
Days = npt.NDArray[np.int64]
Measure = Callable[[np.random.Generator], dict[str, float]]
Named = tuple[str, Measure]

_SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
_FIRST = 28  # days of the reference
_DAILY = 25  # patients a day
_GAP = 7  # days between two images of a patient who returns, on average
# new patients a day; days of the log, and before it
_NEW = 10
_DAYS = 166
_LONG_BEFORE = 900
# days of a stream with a change, before and after it
_BEFORE = 20
_AFTER = 60
_AUDITED = 0.2  # of the images get a label
_THRESHOLD = 0.065  # of CheXNet's consolidation: calls 14 % of PA and 49 % of AP images of RSNA
_TUNED_ON = 200  # streams without a change, for the bounds of CUSUM
_SLACK = 0.25  # of CUSUM, standard deviations
_NOT_FOUND = 9_999.0  # patients


def _alarms(
    log: pd.DataFrame, validation: pd.DataFrame | None = None
) -> list[monitor_result.MonitoredFigure]:
    """Return the alarms of a log, without intervals, which take a third of the time."""
    nothing = mock.patch.object(
        monitor_result,
        "mean_interval",
        lambda values, level: np.zeros((len(np.atleast_2d(values)), 2)),
    )
    with nothing:
        return monitoring.monitor_log(log, validation, first=_FIRST).alarms


def first_alarm(log: pd.DataFrame, validation: pd.DataFrame | None = None) -> float:
    """Return the day of the first alarm of the monitor.

    Args:
        log: Log of answers.
        validation: Validation images as a reference; None for none.

    Returns:
        Day counted from the first day of the log; infinity without an alarm.
    """
    begin = log["time"].min().normalize()
    days = [
        float((pd.Timestamp(row.change.on, tz="UTC") - begin).days)
        for row in _alarms(log, validation)
        if row.change is not None
    ]
    return min(days, default=np.inf)


def _as_log(images: pd.DataFrame, day: Days) -> pd.DataFrame:
    """Return images as a log, in the order of their days."""
    time = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(day, "D")
    log = images.assign(time=time, day=day, image=np.arange(len(images)))
    return log.sort_values("day", kind="stable", ignore_index=True)


def _together(images: pd.DataFrame, sizes: Days) -> pd.DataFrame:
    """Return a log of patients who come once, a fixed number a day, with all their images."""
    return _as_log(images, np.repeat(np.arange(len(sizes)) // _DAILY, sizes))


def _returning(rng: np.random.Generator, images: pd.DataFrame, sizes: Days) -> pd.DataFrame:
    """Return a log of patients whose images are days apart.

    The log begins long after the first patients came, so that its first patients return, too.
    """
    begin = np.cumsum(sizes) - sizes
    gaps = rng.geometric(1 / _GAP, int(sizes.sum()))
    gaps[begin] = 0
    passed = np.cumsum(gaps)
    day = np.repeat(np.arange(len(sizes)) // _NEW - passed[begin], sizes) + passed - _LONG_BEFORE
    log = _as_log(images, day)
    return log[(log["day"] >= 0) & (log["day"] < _DAYS)]


def _simulated(rng: np.random.Generator, n_patients: int, alike: float) -> pd.DataFrame:
    """Draw a log of patients whose images correlate in all values that the log contains."""
    known = np.array(list(IMAGES_OF_A_PATIENT.values()), dtype=np.float64)
    sizes = rng.choice(list(IMAGES_OF_A_PATIENT), size=n_patients, p=known / known.sum())
    patient = np.repeat(np.arange(n_patients), sizes)

    def noise(shared: float = alike) -> Floats:
        own = rng.normal(size=len(patient))
        common = rng.normal(size=n_patients)
        return np.sqrt(1 - shared) * own + np.sqrt(shared) * common[patient]

    def of_patient(names: list[str], shares: list[float]) -> npt.NDArray[np.object_]:
        return np.array(names, dtype=object)[rng.choice(len(names), n_patients, p=shares)][patient]

    label = ndtr(noise(min(alike, LABELS_ALIKE))) < PREVALENCE
    score = expit(noise() + skill_of(0.85) * label - 1.5)
    images = {
        "patient": patient,
        "system": "A",
        "status": np.where(noise() > 2.3, "refused", "ok"),
        "score": score,
        "decision": score >= 0.5,
        "guard_distance": noise(),
        "seconds": np.exp(noise()),
        "label": np.where(rng.random(len(patient)) < _AUDITED, label, np.nan),
        "view": np.where(noise() < 0, "AP", "PA"),
        "sex": of_patient(["M", "F"], [0.5, 0.5]),
        "age_band": of_patient([*AGE_BANDS][3:], [0.3, 0.4, 0.2, 0.1]),
        "maker": of_patient(["agfa", "ge", "siemens"], [0.5, 0.3, 0.2]),
    }
    return _together(pd.DataFrame(images), sizes)


@cache
def _chexnet() -> pd.DataFrame:
    """Read CheXNet's scores, by patient in the order of the follow-up."""
    folder = _SHARED / "chexnet_scores"
    truth = pd.read_csv(folder / "truth_rsna.csv", usecols=["Image Index", "Target"])
    table = pd.read_csv(folder / "preds.csv").merge(truth, how="left")
    table = table.merge(pd.read_csv(_SHARED / "reference_csv" / "Data_Entry_2017_v2020.csv.gz"))
    table["age_band"] = pd.cut(
        table["Patient Age"], [0, *AGE_BANDS.values()], right=False, labels=[*AGE_BANDS]
    ).astype(object)
    table["patient"] = table["Image Index"].str[:8]
    names = {
        "prob_Consolidation": "score",
        "Target": "label",
        "View Position": "view",
        "Patient Gender": "sex",
    }
    table = table.sort_values("Image Index").rename(columns=names)
    return table[["patient", *names.values(), "age_band"]].assign(system="CheXNet", status="ok")


@cache
def _staged(kind: str) -> pd.DataFrame:
    """Read scores and guard distances of our own model on images of a kind, with their patients."""
    folder = Path(os.environ["CXR_STAGED"])
    images = pd.read_csv(folder / f"{kind}.csv").set_index("image")
    files = sorted((folder / f"log_{kind}").glob("answers-*.jsonl"))
    log = pd.concat([pd.read_json(file, lines=True) for file in files], ignore_index=True)
    log["decision"] = log["decision"].map({"positive": 1.0, "negative": 0.0})
    name = images.index.to_series().str.extract(r"([^/]+)\.\w+$")[0]
    if kind == "children":
        found = name.str.extract(r"person(\d+)_")[0]
        log["patient"] = found.fillna(name).to_numpy()
    else:
        nih = pd.read_csv(_SHARED / "reference_csv" / "rsna_to_nih.csv").set_index("patientId")
        log["patient"] = name.map(nih["nih_image"].str[:8]).fillna(name).to_numpy()
    columns = ["patient", "system", "status", "score", "decision", "guard_distance"]
    return log[columns].sort_values("patient", kind="stable")


def _drawn(
    rng: np.random.Generator, images: pd.DataFrame, n_patients: int | None = None
) -> tuple[pd.DataFrame, Days]:
    """Return patients in random order, or a number of them drawn with replacement.

    The second value is the number of images of each patient.
    """
    codes, names = pd.factorize(images["patient"])
    rows = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    begin = np.cumsum(sizes) - sizes
    chosen = rng.permutation(len(names))
    if n_patients is not None:
        chosen = rng.integers(len(names), size=n_patients)
    taken = np.concatenate([rows[begin[one] : begin[one] + sizes[one]] for one in chosen])
    patient = np.repeat(np.arange(len(chosen)), sizes[chosen])
    return images.iloc[taken].assign(patient=patient).reset_index(drop=True), sizes[chosen]


def _decided(log: pd.DataFrame) -> pd.DataFrame:
    return log if "decision" in log else log.assign(decision=log["score"] >= _THRESHOLD)


def stream_measure(
    make: Callable[[np.random.Generator], pd.DataFrame], *, every: int = 20, mapie: bool = True
) -> Measure:
    """Return a simulation of a stream that counts the alarms of the monitor and of other methods.

    The other methods run only in some streams, because MAPIE's bounds take seconds for each stream.

    Args:
        make: Function that draws a log from a random generator.
        every: The other methods run in one stream out of so many.
        mapie: True to run MAPIE's monitors, too.

    Returns:
        A function of a random generator that returns 1 for each method that raises an alarm, else
        0.
    """

    def measure(rng: np.random.Generator) -> dict[str, float]:
        log = make(rng)
        found = {"any alarm, by patient": float(bool(_alarms(log)))}
        if rng.integers(every):
            return found
        by_image = _alarms(log.assign(patient=np.arange(len(log))))
        by_name = {row.kind for row in by_image}
        return found | {
            "any alarm, by image": float(bool(by_name)),
            "call rate, by image": float("call_rate" in by_name),
            "scores, by image": float("score" in by_name),
            **{name: float(np.isfinite(at)) for name, at in (_mapie(log) if mapie else {}).items()},
        }

    return measure


def _mapie(log: pd.DataFrame) -> dict[str, float]:
    """Return the image at which MAPIE's monitors raise an alarm, counted from the reference's end.

    The value is infinite if they never do.
    """
    from mapie.exchangeability_testing import OnlineMartingaleTest, RiskMonitoring

    calls = log["decision"].fillna(0).to_numpy(float)
    weeks = (log["day"] < _FIRST).to_numpy()
    risk = RiskMonitoring("predicted_positive_fraction", tolerance=0.0, warn=False)
    risk.compute_threshold(calls[weeks], calls[weeks]).update(calls[~weeks], calls[~weeks])
    above = risk.online_risk_lower_bound_sequence_history > risk.threshold
    test: Any = OnlineMartingaleTest(_ScoreItself(), task="regression", warn=False, random_state=0)
    test.conformity_score_history = _Growing(len(log))
    scores = log["score"].to_numpy(float)
    test.update(scores, scores)
    wealth = np.array(test.martingale_value_history)
    return {
        "MAPIE risk monitoring of calls": _first(above),
        "MAPIE martingale of scores": _first(wealth >= 1 / 0.05) - weeks.sum(),
    }


class _Growing:
    """A list for MAPIE that NumPy need not copy at each image."""

    def __init__(self, most: int) -> None:
        self._values = np.empty(most)
        self._count = 0

    def append(self, value: float) -> None:
        self._values[self._count] = value
        self._count += 1

    def __array__(self, dtype: object = None, copy: object = None) -> Floats:
        return self._values[: self._count]


class _ScoreItself:
    """A regressor for MAPIE that uses the score of each image as its conformity score."""

    _is_fitted = True

    def conformalize(self, scores: Floats, same: Floats) -> None:
        self.conformity_scores = same


def _first(flags: npt.NDArray[np.bool_]) -> float:
    return float(flags.argmax()) if flags.any() else np.inf


def real_patients(rng: np.random.Generator) -> pd.DataFrame:
    """Draw a log of all 4,144 patients with CheXNet's scores, in a random order.

    Args:
        rng: Random generator.

    Returns:
        The log.
    """
    return _decided(_together(*_drawn(rng, _chexnet())))


def real_patients_who_return(rng: np.random.Generator) -> pd.DataFrame:
    """Draw a log of patients with CheXNet's scores whose images are days apart.

    Args:
        rng: Random generator.

    Returns:
        The log.
    """
    drawn = _drawn(rng, _chexnet(), _NEW * (_LONG_BEFORE + _DAYS))
    return _decided(_returning(rng, *drawn))


def streams() -> Iterator[Named]:
    """Yield the cases without a change: patients with three correlations, and real patients."""
    for alike in (0.8, 0.4, 0.0):
        make = partial(_simulated, n_patients=1_200, alike=alike)
        measure = stream_measure(make, mapie=alike == 0.8)
        yield f"1,200 patients, images alike by {alike:g}", measure

    yield "4,144 real patients", stream_measure(real_patients)
    yield "real patients who return", stream_measure(real_patients_who_return)


Change = Callable[[np.random.Generator, pd.DataFrame], pd.DataFrame]


def _thinned(log: pd.DataFrame, rng: np.random.Generator, kept: Floats) -> pd.DataFrame:
    return log[rng.random(len(log)) < kept]


def _portable(rng: np.random.Generator, log: pd.DataFrame) -> pd.DataFrame:
    share = (log["view"] == "AP").mean()
    return _thinned(log, rng, np.where(log["view"] == "AP", 1.0, share / (1 - share) / 9))


def _halved(rng: np.random.Generator, log: pd.DataFrame) -> pd.DataFrame:
    share = (log["label"] == 1).mean()
    kept = (share / 2) / (1 - share / 2) * (1 - share) / share
    return _thinned(log, rng, np.where(log["label"] == 1, kept, 1.0))


def _shifted(rng: np.random.Generator, log: pd.DataFrame) -> pd.DataFrame:
    return log.assign(score=expit(logit(log["score"]) + 0.5))


def _stuck(rng: np.random.Generator, log: pd.DataFrame) -> pd.DataFrame:
    return log.assign(score=log["score"].iloc[0])


def _replaced(kind: str) -> Change:
    """Return a change that replaces the images of the log by images of a kind."""

    def change(rng: np.random.Generator, log: pd.DataFrame) -> pd.DataFrame:
        pool = _staged(kind)
        images, _ = _drawn(rng, pool, log["patient"].nunique())
        one = images.drop_duplicates("patient").drop(columns="patient")
        codes = pd.factorize(log["patient"])[0]
        return log.assign(**{str(name): one[name].to_numpy()[codes] for name in one})

    return change


def _nothing(rng: np.random.Generator, log: pd.DataFrame) -> pd.DataFrame:
    return log


def _changed(
    rng: np.random.Generator, images: pd.DataFrame, change: Change
) -> tuple[pd.DataFrame, int]:
    """Draw a stream that is changed from a day on, and return it with this day."""
    days = _FIRST + _BEFORE + _AFTER
    begin = _FIRST + _BEFORE
    log = _together(*_drawn(rng, images, days * _DAILY))
    parts = [log[log["day"] < begin], change(rng, log[log["day"] >= begin])]
    changed = _decided(pd.concat(parts, ignore_index=True))
    if "label" in changed:
        changed["label"] = changed["label"].where(rng.random(len(changed)) < _AUDITED)
    return changed, begin


def _cusums(log: pd.DataFrame) -> dict[str, tuple[Floats, Days]]:
    """Compute the two-sided CUSUM of each figure of the monitor, with the days of the patients."""
    table = _completed(log)
    known = read_first_weeks(table[table["day"] < _FIRST], _FIRST)
    found = {}
    for block in figure_blocks(table, known):
        weeks = block.day < _FIRST
        for key, values in zip(block.titles, block.means, strict=True):
            mean = values[weeks].mean()
            spread = values[weeks].std()
            if weeks.sum() < 50 or not spread:
                continue
            off = (values[~weeks] - mean) / spread
            sides = [_cusum(sign * off - _SLACK) for sign in (1, -1)]
            found[key] = (np.maximum(*sides), np.asarray(block.day[~weeks], np.int64))
    return found


def _cusum(steps: Floats) -> Floats:
    """Compute ``S = max(0, S + step)`` after each step."""
    total = np.cumsum(steps)
    return np.asarray(total - np.minimum(np.minimum.accumulate(total), 0.0))


@cache
def _cusum_bounds(pool: str) -> Mapping[str, float]:
    """Return bounds of all figures that are exceeded in 5 % of streams without a change.

    Each figure exceeds its bound equally often.
    """
    rng = np.random.default_rng(5)
    images = _POOLS[pool]()
    null = [_cusums(_changed(rng, images, _nothing)[0]) for _ in range(_TUNED_ON)]
    tops = pd.DataFrame([{key: s.max() for key, (s, _) in one.items()} for one in null]).fillna(0)
    rarest = tops.rank(ascending=False).min(axis=1).to_numpy()
    share = np.quantile(rarest, 0.05) / len(tops)
    return {str(key): float(np.quantile(column, 1 - share)) for key, column in tops.items()}


def fault_measure(pool: str, change: Change) -> Measure:
    """Return a simulation of the delay until the monitor, CUSUM and MAPIE find a change.

    Args:
        pool: Key of `_POOLS`, which names the images.
        change: Function that changes the rows of the log after the change.

    Returns:
        A function of a random generator that returns the number of patients until the alarm of each
        method.
    """

    def measure(rng: np.random.Generator) -> dict[str, float]:
        bounds = _cusum_bounds(pool)
        log, begin = _changed(rng, _POOLS[pool](), change)
        changed = log[log["day"] >= begin]
        origin = log["time"].min()

        def patients(day: float) -> float:
            """Count the patients from the change until a day; NaN after an earlier alarm."""
            if not np.isfinite(day):
                return _NOT_FOUND
            until = changed["day"] <= day
            return float(changed.loc[until, "patient"].nunique()) if day >= begin else np.nan

        alarms = _alarms(log)
        rang = {
            row.key: (pd.Timestamp(row.change.on, tz="UTC") - origin).days
            for row in alarms
            if row.change
        }
        sums = _cusums(log)
        cusum = [
            day[np.argmax(s >= bounds[key])]
            for key, (s, day) in sums.items()
            if key in bounds and (s >= bounds[key]).any()
        ]
        single = log.drop_duplicates("patient")  # MAPIE's units must be independent
        rings = _mapie(single)
        stream = single.loc[single["day"] >= _FIRST, "day"].to_numpy()
        days = {
            "monitor": min(rang.values(), default=np.inf),
            "CUSUM": float(min(cusum, default=np.inf)),
            **{n: stream[int(max(i, 0))] if np.isfinite(i) else i for n, i in rings.items()},
        }
        found = {}
        for name, day in days.items():
            found[f"median patients, {name}"] = patients(day)
            found[f"before the change, {name}"] = float(day < begin)
            found[f"found, {name}"] = float(begin <= day < np.inf)
        return found

    return measure


FAULTS: dict[str, tuple[str, Change]] = {
    "no change": ("rsna", _nothing),
    "portable images 45 to 90 %": ("rsna", _portable),
    "prevalence halved": ("rsna", _halved),
    "log odds of scores + 0.5": ("rsna", _shifted),
    "a stuck score": ("rsna", _stuck),
    "no change, own model": ("plain", _nothing),
    "negatives not inverted": ("plain", _replaced("inverted")),
    "children for adults": ("plain", _replaced("children")),
}


_POOLS: dict[str, Callable[[], pd.DataFrame]] = {
    "rsna": lambda: _chexnet().dropna(subset="label"),
    "plain": lambda: _staged("plain"),
}


def faults() -> Iterator[Named]:
    """Yield the cases of faults that are staged on real scores."""
    for name, of in FAULTS.items():
        yield name, fault_measure(*of)
