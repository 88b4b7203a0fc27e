"""Sentences of a reader study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number

NO_INTERVAL = "no interval, because nothing varies"
NOT_EQUAL = "Not shown to differ is not the same as equal."
PROGRAM_NOTE = (
    "All are of the differences “reader minus system”. MS(R): mean square between readers, which "
    "RJafroc prints as varR. Var(R) = MS(R) − Var(error) + Cov2: variance between readers that "
    "errors over cases do not explain. Cov2: two readers. Var(error): one reader. A negative "
    "variance is reported as it was estimated."
)
COMPONENTS_NOTE = (
    "Var(R): readers. Var(TR): readers by modalities. Cov1: same reader, other modality. Cov2: "
    "other reader, same modality. Cov3: both differ. A negative variance is reported as it was "
    "estimated."
)
DESIGN_NESTED = "nested: readers differ by modality"
DESIGN_SYSTEM = "readers against a stand-alone system"


# Statements


def mean(readers: str, metric: str, value: float, interval: str, scope: str) -> str:
    """Give the mean figure of readers."""
    return f"{readers} had a mean {metric} of {number(value)} ({interval}), {scope}."


def difference(verdict: str, gap: float, interval: str, scope: str) -> str:
    """Give a difference after the words on what it shows."""
    return f"{verdict}: difference {number(gap)} ({interval}), {scope}."


def overall_differ(metric: str, modalities: int, test: str, scope: str) -> str:
    """Say that modalities differ by the overall test."""
    return (
        f"Readers' {metric} differed between the {modalities} modalities: overall test {test}, "
        f"{scope}."
    )


def overall_open(metric: str, modalities: int, test: str, scope: str) -> str:
    """Say that modalities are not shown to differ by the overall test."""
    return (
        f"Readers' {metric} was not shown to differ between the {modalities} modalities: overall "
        f"test {test}, {scope}."
    )


def overall_weak(freedom: int | None, least: float) -> str:
    """Say why a small p-value of the overall test is not enough."""
    # Share of simulated studies without a difference: design reader_model of docs/validity.csv.
    return (
        f"This p-value is not enough: with fewer than {least} degrees of freedom between readers "
        f"(here {freedom}), the overall test shows a difference in up to 9 % of simulated studies "
        "without one. A pair must then be shown to differ as well, and none is."
    )


def pairs_shown(shown: int, pairs: int, overall: bool) -> str:
    """Say how many pairs of modalities are shown to differ; ``overall`` is the overall test's."""
    verb = "is" if shown == 1 else "are"
    if not overall:
        return (
            f"{shown} of {pairs} pairs of modalities {verb} nevertheless shown to differ, by "
            "intervals that hold for all comparisons at once."
        )
    if shown:
        return f"{shown} of {pairs} pairs of modalities {verb} shown to differ."
    return (
        "Which of them differ is not shown: no pair is, with intervals that hold for all "
        "comparisons at once."
    )


def small_p_value(p: str, freedom: int | None, comparisons: int, p_of_claim: str) -> str:
    """Say why a small p-value does not show a difference."""
    corrected = f"for all {comparisons} comparisons at once"
    if freedom is None:
        return f"By itself {p}, but {corrected} (Bonferroni) it is {p_of_claim}."
    also = f" and {corrected}" if comparisons > 1 else ""
    return (
        f"The published {p} is not enough with {counted(freedom, 'degree')} of freedom between "
        f"readers: by the cautious interval{also} it is {p_of_claim}."
    )


def program_components(metric: str, readers: str, system: str, parts: Mapping[str, str]) -> str:
    """Give the variance components of readers against a system."""
    return (
        f"Variance components of the difference in {metric}, {readers} minus {system}: "
        f"{parts['reader']} between readers (Var(R)), {parts['cov2']} shared by two readers "
        f"(Cov2), {parts['error']} of one reader over cases (Var(error)); mean square between "
        f"readers {parts['mean_square']}."
    )


def system_higher(first: str, second: str, metric: str) -> str:
    """Say that a system or readers are higher."""
    return f"{first} had a higher {metric} than {second}"


def system_open(first: str, second: str, metric: str) -> str:
    """Say that a system and readers are not shown to differ."""
    return f"{first} and {second} were not shown to differ in {metric}"


def modality_higher(first: str, second: str, metric: str) -> str:
    """Say that readers are higher with a modality."""
    return f"Readers' {metric} was higher for {first} than for {second}"


def modality_open(first: str, second: str, metric: str) -> str:
    """Say that readers are not shown to differ between modalities."""
    return f"Readers' {metric} was not shown to differ between {first} and {second}"


def readers(label: str, figure: str, inside: bool) -> str:
    """Name readers, with modality and figure in brackets; ``inside`` is within a sentence."""
    brackets = ": ".join(text for text in (label, figure) if text)
    return ("readers" if inside else "Readers") + (f" ({brackets})" if brackets else "")


def named(name: str, figure: str) -> str:
    """Name a system or modality, with its figure in brackets."""
    return f"{name} ({figure})" if figure else name


def modality(name: str) -> str:
    """Name a modality inside a sentence."""
    return f"modality {name}" if name.isdigit() else f"“{name}”"


def interval(level: str, comparisons: int, ends: str, cautious: bool) -> str:
    """Name the kind of an interval before its ends."""
    text = "cautious " if cautious else ""
    if comparisons > 1:
        return f"{text}simultaneous {level} interval of {comparisons} comparisons {ends}"
    return f"{text}{level} interval {ends}"


