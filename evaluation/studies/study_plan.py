"""A planned study: from what it follows, its answers in words and as JSON, and its charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.contracts.notebook import ShownAsText, html_lines, html_records
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.decisions.thresholds import GuaranteePlan
from cxr_compare.evaluation.report.plot import (
    Axis,
    Chart,
    Curve,
    Point,
    draw_with_legend,
    save_figure,
)
from cxr_compare.evaluation.statistics.bootstrap import LEVEL
from cxr_compare.evaluation.statistics.obuchowski_rockette import Components
from cxr_compare.evaluation.statistics.sample_size import (
    MOST_SIMULATED,
    AssumedPlan,
    CrossedPlan,
    PilotPlan,
    Plan,
    PlannedStudy,
    fewest_patients,
    obuchowski_positives,
)

_STORED = "plan.json"
_READERS = "readers.json"
_FIGURES = "figures"
_CORRELATION = 0.5
_POWER = 0.8
_USUAL_READERS = (3, 5, 10)
_SHARES = (0.5, 1.0, 1.5)
"""Of the difference: whoever plans for one should see what a smaller one would take."""


@dataclass(frozen=True)
class _Basis:
    """What a study is planned from."""

    plans: Mapping[str, Plan]  # by name; one alone has an empty name
    compares: bool  # two systems or modalities
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()  # what is assumed, in sentences

    @property
    def first(self) -> Plan:
        """The plan that stands for what all of them share."""
        return next(iter(self.plans.values()))

    @property
    def difference(self) -> float:
        """Of the two AUROCs that are assumed; 0 where there are none."""
        aurocs = self.facts.get("aurocs", (0.0,))
        return float(abs(aurocs[0] - aurocs[-1]))


def plans_assumed(
    aurocs: Sequence[float],
    prevalence: float | None,
    *,
    correlation: float | None = None,
    images: Sequence[int | str] = (),
    within: float | None = None,
    seeds: Sequence[int] = (),
    seed_deviation: float | None = None,
    seed_correlation: float | None = None,
    readers: Sequence[int] = (),
    reader_deviation: float | None = None,
) -> _Basis:
    """A study that follows from assumptions: a plan for each number of images and of seeds.

    `correlation` is of two systems' scores in a class, `within` of one system's scores of a
    patient's images, `seed_correlation` of two trainings' scores; `seed_deviation` is the standard
    deviation of the AUROC between trainings. `images` are numbers, or names of sets. With
    `reader_deviation`, of the AUROC between readers, a plan for each number of readers.

    Raises:
        InputError: An assumption is out of its range, or nothing would follow from it.
    """
    if not aurocs or prevalence is None:
        raise InputError("plan: without a pilot give --auroc A,B and --prevalence")
    if len(aurocs) > 2 or not all(0 < auroc < 1 for auroc in aurocs):
        words = ",".join(f"{auroc:g}" for auroc in aurocs)
        raise InputError(f"plan --auroc {words}: give one or two, between 0 and 1")
    if not 0 < prevalence < 1:
        raise InputError(f"plan --prevalence {prevalence}: is not between 0 and 1")
    if readers or reader_deviation is not None:
        return _assumed_readers(aurocs, prevalence, readers, reader_deviation)
    for name, value in (("--correlation", correlation), ("--within", within)):
        if value is not None and not 0 <= value < 1:
            raise InputError(f"plan {name} {value}: is not from 0 to below 1")
    images = images or [1]
    seeds = seeds or [1]
    if correlation is not None and len(aurocs) == 1:
        raise InputError("plan --correlation: is of two systems; leave it out, or give --auroc A,B")
    if within is not None and list(images) == [1]:
        raise InputError(
            "plan --within: is for several images of a patient; give --images, 2 or more"
        )
    between = _CORRELATION if correlation is None else correlation
    _check_seeds(seeds, seed_deviation, seed_correlation, between if len(aurocs) == 2 else 0.0)
    plans = {
        _plan_name(images, of_patient, seeds, n_seeds): AssumedPlan(
            tuple(aurocs),
            prevalence,
            between,
            of_patient,
            _CORRELATION if within is None else within,
            n_seeds,
            seed_deviation or 0.0,
            1.0 if seed_correlation is None else seed_correlation,
        )
        for of_patient in images
        for n_seeds in seeds
    }
    first = asdict(next(iter(plans.values())))
    note = (
        "Assumed: a patient's images are all positive or all negative, and a number of images is "
        "that of every patient; unequal numbers need more patients (--images rsna, nih, or a pilot)"
    )
    notes = () if list(images) == [1] else (note,)
    facts = {"kind": "assumed", **first, "images": list(images), "seeds": list(seeds)}
    return _Basis(plans, len(aurocs) == 2, facts, notes)


def _check_seeds(
    seeds: Sequence[int], deviation: float | None, alike: float | None, between: float
) -> None:
    """Refuse trainings of which too little is assumed; `between` is of two systems' scores."""
    if max(seeds) == 1 and (deviation, alike) != (None, None):
        option = "--seed-correlation" if deviation is None else "--seed-deviation"
        raise InputError(f"plan {option}: is for several trainings; give --seeds, 2 or more")
    if max(seeds) > 1 and (deviation is None or alike is None):
        raise InputError(
            "plan --seeds: how far trainings differ is not known; give --seed-deviation, of their "
            "AUROCs, as 0.01, and --seed-correlation, of their scores within a class, as 0.8"
        )
    if alike is not None and not between <= alike <= 1:
        raise InputError(f"plan --seed-correlation {alike:g}: is not from {between:g} to 1")


