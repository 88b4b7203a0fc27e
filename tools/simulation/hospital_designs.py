"""Streams of a small hospital: how soon the monitor finds a change, and how soon it can be found.

Twenty visits a day, 30 % of them by patients seen in the four weeks before, prevalence 18 %,
sensitivity 0.79, specificity 0.86, every fifth image audited. The first 28 days are the reference;
the change comes on day 60, and the log ends on day 160 (180 where nothing changes). Scores are
binormal; scores and labels of a patient's images are correlated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit, ndtr, ndtri

from cxr_compare.hospital.answers.answer_log import AGE_BANDS
from tools.simulation.monitor_designs import (
    first_alarm,
    real_patients,
    real_patients_who_return,
)

Floats = npt.NDArray[np.float64]
Measure = Callable[[np.random.Generator], dict[str, float]]
Named = tuple[str, Measure]

_DAILY = 20  # visits
_RETURNING = 0.3  # share of visits
_MEMORY = 28  # days in which the former visit of a patient who returns lies
_WARM_UP = 60  # days before the log, so that its first patients return, too
_AUDITED = 0.2
_PREVALENCE = 0.18
_CUT = float(ndtri(0.86))  # threshold on the scale of the negatives' noise
_SKILL = float(ndtri(0.79)) + _CUT
_SKILL_LOST = float(ndtri(0.46)) + _CUT  # sensitivity 0.46, two fifths less
_SPREAD = float(np.sqrt(1 + _PREVALENCE * (1 - _PREVALENCE) * _SKILL**2))  # of all scores
_LABELS_ALIKE = 0.8  # correlation of the latent labels of a patient, unless images are independent
_FIRST = 28
_CHANGE = 60
_DAYS = 160
_DAYS_UNCHANGED = 180
_VALIDATION = 370  # patients, of whom about 67 are positive
_CAMERA_SHIFT = 0.4  # standard deviations of all scores
_TUNED_ON = 400  # streams without a change, for the bound of the oracle
_NEVER = 9_999.0


def hospital(
    rng: np.random.Generator,
    change: str = "",
    *,
    days: int = _DAYS,
    alike: float = 0.5,
    sicker: float = 1.0,
) -> pd.DataFrame:
    """Draw a log of answers.

    Args:
        rng: Random generator.
        change: Key of `CHANGES`; empty if nothing changes.
        days: Number of days.
        alike: Correlation of the scores of a patient's images within a class.
        sicker: Factor by which a positive patient is more likely to return than a negative one.

    Returns:
        The log, with one row for each image, as `monitor_log` takes it.
    """
    day = np.repeat(np.arange(-_WARM_UP, days), rng.poisson(_DAILY, _WARM_UP + days))
    n = len(day)
    latent = ndtr(rng.normal(size=n))  # of the visit's patient, if it is the first visit
    patient = _patients(rng, day, latent, sicker)
    first_day = np.full(n, days)
    np.minimum.at(first_day, patient, day)

    def noise(shared: float) -> Floats:
        return (
            np.sqrt(1 - shared) * rng.normal(size=n) + np.sqrt(shared) * rng.normal(size=n)[patient]
        )

    is_late = day >= _CHANGE
    factor = {"halved": 0.5, "doubled": 2.0}.get(change, 1.0)
    prevalence = np.where(first_day[patient] >= _CHANGE, factor, 1.0) * _PREVALENCE
    labels_alike = _LABELS_ALIKE if alike else 0.0
    common = np.sqrt(labels_alike) * ndtri(latent[patient])
    label = ndtr(common + np.sqrt(1 - labels_alike) * rng.normal(size=n)) < prevalence
    skill = np.where(is_late & (change == "sensitivity"), _SKILL_LOST, _SKILL)
    height = noise(alike) + skill * label
    if change in SHIFTS:
        height = height + SHIFTS[change] * _SPREAD * is_late
    maker = np.array(["agfa", "ge", "siemens"], dtype=object)[rng.choice(3, n, p=[0.4, 0.35, 0.25])]
    if change == "camera":
        is_new = is_late & (maker == "agfa")
        maker[is_new] = "philips"
        height = height + _CAMERA_SHIFT * _SPREAD * is_new
    has_failed = rng.random(n) < 0.01

    def of_patient(names: list[str], shares: list[float]) -> npt.NDArray[np.object_]:
        return np.array(names, dtype=object)[rng.choice(len(names), n, p=shares)][patient]

    log = pd.DataFrame(
        {
            "time": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(day, "D"),
            "patient": patient,
            "image": np.arange(n),
            "status": np.where(has_failed, "refused", "ok"),
            "score": np.where(has_failed, np.nan, expit(height - 2)),
            "decision": np.where(has_failed, np.nan, height >= _CUT),
            "guard_distance": np.where(has_failed, np.nan, noise(alike)),
            "seconds": np.exp(0.3 * noise(0.0)),
            "label": np.where(rng.random(n) < _AUDITED, label, np.nan),
            "view": np.where(noise(0.3) < ndtri(0.4), "AP", "PA"),
            "sex": of_patient(["M", "F"], [0.5, 0.5]),
            "age_band": of_patient([*AGE_BANDS][3:], [0.3, 0.4, 0.2, 0.1]),
            "maker": maker,
        }
    )
    return log[day >= 0].reset_index(drop=True)


SHIFTS = {"scores 0.3 higher": 0.3, "scores 0.3 lower": -0.3}
"""Changes of all scores, in their standard deviations."""
CHANGES = {
    "sensitivity 0.79 to 0.46": "sensitivity",
    "prevalence halved": "halved",
    "prevalence doubled": "doubled",
    "scores + 0.3 SD": "scores 0.3 higher",
    "scores - 0.3 SD": "scores 0.3 lower",
    "a camera replaced, scores + 0.4 SD there": "camera",
}


def _patients(
    rng: np.random.Generator, day: npt.NDArray[np.int64], latent: Floats, sicker: float
) -> npt.NDArray[np.int64]:
    """Return the patient of each visit, as the number of the patient's first visit."""
    n = len(day)
    patient = np.arange(n)
    begin = np.searchsorted(day, day - _MEMORY)
    returns = (rng.random(n) < _RETURNING) & (np.arange(n) > 0)
    for visit in np.flatnonzero(returns):
        former = patient[rng.integers(begin[visit], visit, 8)]
        weight = np.where(latent[former] < _PREVALENCE, sicker, 1.0)
        patient[visit] = former[np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random())]
    return patient


