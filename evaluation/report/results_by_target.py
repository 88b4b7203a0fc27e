"""Results on several findings: each finding, and the mean over all of them."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from cxr_compare.data_prep.base.errors import ShownAsText, counted
from cxr_compare.data_prep.base.files import (
    folder_lock,
    write_text,
)
from cxr_compare.data_prep.base.folders import require_writable
from cxr_compare.data_prep.base.records import Digests, Items, Record
from cxr_compare.data_prep.base.user_tables import write_csv
from cxr_compare.evaluation.findings import finding_tests, mean_table
from cxr_compare.evaluation.keywords import with_known_keywords
from cxr_compare.evaluation.metrics import METRICS, metric_title
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.cells import PValue, cell_text, wide
from cxr_compare.evaluation.report.result import Result
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.verdict.cautions import FEW_PATIENTS
from cxr_compare.evaluation.verdict.claims import Lookup
from cxr_compare.evaluation.verdict.margin import GATE_STATUS, Gate, gate_line, gate_of
from cxr_compare.evaluation.verdict.prose import joined_sentences, listing
from cxr_compare.evaluation.verdict.verdict import begun, state_answer

_MEAN = "Mean over findings"
_FEW_POSITIVE = 10
"""Positive patients below which a finding is marked."""
_WORST = 3
_WORST_SIDE = 720
"""Pictures of the findings with the lowest AUROC, and their longer side in px."""


class AnswerByFinding(Record, kind="answers"):
    """Content of ``answers.json``, the record of a report on several findings.

    Attributes:
        headline: Main conclusion of all findings.
        findings: Findings that were compared, each with a report in the folder of its name.
        left_out: Findings that were not, with the reason.
        files: SHA-256 of all files, and of the record of each report, by name.
    """

    headline: str
    findings: Items[str]
    left_out: dict[str, str]
    files: Digests


@dataclass(frozen=True, repr=False)
class ResultsByTarget(ShownAsText):
    """Results on several findings, and the mean of their figures.

    Attributes:
        results: Result on each finding, by its name.
        macro: Means over the findings with 95 % intervals, for systems and pairs of systems.
        tests: Differences of the AUROC for each finding and pair of systems.
        left_out: Findings that are not evaluated, with the reason.
        gate: True if the exit status of the command is the decision by the margin.
    """

    results: Mapping[str, Result]
    macro: pd.DataFrame
    tests: pd.DataFrame
    left_out: Mapping[str, str]
    page: Path | None = None
    gate: bool = False

    @classmethod
    def of(
        cls,
        results: Mapping[str, Result],
        left_out: Mapping[str, str],
    ) -> ResultsByTarget:
        """Compute means and tests of results in memory, on the same resamples of patients."""
        made = {name: each.comparison for name, each in results.items() if each.comparison}
        single = {name: _pairs_of(each) for name, each in results.items()}
        return cls(results, mean_table(made), finding_tests(single), left_out)

    @classmethod
    def open(cls, folder: Path) -> ResultsByTarget:
        """Open the folder of a finished report on several findings."""
        record = AnswerByFinding.read(folder / files.ANSWERS)
        results = {name: Result.open(folder / name) for name in record.findings}
        macro, tests = (
            numbers_of_means(pd.read_csv(folder / name, dtype=str, keep_default_na=False))
            for name in (files.MACRO_CSV, files.TESTS_CSV)
        )
        return cls(results, macro, tests, record.left_out, folder / files.PAGE)

    @property
    def systems(self) -> list[str]:
        """Names of the systems, the reference first."""
        return self._one.systems

    @property
    def _one(self) -> Result:
        """The result on one of the findings, which has the names of the systems."""
        return next(iter(self.results.values()))

    @property
    def exit_status(self) -> int:
        """Exit status of the command: 0, or of a gate what the margin shows on all findings."""
        return GATE_STATUS[self.margin] if self.gate else 0

    @property
    def margin(self) -> Gate | Literal[""]:
        """Decision by the stated margin on all systems and findings; empty without a margin.

        A finding that is left out cannot be told.
        """
        margins = [each.answer.margin for each in self.results.values()]
        if not all(margins):
            return ""
        decisions = [
            each
            for margin in margins
            for figure in margin["figures"].values()
            for each in figure["decisions"].values()
        ]
        decisions += ["cannot tell"] if self.left_out else []
        return gate_of(decisions)

    @property
    def headline(self) -> str:
        """Mean AUROC of each system, and which differences of it were shown."""
        return " ".join(self._sentences)

    @property
    def _sentences(self) -> list[str]:
        """The answer by the mean AUROC, which single findings differ, and what is left out."""
        left_out = [f"Left out: {name} ({why})." for name, why in self.left_out.items()]
        single = [self._single_findings] if len(self.systems) > 1 else []
        margin = [self._margin_sentence] if self.margin else []
        return [*self._mean_sentences, *margin, *single, *left_out]

    @property
    def _margin_sentence(self) -> str:
        """The decision by the margin on all findings, with those that stand against it."""
        shown: dict[str, list[str]] = {"worse": [], "cannot tell": []}
        for finding, result in self.results.items():
            margin = result.answer.margin
            for metric, figure in margin["figures"].items():
                several = len(margin["figures"]) > 1
                of = f"{finding}, {METRICS[metric].inside}" if several else finding
                for name, decision in figure["decisions"].items():
                    if decision in shown:
                        shown[decision].append(f"{name} ({of})")
        shown["cannot tell"] += [f"{finding} (left out)" for finding in self.left_out]
        further = [METRICS[name].inside for name in [*margin["figures"]][1:]]
        titles = [result.answer.primary_title, *further]
        stated = [
            f"{figure['margin']:g} in {title}"
            for figure, title in zip(margin["figures"].values(), titles, strict=True)
        ]
        begin = f"By the stated margin of {listing(stated)}, "
        parts = [
            f"{text} {listing(shown[decision])}"
            for decision, text in (
                ("worse", f"worse than {margin['reference']} by more:"),
                ("cannot tell", "it cannot be told of"),
            )
            if shown[decision]
        ]
        if not parts:
            return f"{begin}no system is worse than {margin['reference']} by more in any finding."
        return f"{begin}{'; '.join(parts)}."

    @property
    def cautions(self) -> list[str]:
        """Reasons why the mean over findings may be wrong: findings of few patients."""
        inside = {name for names in self.macro["findings"] for name in names.split(",")}
        few = []
        for name, result in self.results.items():
            rows = result.figures[result.figures["metric"] == "auroc"]
            if name in inside and rows["effective_patients"].min() < FEW_PATIENTS:
                few.append(name)
        if not few:
            return []
        return [
            f"Intervals of the means are too narrow, as {listing(few)} "
            f"{'has' if len(few) == 1 else 'have'} few patients of a class."
        ]

    @property
    def must_say(self) -> list[str]:
        """Sentences that belong to the headline wherever it is quoted, with those of findings."""
        of_findings = {name: each.answer.must_say for name, each in self.results.items()}
        return [*self.cautions, *joined_sentences(of_findings)]

    @property
    def _mean_sentences(self) -> list[str]:
        """The answer by the mean AUROC and, if all systems give boxes, by the mean AP50."""
        metrics = ["auroc", *(["ap50"] if self.has_two_figures else [])]
        return [sentence for metric in metrics for sentence in self._sentences_of(metric)]

    @property
    def has_two_figures(self) -> bool:
        """True if AUROC and AP50 answer the question."""
        return any("ap50" in each.answer.primary_metrics for each in self.results.values())

    def _sentences_of(self, metric: str) -> list[str]:
        """State what the mean of one figure shows, and which findings are not in it."""
        title, single = METRICS[metric].title, self._one.answer.single
        means = self.macro[self.macro["metric"] == metric]
        if means.empty:
            return [f"No mean {title}: fewer than two findings have one with an interval."]
        inside = means["findings"].iloc[0].split(",")
        figures = Lookup(means.assign(policy="", n_images=float("nan")))
        claims = [figures.claim("answer", *pair, metric) for pair in combinations(single, 2)]
        name = f"mean {title} over {counted(len(inside), 'finding')}"
        corrected = len(claims) > 1
        said = state_answer(figures, single, name, claims, key=(metric, ""), corrected=corrected)
        sentences = [f"{begun(said, single)}."]
        if outside := [name for name in self.results if name not in inside]:
            why = "an AUROC there has no interval, or is exactly 0 or 1"
            if METRICS[metric].interval != "ranks":
                why = f"an {title} there has no interval"
            sentences.append(f"Not in this mean: {listing(outside)}, because {why}.")
        return sentences

    @property
    def _single_findings(self) -> str:
        """Sentence on which system was shown to be higher in which findings."""
        shown: dict[tuple[str, str], list[str]] = {}
        for name, result in self.results.items():
            for claim in result.answer.claims:
                is_first = claim["metric"] == result.answer.primary[0]
                if claim["family"] == "answer" and is_first and claim["higher"]:
                    pair = claim["first"], claim["second"]
                    key = pair if claim["higher"] == claim["first"] else pair[::-1]
                    shown.setdefault(key, []).append(name)
        title = self._one.answer.primary_title
        if not shown:
            return f"No single finding has a shown difference in {title}."
        parts = [
            f"{higher} exceeds {lower} in {listing(names)}"
            for (higher, lower), names in shown.items()
        ]
        return f"Shown in {title} of single findings: {'; '.join(parts)}."

    @property
    def table(self) -> pd.DataFrame:
        """AUROC of each system with its interval as text: a row a finding, and the mean last."""
        table = pd.concat([self.rows, self.means[self.means.index == _MEAN]])[self.systems]
        return table.map(cell_text).rename_axis("Finding")

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Positive images, AUROC of each system and what their difference shows: a row a finding.

        Of two systems the difference is that of the one with the higher mean, minus the other.
        """
        rows = {name: self._row(result) for name, result in self.results.items()}
        table = pd.DataFrame.from_dict(rows, orient="index", dtype=object)
        return table.rename_axis("Finding")

    def _row(self, result: Result) -> dict[str, Any]:
        aurocs = result.figures[result.figures["metric"] == "auroc"]
        alone = aurocs[aurocs["second"] == ""]
        cells: dict[str, Any] = {"Positive images": result.answer.counts["positive"]}
        cells |= {row["first"]: Interval.from_row(row) for row in alone.to_dict("records")}
        claims = [each for each in result.answer.claims if each["family"] == "answer"]
        claims = [each for each in claims if each["metric"] == result.answer.primary[0]]
        if len(claims) == 1 and result.answer.primary[0] == "auroc":
            (claim,) = claims
            gap, name = Interval.from_row(claim), f"{claim['first']} − {claim['second']}"
            cells |= {f"{name} (95 % interval)": gap, "p, corrected": PValue(claim["p_holm"])}
        elif claims:
            higher = [f"{c['higher']} than {_other(c)}" for c in claims if c["higher"]]
            cells["Shown to be higher"] = "; ".join(higher) or "none"
        return cells

    @cached_property
    def means(self) -> pd.DataFrame:
        """Means over the findings: a row a figure, the AUROC first."""
        means = self.macro[self.macro["second"] == ""]
        if means.empty:
            return pd.DataFrame(columns=self.systems, dtype=object)
        numbers = [f"{len(each.split(','))} findings" for each in means["findings"]]
        titles = means["metric"].map(metric_title) + ", " + pd.Series(numbers, means.index)
        named = titles.mask(means["metric"] == "auroc", _MEAN)
        return wide(means.assign(title=named), "title", "first").rename_axis("Mean")

    @property
    def few(self) -> list[str]:
        """Findings of which fewer than ten patients (or images) are positive."""
        numbers = {}
        for name, result in self.results.items():
            rows = result.decisions[result.decisions["label"] >= 1]
            unit = "patient_id" if "patient_id" in rows else "image_id"
            numbers[name] = rows[unit].nunique()
        return [name for name, number in numbers.items() if number < _FEW_POSITIVE]

    def to_frame(self) -> pd.DataFrame:
        """Return all figures and differences of all findings, and the means, one row each."""
        rows = [each.to_frame().assign(target=name) for name, each in self.results.items()]
        return pd.concat([*rows, self.macro.assign(target=_MEAN)], ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``cxr compare --json`` prints."""
        macro = self.macro.astype(object).where(self.macro.notna(), None).to_dict("records")
        folders = {name: each.folder and str(each.folder) for name, each in self.results.items()}
        return {
            "headline": self.headline,
            "must_say": self.must_say,
            "macro": macro,
            "targets": folders,
            **({"gate": self.margin} if self.margin else {}),
        }

    def __str__(self) -> str:
        cautions = [f"Caution: {caution}" for caution in self.cautions]
        lines = [self.headline, *cautions, "", self.table.to_string(line_width=100)]
        lines += ["", f"Report: {self.page}"] if self.page else []
        records = {name: each.answer.margin for name, each in self.results.items()}
        lines += [gate_line(records, self.margin)] if self.gate and self.margin else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.headline)}</p>{self.table.to_html()}"

    @with_known_keywords
    def save(self, folder: str | Path) -> ResultsByTarget:
        """Write one page for all findings, and a report folder for each of them."""
        folder = Path(folder)
        require_writable(folder, "report on several findings", self.results, overwrite=True)
        with folder_lock(folder):
            return self.write_all(folder)

    def write_all(self, folder: Path) -> ResultsByTarget:
        """Write all files into a folder that nothing else writes to at this time.

        ``answers.json`` is written last, so its presence shows that the folder is complete.
        """
        (folder / files.ANSWERS).unlink(missing_ok=True)
        saved = {name: each.save(folder / name) for name, each in self.results.items()}
        return replace(self, results=saved).write(folder)

    def write(self, folder: Path) -> ResultsByTarget:
        """Write the page and the tables of all findings beside the reports of each."""
        from cxr_compare.evaluation.report.charts import findings_chart
        from cxr_compare.evaluation.report.page import render

        tables_of = [each.figures.assign(target=name) for name, each in self.results.items()]
        figures = pd.concat(tables_of, ignore_index=True)
        write_csv(figures, folder / files.FIGURES_CSV)
        write_csv(self.macro, folder / files.MACRO_CSV)
        write_csv(self.tests, folder / files.TESTS_CSV)
        file, chart = findings_chart(self.rows, self.systems)
        (folder / files.FINDINGS_CHART).write_bytes(file)
        page = render(
            "targets.html.jinja",
            result=self,
            systems=self.systems,
            linked=self.results,
            marked=self.few,
            sentences=self._sentences,
            chart=chart,
            worst=self._worst(),
        )
        write_text(folder / files.PAGE, page)
        record = AnswerByFinding(
            headline=self.headline,
            findings=tuple(self.results),
            left_out=dict(self.left_out),
            files=files.digests_of(folder, list(self.results)),
        )
        record.write(folder / files.ANSWERS)
        return replace(self, page=folder / files.PAGE)

    def _worst(self) -> list[dict[str, str]]:
        """Return the first drawing of the findings with the lowest AUROC of the best system."""
        from cxr_compare.evaluation.report.overlay_page import picture_source

        best = self.rows[self.systems].map(lambda cell: cell.estimate).max(axis="columns")
        pictures: list[dict[str, str]] = []
        for name in best.sort_values().index:
            result = self.results[name]
            drawn = result.answer.overlays
            if not drawn or result.folder is None or len(pictures) == _WORST:
                continue
            image, file = next(iter(drawn.items()))
            with Image.open(result.folder / files.OVERLAYS / file) as picture:
                source = picture_source(np.asarray(picture), _WORST_SIDE, 82)
            title = f"{name}: {result.cases()['kind'].iloc[0]}"
            pictures.append({"name": name, "title": title, "image": image, "src": source})
        return pictures


def _other(claim: Mapping[str, Any]) -> str:
    """Return the system of a claim that was shown to be lower."""
    return str(claim["second"] if claim["higher"] == claim["first"] else claim["first"])


def _pairs_of(result: Result) -> pd.DataFrame:
    """Return the figures of systems and of pairs of systems."""
    systems = [*result.systems, ""]
    figures = result.figures
    return figures[figures["first"].isin(systems) & figures["second"].isin(systems)]


def numbers_of_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of means or differences, read as texts, with its numbers as numbers."""
    numbers = ["estimate", "ci_low", "ci_high", "p_value", "p_holm"]
    return table.assign(**table[numbers].apply(pd.to_numeric))