def _assumed_readers(
    aurocs: Sequence[float], prevalence: float, readers: Sequence[int], deviation: float | None
) -> _Basis:
    if len(aurocs) != 2 or (readers and min(readers) < 2):
        raise InputError("plan --readers: give --auroc A,B, and 2 readers or more")
    if deviation is None or not 0 <= deviation < 0.5:
        raise InputError(
            "plan --readers: how far readers differ is not known; give --reader-deviation, the "
            "standard deviation of their AUROCs, as 0.03, or the folder of a pilot"
        )
    plans = {
        counted(number, "reader"): CrossedPlan.assumed(aurocs, prevalence, number, deviation)
        for number in readers or _USUAL_READERS
    }
    facts = {"aurocs": list(aurocs), "prevalence": prevalence, "reader_deviation": deviation}
    note = (
        "Assumed, as in published tables (Obuchowski 2000; Rockette et al. 1999): errors of a "
        "reader's two AUROCs correlate by 0.47, those of different readers by 0.30, a reader's "
        "true AUROCs with both modalities by 0.8. A pilot is better: cxr readers, then its folder"
    )
    return _Basis(plans, True, {"kind": "assumed readers", **facts}, (note,))


def plans_of_readers(folder: Path, readers: Sequence[int] = ()) -> _Basis:
    """A study that follows from a pilot of `cxr readers`: a plan for each number of readers.

    Raises:
        InputError: The pilot has no variance components, or a reader would read alone.
    """
    if readers and min(readers) < 2:
        raise InputError("plan --readers: give 2 or more")
    pilot = read_json(folder / _READERS, "readers")
    parts = (pilot["crossed"].get(pilot["primary"]) or {}).get("components")
    if parts is None:
        raise InputError(
            f"{folder}: has no variance components; a pilot needs two modalities, each read by "
            "every reader"
        )
    share = pilot["n_positive"] / pilot["n_cases"]
    facts = {
        "kind": "readers",
        "pilot": str(folder),
        "pilot_cases": pilot["n_cases"],
        "share_positive": share,
        "components": parts,
    }
    plans = {
        counted(number, "reader"): CrossedPlan(Components(**parts), pilot["n_cases"], share, number)
        for number in readers or _USUAL_READERS
    }
    return _Basis(plans, True, facts)


def plans_of_predictions(parts: Mapping[str, Any], seeds: Sequence[int]) -> _Basis:
    """A study that follows from a pilot of predictions; without `seeds` the pilot's own number."""
    systems = list(parts.values())
    plans = {
        _plan_name([], 0, seeds, number): PilotPlan(systems, [number] * len(systems))
        for number in seeds
    } or {"": PilotPlan(systems)}
    first = next(iter(plans.values()))
    facts = {
        "kind": "pilot",
        "systems": list(parts),
        "pilot_patients": first.patients,
        "pilot_positives": first.positives,
        "images_of_a_patient": first.images,
        "variance_factors": list(first.variance_range()),
    }
    return _Basis(plans, len(systems) == 2, facts)