def scope(kind: str, n_readers: int | None, alone: Sequence[str], fixed_cases: int | None) -> str:
    """Say for which readers and cases a result holds."""
    if kind == "random_both":
        return "for readers and cases like these"
    text = "for readers like these"
    if kind == "one_reader":
        text = "for this reader"
    elif kind == "these_readers":
        text = f"for these {n_readers} readers"
    elif kind == "readers_alone":
        text = f"for readers like these (with {listing(alone)}, for its one reader)"
    if fixed_cases is None:
        return f"{text} and cases like these"
    return f"{text} on these {counted(fixed_cases, 'case')}"


# Notes


def few_patients(count: int, label: str, few: int) -> str:
    """Say that a class has few patients."""
    return (
        f"Only {counted(count, 'patient', 'have')} {label} cases. Below {few}, intervals may be "
        "too narrow."
    )


def one_reader(modality: str) -> str:
    """Say that one reader used a modality."""
    return f"One reader used {modality}, so it is unknown how readers differ there."


def few_freedom(freedoms: Sequence[float], least: float) -> str:
    """Say what few degrees of freedom do to published tests."""
    return (
        f"With fewer than {least} degrees of freedom between readers (here "
        f"{listing(list(map(str, freedoms)))}), published tests of a pair show a difference in up "
        "to 11 % of simulated studies without one. Such statements rest on cautious intervals, "
        "which are as wide as the published ones of the tables or wider."
    )


def few_readers(means: Sequence[str], least: float) -> str:
    """Say what few readers do to published intervals; ``means`` name a mean and its interval."""
    return (
        f"With fewer than {least} readers, a published 95 % interval contains the true mean in 88 "
        f"to 94 % of simulated studies. Cautious intervals of the mean: {listing(means)}."
    )


def undecided_systems(names: Sequence[str]) -> str:
    """Name the systems that made no decisions."""
    return f"{listing(names)} made no decisions, so there is no sensitivity or specificity."


def unread_cases(count: int, total: int) -> str:
    """Say how many cases nobody read."""
    return (
        f"{count:,} of {counted(total, 'case')} were read by nobody and are left out, for systems "
        "too."
    )


def incomplete(
    incomplete: int, total: int, reader: str, modality: str, read: int, cases: int
) -> str:
    """Say how many readings lack cases."""
    return (
        f"{incomplete} of {total} readings lack cases; the first is of reader {reader} with "
        f"{modality}, {read:,} of {cases:,}. Each figure is for the cases that were read, and the "
        "covariance accounts for this. That is fair only if the choice of cases has nothing to do "
        "with their difficulty."
    )


# Page and charts


def kicker(readers: int, cases: int, patients: int, positive: int) -> str:
    """Return the line above the answer."""
    return (
        f"Reader study · {counted(readers, 'reader')} · {counted(cases, 'case')} of "
        f"{counted(patients, 'patient')}, {positive:,} positive"
    )


def simultaneous(comparisons: int) -> str:
    """Say for how many comparisons intervals hold at once."""
    return f"The intervals here hold for all {comparisons} comparisons at once (Bonferroni)."


def no_overall(modalities: int) -> str:
    """Say why there is no overall test."""
    return (
        f"There is no overall test of the {modalities} modalities: it needs two or more readers, "
        "all of whom read with each modality."
    )


def differences_lead(metric: str, with_claims: bool) -> str:
    """Say what the table of differences holds."""
    claims = "The p of the claim is what a statement rests on. " if with_claims else ""
    return (
        "Each interval and p is by the published method, and for that comparison alone. "
        f"{claims}Only {metric} decides the answer above; other figures are exploratory."
    )


def claim_basis(comparisons: int, freedom: int | None) -> str:
    """Name what the p-value of a claim rests on."""
    parts = []
    if freedom is not None:
        parts.append(f"cautious: {counted(freedom, 'degree')} of freedom between readers")
    if comparisons > 1:
        parts.append(f"Bonferroni, {comparisons} comparisons")
    return "; ".join(parts) or "the published p"


def overall_verdict(decided: bool, significant: bool, freedom: int | None, least: float) -> str:
    """Say in a table what the overall test shows."""
    if decided:
        return "differ"
    if significant and freedom is not None:
        return (
            f"not shown: {counted(freedom, 'degree')} of freedom between readers, fewer than "
            f"{least}, and no pair is shown"
        )
    return "not shown to differ"


def overall_test(upper: int, lower: float | None, statistic: float, p: str) -> str:
    """Write a test of several means; ``lower`` is None for a chi-square test."""
    name = f"χ²({upper})" if lower is None else f"F({upper}, {lower:.2f})"
    return f"{name} = {statistic:.2f}, {p}"


def not_enough(overall: str) -> str:
    """Say that an overall test is not enough."""
    return f"{overall}; not enough for a claim, see the comparisons"


def design_crossed(both: int, readers: int | None) -> str:
    """Describe a crossed design; ``readers`` is None if all used both modalities."""
    return f"crossed, by the {both} of {readers} readers with both" if readers else "crossed"


def chart_title(curve: str) -> str:
    """Return the title of the chart; ``curve`` is empty without curves."""
    return f"{curve}, mean of readers" if curve else "Each reader, and the mean"


def chart_note(curves: bool, decisions: bool) -> str:
    """Say what the chart draws."""
    parts = []
    if curves:
        parts.append(
            "The mean is the mean height of the readers' curves at each position of the axis."
        )
    if decisions:
        parts.append("Dots are decisions of one reader; diamonds are their mean, or a system.")
    return " ".join(parts)
