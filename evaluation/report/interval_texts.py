"""Intervals, differences and tests of a report in words, from `IntervalFacts`."""

from __future__ import annotations

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.report.citations import Cite, uncited
from cxr_compare.evaluation.report.interval_facts import IntervalFacts

_FAMILIES = {
    "answer": "differences of the primary figure, on which the answer rests",
    "findings": "differences in the findings below the answer",
    "groups": "groups of images against all other images",
}


def interval_meaning(made: IntervalFacts) -> str:
    """Say what the interval of a single figure means."""
    if not made.single:
        return "This report has no intervals."
    return (
        "The method gives intervals that contain the true figure, of all patients like these, in "
        "95 % of test sets. An interval is not the range in which the figure of another study "
        "would fall, which is wider. The text to copy into a paper names each method."
    )


def difference_meaning() -> str:
    """Say how the interval of a paired difference is read."""
    return (
        "The figure of one system minus that of the other, on the same images. Two intervals may "
        "overlap although the difference is clear, so read the interval of the difference. If it "
        "includes 0, the systems were not shown to differ."
    )


def auroc_method(cite: Cite = uncited) -> str:
    """Describe the variance of an AUROC, and what intervals and tests make of it."""
    return (
        f"AUROC: Obuchowski's variance (1997){cite('obuchowski1997')}, summed by patient, each "
        "patient's part corrected for its share of the images after Mancl and DeRouen (2001)"
        f"{cite('manclderouen2001')}. Intervals and tests of differences use Student's t with "
        f"Satterthwaite's degrees of freedom{cite('satterthwaite1946')}, which follow from the "
        "fourth powers of the patients' parts and are at most those of the effective number of "
        "patients. The interval of a single AUROC is computed on the logit and cut at the exact "
        f"Clopper-Pearson interval{cite('clopperpearson1934')} of as many pairs of patients; the "
        "interval of a difference is on the plain scale."
    )


def counts_method(made: IntervalFacts, cite: Cite = uncited) -> str:
    """Describe the closed interval of a figure at a threshold."""
    text = (
        "Figures at a threshold: the interval of the printed threshold, from the four counts by "
        "patient. Shares of images have the jackknife variance over patients, which corrects each "
        f"patient's part for its share of the images{cite('manclderouen2001')}, and an interval on "
        "the logit with Student's t, cut at the exact interval of as many effective patients; F1 "
        "follows from TP / (TP + FP + FN). Balanced accuracy, MCC and likelihood ratios are "
        f"computed with one more patient of each outcome{cite('agresticaffo2000')}."
    )
    if made.chosen:
        text += (
            " Thresholds were chosen on validation images: other validation patients would have "
            "chosen others, which the intervals of single figures leave out and those of "
            "differences include."
        )
    return text


def families_text(made: IntervalFacts, cite: Cite = uncited) -> str:
    """Name the families over which Holm's method runs; empty if none has several comparisons."""
    if max(made.families.values(), default=0) < 2:
        return ""
    parts = [
        f"{_FAMILIES[name]} ({counted(size, 'test' if name == 'groups' else 'comparison')})"
        for name, size in made.families.items()
    ]
    within, where = "one family", "it"
    if len(parts) > 1:
        within = f"each of {len(parts)} families"
        where = f"a family, and at most {5 * len(parts)} % over all of them"
    text = (
        f"Several comparisons: Holm's method{cite('holm1979')} within {within}: "
        f"{'; '.join(parts)}. The chance of at least one false claim is at most 5 % in {where}."
    )
    if made.pairs:
        text += (
            " The table of every pair adjusts its p-values over the pairs of one figure at one "
            "threshold."
        )
    return text


def uncertainty_text(made: IntervalFacts, cite: Cite = uncited) -> str:
    """Name the methods of all intervals and tests, and cite them."""
    texts = []
    if "obuchowski" in made.all:
        texts.append(auroc_method(cite))
    if "counts" in made.all:
        texts.append(counts_method(made, cite))
    if "bootstrap" in made.all:
        n_resamples = "an unknown number of" if made.replicates is None else made.replicates
        text = (
            f"Other figures and differences: patient-cluster bootstrap{cite('fieldwelsh2007')}, "
            f"{n_resamples} resamples (percentiles, expanded for few patients"
            f"{cite('hesterberg2015')}), the same for all systems"
        )
        if made.refitted:
            text += ", with thresholds chosen again on resampled validation patients"
        elif made.has_thresholds:
            text += ", with fixed thresholds"
        if made.fixed:
            text += f"; choices that stay fixed: {listing(made.fixed)}"
        texts.append(f"{text}.")
    if "exact" in made.all:
        texts.append(
            f"Shares of 0 or 1: exact Clopper-Pearson intervals{cite('clopperpearson1934')}, with "
            "patients (for AUROC, pairs of patients) as trials."
        )
    if "seeds" in made.all:
        texts.append(
            "Several training seeds: analysis of Obuchowski and Rockette"
            f"{cite('obuchowskirockette1995')} with Hillis' degrees of freedom"
            f"{cite('hillis2007')}, seeds random."
        )
    texts.append(families_text(made, cite))
    if not made.all:
        texts.append("No intervals were computed.")
    return " ".join(text for text in texts if text)