def _plan_name(
    all_images: Sequence[int | str], images: int | str, all_seeds: Sequence[int], seeds: int
) -> str:
    """What sets one plan apart from the others; empty where it is the only one."""
    words = []
    if len(all_images) > 1:
        words.append(
            f"images as in {images.upper()}"
            if isinstance(images, str)
            else f"{counted(images, 'image')} a patient"
        )
    if len(all_seeds) > 1:
        words.append(counted(seeds, "seed"))
    return ", ".join(words)


def _protocol_words(plan: AssumedPlan, number: str, power: float, level: float) -> str:
    """Which number to take, and what the published tables ask for: a reviewer may expect theirs."""
    positives = obuchowski_positives(
        plan.aurocs,
        correlation=plan.correlation,
        negatives_per_positive=(1 - plan.prevalence) / plan.prevalence,
        power=power,
        level=level,
    )
    return (
        f"Put {number} into the protocol: simulated studies of that size have the power that was "
        "asked for. A reviewer may know the published tables (Obuchowski and McClish 1997; one "
        "image a patient, one training): they ask for "
        f"{round(positives / plan.prevalence):,} patients, {round(positives):,} of them positive, "
        "because they leave out a covariance"
    )


@dataclass(frozen=True, repr=False)
class StudyPlan(ShownAsText):
    """What is asked of one planned study or of several, and the answers."""

    difference: float | None
    half_width: float | None
    power: float
    level: float  # coverage of the interval; 1 - alpha of the test
    basis: _Basis
    figures: tuple[Path, ...] = ()  # drawn of it

    def __str__(self) -> str:
        lines = list(self.sentences())
        first = self.basis.first
        own = self.basis.difference
        asked = isclose(self.difference or own, own) and all(r["patients"] for r in self.rows)
        if isinstance(first, AssumedPlan) and own and asked:
            number = "the number" if self.half_width is None else "the larger number"
            several = len(self.basis.plans) > 1
            number += " of the plan that you will carry out" if several else " above"
            lines.append(_protocol_words(first, number, self.power, self.level))
        return "\n".join([*lines, *(f"Figure: {path}" for path in self.figures)])

    def _repr_html_(self) -> str:
        return html_records(self.rows) + html_lines(str(self))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """An answer for each plan."""
        rows: list[dict[str, Any]] = []
        for name, plan in self.basis.plans.items():
            design = {"plan": name, **_design(plan)}
            if (difference := self.difference) is not None:
                row = self._row(plan, self.shows(self.power, difference))
                rows.append({**design, "power": self.power, **row})
            if (width := self.half_width) is not None:
                row = self._row(plan, lambda study: study.half_width(self.level) <= width)
                rows.append({**design, "wanted_half_width": width, **row})
        return rows

    def shows(self, power: float, difference: float) -> Callable[[PlannedStudy], bool]:
        """Whether a difference of this size is shown so often."""
        return lambda study: study.power(difference, self.level) >= power

    def _row(self, plan: Plan, enough: Callable[[PlannedStudy], bool]) -> dict[str, Any]:
        study = fewest_patients(plan, enough)
        if study is None:
            return {"patients": None}
        row: dict[str, Any] = {
            "patients": study.patients,
            "positives": study.positives,
            "standard_error": study.error,
            "half_width": study.half_width(self.level),
        }
        if isinstance(plan, PilotPlan):  # which is not sure of its own variance
            ends = [fewest_patients(plan.scaled(by), enough) for by in plan.variance_range()]
            row["patients_range"] = [None if end is None else end.patients for end in ends]
        return row

    def sentences(self) -> Iterator[str]:
        """Each answer in words, and what is assumed."""
        for row in self.rows:
            text = (f"{row['plan']}: " if row["plan"] else "") + self._in_words(row)
            yield text[0].upper() + text[1:]
        several = {max(row["seeds"]) > 1 for row in self.rows if "seeds" in row}
        if len(several) == 2:
            yield (
                "With one seed the result is for these trained models alone, with several for the "
                "way in which they were trained"
            )
        yield from self.basis.notes

    def _in_words(self, row: Mapping[str, Any]) -> str:
        shown = "power" in row
        if row["patients"] is None:
            wanted = "shows the difference so often" if shown else "makes the interval so short"
            return (
                f"no number of patients {wanted}: trainings or readers alone differ too much; plan "
                "for more of them"
            )
        who = f"{row['patients']:,} test patients, {row['positives']:,} of them positive"
        if not row["plan"]:  # whose name would tell
            who += _design_in_words(row)
        interval = f"{self.level:.0%} interval"
        if shown:
            text = (
                f"a true difference of {self.difference:g} is shown in {self.power:.0%} of studies "
                f"with {who}; the {interval} then has a half-width of {row['half_width']:.3f} on "
                "the mean"
            )
        else:
            text = f"the {interval} has a half-width of {self.half_width:g} on the mean with {who}"
        if "patients_range" in row:
            low, high = (f"{end:,}" if end else "no number" for end in row["patients_range"])
            text += f". The pilot is not sure of its variance: from {low} to {high} patients"
        return text

    def to_dict(self) -> dict[str, Any]:
        """The question and its answers, as `plan.json` holds them."""
        return {
            "basis": dict(self.basis.facts),
            "difference": self.difference,
            "half_width": self.half_width,
            "power": self.power,
            "level": self.level,
            "answer": list(self.sentences()),
            "studies": self.rows,
        }