def _validation(rng: np.random.Generator) -> pd.DataFrame:
    """Draw labelled validation images, one for each patient."""
    label = rng.random(_VALIDATION) < _PREVALENCE
    height = rng.normal(size=_VALIDATION) + _SKILL * label
    return pd.DataFrame(
        {
            "patient": np.arange(_VALIDATION),
            "score": expit(height - 2),
            "decision": (height >= _CUT).astype(float),
            "label": label.astype(float),
        }
    )


def _oracle(log: pd.DataFrame, change: str) -> pd.Series:
    """Return, for each day after the reference, the highest CUSUM of the true likelihood ratio.

    The oracle knows the distribution of the scores before and after the change, and which change
    will come.
    """
    rows = log.dropna(subset="score").drop_duplicates("patient")
    height = logit(rows["score"].to_numpy(np.float64)) + 2
    day = ((rows["time"] - log["time"].min()) // pd.Timedelta(days=1)).to_numpy()
    prevalence = {"halved": 0.5, "doubled": 2.0}.get(change, 1.0) * _PREVALENCE
    skill = _SKILL_LOST if change == "sensitivity" else _SKILL
    shift = SHIFTS.get(change, 0.0) * _SPREAD
    after = _log_density(height - shift, prevalence, skill)
    steps = (after - _log_density(height, _PREVALENCE, _SKILL))[day >= _FIRST]
    total = np.cumsum(steps)
    course = total - np.minimum(np.minimum.accumulate(total), 0.0)
    return pd.Series(course).groupby(day[day >= _FIRST]).max()


def _log_density(height: Floats, prevalence: float, skill: float) -> Floats:
    negative = (1 - prevalence) * np.exp(-(height**2) / 2)
    return np.asarray(np.log(negative + prevalence * np.exp(-((height - skill) ** 2) / 2)))


@cache
def _oracle_bound(change: str) -> float:
    """Return the bound that the oracle exceeds in 5 % of streams of 180 days without a change."""
    rng = np.random.default_rng(54)
    tops = [_oracle(hospital(rng, days=_DAYS_UNCHANGED), change).max() for _ in range(_TUNED_ON)]
    return float(np.quantile(tops, 0.95))


def quiet_measure(make: Callable[[np.random.Generator], pd.DataFrame]) -> Measure:
    """Return a simulation that counts alarms although nothing changes.

    Args:
        make: Function that draws a log from a random generator.

    Returns:
        A function of a random generator that returns 1 if any figure raises an alarm, else 0.
    """

    def measure(rng: np.random.Generator) -> dict[str, float]:
        return {"false alarm": float(np.isfinite(first_alarm(make(rng))))}

    return measure


def delay_measure(change: str, *, with_validation: bool = False) -> Measure:
    """Return a simulation of the delay until the monitor and the oracle find a change.

    Args:
        change: Key of `CHANGES`.
        with_validation: True if the monitor also gets validation images as a reference.

    Returns:
        A function of a random generator that returns the days until the alarm, and whether the
        change was found.
    """

    def measure(rng: np.random.Generator) -> dict[str, float]:
        log = hospital(rng, change)
        validation = _validation(rng) if with_validation else None
        days = {"monitor": first_alarm(log, validation)}
        if change != "camera":
            course = _oracle(log, change)
            above = course.index[course >= _oracle_bound(change)]
            days["oracle"] = float(above[0]) if len(above) else np.inf
        found = {}
        for name, day in days.items():
            delay = day - _CHANGE if np.isfinite(day) else _NEVER
            found[f"before the change, {name}"] = float(day < _CHANGE)
            found[f"found, {name}"] = float(0 <= delay < _NEVER)
            found[f"found in 30 days, {name}"] = float(0 <= delay < 30)
            # An alarm before the change does not count as finding it.
            found[f"median days, {name}"] = delay if delay >= 0 else np.nan
        return found

    return measure


def quiet_hospitals() -> Iterator[Named]:
    """Yield the cases without a change: simulated patients of three correlations, and real ones."""
    make = partial(hospital, days=_DAYS_UNCHANGED)
    for alike in (0.0, 0.5, 0.8):
        yield f"images alike by {alike:g}", quiet_measure(partial(make, alike=alike))
    sicker = quiet_measure(partial(make, sicker=3.0))
    yield "positive patients return three times as often", sicker
    yield "4,144 real patients in a random order", quiet_measure(real_patients)
    yield "real patients who return", quiet_measure(real_patients_who_return)


def delays() -> Iterator[Named]:
    """Yield the cases of changes in the hospital's stream."""
    for name, change in CHANGES.items():
        yield name, delay_measure(change)
    lost = partial(delay_measure, "sensitivity", with_validation=True)
    yield "sensitivity 0.79 to 0.46, with --reference", lost()