def plan_study(
    basis: _Basis,
    difference: float | None = None,
    half_width: float | None = None,
    power: float | None = None,
    level: float = LEVEL,
) -> StudyPlan:
    """Ask how many patients show a difference, or make an interval so short.

    `difference` is the smallest that would matter: that of two assumed AUROCs if left out.
    `half_width` is of the interval, on the mean.

    Raises:
        InputError: Nothing is asked, or one system is asked for a difference.
    """
    difference = difference or basis.difference or None
    if not basis.compares and difference is not None:
        raise InputError("plan: one system has no difference; give two, or --half-width alone")
    if difference is None and half_width is None:
        wanted = (
            "--difference, the smallest that would matter" if basis.compares else "--half-width"
        )
        raise InputError(f"plan: give {wanted}")
    if difference is None and power is not None:
        raise InputError("plan --power: is for a difference; give --difference, or leave it out")
    return StudyPlan(difference, half_width, power or _POWER, level, basis)


def _design(plan: Plan) -> dict[str, Any]:
    """What a planned study has besides patients; seeds of each system."""
    if isinstance(plan, AssumedPlan):
        seeds = [plan.seeds] * len(plan.aurocs)
        return {"images_of_a_patient": plan.images, "seeds": seeds}
    if isinstance(plan, PilotPlan):
        return {"images_of_a_patient": plan.images, "seeds": plan.seeds}
    return {"readers": plan.readers}


def _design_in_words(row: Mapping[str, Any]) -> str:
    if "readers" in row:
        return f", read by {row['readers']} readers"
    images = row["images_of_a_patient"]
    seeds = list(dict.fromkeys(row["seeds"]))
    if isinstance(images, str):
        words = f"images as in {images.upper()}"
    else:
        words = "1 image each" if images == 1 else f"{images:.3g} images each"
    return f", {words}" + (f", {' and '.join(map(str, seeds))} seeds" if seeds != [1] else "")


def write_plan(plan: StudyPlan | GuaranteePlan, out: Path) -> tuple[Path, ...]:
    """Write ``figures/`` and, last, ``plan.json`` into a folder that is new or of a plan.

    Raises:
        InputError: The folder holds something else.
    """
    require_only_files(out, {_STORED, _FIGURES}, "plan")
    figures = out / _FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    drawn = []
    for chart in _charts(plan) if isinstance(plan, StudyPlan) else [_guarantee_chart(plan)]:
        drawn += save_figure(draw_with_legend(chart, []), figures / f"{chart.key}.png")
    write_json(out / _STORED, "plan", {**plan.to_dict(), "provenance": provenance()})
    return tuple(path for path in drawn if path.suffix == ".png")


def _guarantee_chart(plan: GuaranteePlan) -> Chart:
    found = [row["patients"] for row in plan.rows if row["patients"]] or [MOST_SIMULATED]
    low = max(min(found) / 4, 8)
    high = max(found) * 2
    patients = np.unique(np.geomspace(low, high, 16).astype(int))
    chances = [np.array([s.chance(int(n)) for n in patients]) for s in plan.shares.values()]
    curves = enumerate(zip(plan.shares, chances, strict=True))
    return Chart(
        key="guarantee",
        title="How often the guarantee gets a threshold",
        x=Axis.log("Validation patients", low, high),
        y=Axis("Chance"),
        curves=tuple(Curve(name, at, patients.astype(float), y) for at, (name, y) in curves),
        guides=(((low, high), (plan.power, plan.power)),),
        guide_label=f"{plan.power:.0%}",
        description="; ".join(plan.sentences()),
    )


def _charts(question: StudyPlan) -> Iterator[Chart]:
    answers = [row["patients"] for row in question.rows if row["patients"]]
    if not answers:
        return
    fewest = min(plan.least for plan in question.basis.plans.values())
    low = max(min(answers) / 5, fewest, 8)
    high = max(answers) * 3
    patients = np.unique(np.geomspace(low, high, 60).astype(int))
    axis = Axis.log("Test patients", low, high)
    if question.difference is not None:
        curves = tuple(_power_curves(question, patients))
        yield Chart(
            key="power",
            title="How often the difference is shown",
            x=axis,
            y=Axis("Power"),
            curves=curves,
            guides=(((low, high), (question.power, question.power)),),
            guide_label=f"{question.power:.0%}",
            description="; ".join(question.sentences()),
        )
    widths = []
    wanted = [] if question.half_width is None else [question.half_width]
    for at, (name, plan) in enumerate(question.basis.plans.items()):
        heights = [plan.study(int(n)).half_width(question.level) for n in patients]
        widths.append(Curve(name or "planned study", at, patients.astype(float), np.array(heights)))
    top = float(max(curve.y.max() for curve in widths))
    ticks = tuple((tick, f"{tick:g}".removeprefix("0") or "0") for tick in _steps(top))
    yield Chart(
        key="half_width",
        title="Half-width of the interval, on the mean",
        x=axis,
        y=Axis(f"Mean half-width of the {question.level:.0%} interval", ticks, 0.0, ticks[-1][0]),
        curves=tuple(widths),
        guides=tuple(((low, high), (width, width)) for width in wanted),
        guide_label="".join(f"{width:g}" for width in wanted),
        description="; ".join(question.sentences()),
    )


def _power_curves(question: StudyPlan, patients: np.ndarray) -> Iterator[Curve]:
    difference = question.difference or 0.0
    several = len(question.basis.plans) > 1
    shown = [
        (name, plan, share)
        for name, plan in question.basis.plans.items()
        for share in ((1.0,) if several else _SHARES)
    ]
    for at, (name, plan, share) in enumerate(shown):
        true = difference * share
        power = [plan.study(int(n)).power(true, question.level) for n in patients]
        label = name if several else f"difference {true:g}"
        study = fewest_patients(plan, question.shows(question.power, true))
        points: tuple[Point, ...] = ()
        if study is not None and study.patients <= patients[-1]:
            points = (Point(study.patients, question.power, f"{study.patients:,} patients"),)
        figure = "" if study is None else f"({study.patients:,} patients)"
        yield Curve(label, at, patients.astype(float), np.array(power), points, figure=figure)


def _steps(top: float) -> list[float]:
    """Four or five round ticks from 0 to at least `top`."""
    size = 10.0 ** np.floor(np.log10(top))
    step = next(size * n / 10 for n in (2, 2.5, 5, 10, 20, 25) if size * n / 10 * 5 >= top)
    return [float(round(step * n, 10)) for n in range(int(np.ceil(top / step)) + 1)]
