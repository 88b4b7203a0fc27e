"""Results on several findings: each finding, and the mean over all of them."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cxr_compare.data_prep.base.errors import ShownAsText, counted
from cxr_compare.data_prep.base.files import write_text
from cxr_compare.data_prep.base.records import Digests, Items, Record
from cxr_compare.data_prep.base.user_tables import write_csv
from cxr_compare.evaluation.findings import finding_tests, mean_table
from cxr_compare.evaluation.metrics import METRICS, metric_title
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.cells import PValue, shown_text, wide
from cxr_compare.evaluation.report.result import Result
from cxr_compare.evaluation.report.sections import Section
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.verdict.cautions import FEW_PATIENTS
from cxr_compare.evaluation.verdict.claims import Lookup
from cxr_compare.evaluation.verdict.margin import (
    GATE_STATUS,
    Gate,
    gate_line,
    gate_of,
)
from cxr_compare.evaluation.verdict.prose import joined_sentences, listing
from cxr_compare.evaluation.verdict.verdict import begun, state_answer

_MEAN = "Mean over findings"
_FEW_POSITIVE = 10
"""Positive patients below which a finding is marked."""
_TRUST = (
    "A mean average precision is too high on average where findings have few positive patients. In "
    "simulations of 14 findings on 100 patients, its interval missed the true mean in 2 % of the "
    "data sets with 8 to 40 % positive, and in 4 % with 4 to 40 %; that of a mean AUROC missed it "
    "in 3 to 5 %. Equal systems were said to differ in at most 5 %. docs/validity.md has the "
    "designs."
)


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
        left_out: Findings that are not evaluated, with the reason.
        gate: True if the exit status of the command is the decision by the margin.
    """

    results: Mapping[str, Result]
    macro: pd.DataFrame
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
        return cls(results, mean_table(made), left_out)

    @property
    def systems(self) -> list[str]:
        """Names of the systems, the reference first."""
        return self._one.systems

    @property
    def _one(self) -> Result:
        """The result on one of the findings, which has the names of the systems."""
        return next(iter(self.results.values()))

    @cached_property
    def tests(self) -> pd.DataFrame:
        """Differences of the AUROC for each finding and pair of systems."""
        return finding_tests({name: each.figures for name, each in self.results.items()})

    @property
    def exit_status(self) -> int:
        """Exit status of the command: 0, or of a gate what the margin shows on all findings."""
        return GATE_STATUS[self.margin] if self.gate else 0

    @property
    def margin(self) -> Gate | Literal[""]:
        """Decision by the stated margin on all systems and findings; empty without a margin.

        A finding that is left out cannot be told.
        """
        gates = [record["gate"] for record in self._margins.values() if record]
        if not gates:
            return ""
        return gate_of(gates + ["cannot tell"] * len(self.left_out))

    @property
    def _margins(self) -> dict[str, dict[str, Any]]:
        """Decisions by the margin of each finding."""
        return {name: each.answer.margin for name, each in self.results.items()}

    @property
    def headline(self) -> str:
        """Mean AUROC of each system, and which differences of it were shown."""
        return " ".join(self._sentences)

    @property
    def _sentences(self) -> list[str]:
        """The answer by means, margin and single findings, and what is left out."""
        sentences = []
        if self.margin:
            said = gate_line(self._margins, self.margin).partition(". ")[2]
            sentences.append(f"By the stated margin: {said}.")
        sentences += [text for metric in self._mean_metrics for text in self._sentences_of(metric)]
        if len(self.systems) > 1:
            sentences.append(self._single_findings)
        return [*sentences, *(f"Left out: {name} ({why})." for name, why in self.left_out.items())]

    def _answer(self, figures: Lookup, metric: str, name: str) -> str:
        """State which system is highest in a figure of all findings, and what it exceeds."""
        single, key = self._one.answer.single, (metric, "")
        claims = [figures.claim("answer", *pair, metric) for pair in combinations(single, 2)]
        corrected = len(claims) > 1
        said = state_answer(figures, single, name, claims, key=key, corrected=corrected)
        return f"{begun(said, single)}."

    @property
    def cautions(self) -> list[str]:
        """Reasons why the answer may be wrong: few patients."""
        inside = {name for names in self.macro["findings"] for name in names.split(",")}
        few = []
        for name, result in self.results.items():
            rows = result.figures[result.figures["metric"] == "auroc"]
            if name in inside and rows["effective_patients"].min() < FEW_PATIENTS:
                few.append(name)
        if not few:
            return []
        return [
            f"Intervals of the means may be too narrow, as {listing(few)} "
            f"{'has' if len(few) == 1 else 'have'} few positive or negative patients.",
        ]

    @property
    def must_say(self) -> list[str]:
        """Sentences that belong to the headline wherever it is quoted, with those of findings."""
        of_findings = {name: each.answer.must_say for name, each in self.results.items()}
        return [*self.cautions, *joined_sentences(of_findings)]

    @property
    def _mean_metrics(self) -> list[str]:
        """Figures whose means answer the question: AP50, too, if all systems give boxes.

        The one that decides comes first.
        """
        boxed = any("ap50" in each.answer.primary_metrics for each in self.results.values())
        names = ["auroc", "ap50"] if boxed else ["auroc"]
        return sorted(names, key=lambda name: name != self._one.answer.primary[0])

    def _sentences_of(self, metric: str) -> list[str]:
        """State what the mean of one figure shows, and which findings are not in it."""
        title = METRICS[metric].title
        means = self.macro[self.macro["metric"] == metric]
        if means.empty:
            return [f"No mean {title}: fewer than two findings have one with an interval."]
        inside = means["findings"].iloc[0].split(",")
        figures = Lookup(means.assign(policy="", n_images=float("nan")))
        name = f"mean {title} over {counted(len(inside), 'finding')}"
        sentences = [self._answer(figures, metric, name)]
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
            for pair in result.answer.shown_pairs:
                shown.setdefault(pair, []).append(name)
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
        """Primary figure of each system with its interval: a row a finding, and the mean last."""
        metric = self._one.answer.primary[0]
        rows, means = [self.rows], self.macro[self.macro["metric"] == metric]
        if len(means):
            of_systems = means[means["second"] == ""].assign(title=_MEAN)
            rows.append(wide(of_systems, "title", "first"))
        table = pd.concat(rows)[self.systems]
        return table.map(shown_text).rename_axis(metric_title(metric))

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Positive images, primary figure of each system, what a difference shows, by finding.

        Of two systems the difference is that of the one with the higher mean, minus the other.
        """
        rows = {name: self._row(result) for name, result in self.results.items()}
        table = pd.DataFrame.from_dict(rows, orient="index", dtype=object)
        return table.rename_axis(f"Finding ({metric_title(self._one.answer.primary[0])})")

    def _row(self, result: Result) -> dict[str, Any]:
        answer, rows = result.answer, result.of_systems
        metric, policy = answer.primary
        is_primary = (rows["metric"] == metric) & (rows["policy"] == policy)
        cells: dict[str, Any] = {"Positive images": answer.counts["positive"]}
        cells |= {
            row["first"]: Interval.from_row(row) for row in rows[is_primary].to_dict("records")
        }
        claims = answer.primary_claims
        if len(claims) == 1:
            (claim,) = claims
            name = f"{claim.first} − {claim.second} (95 % interval)"
            cells |= {name: claim, "p, corrected": PValue(claim.p_holm)}
        elif claims:
            higher = [f"{first} than {second}" for first, second in answer.shown_pairs]
            cells["Shown to be higher"] = "; ".join(higher) or "none"
        return cells

    @cached_property
    def means(self) -> pd.DataFrame:
        """Means over the findings: a row a figure, the AUROC first."""
        means = self.macro[self.macro["second"] == ""]
        if means.empty:
            return pd.DataFrame(columns=self.systems, dtype=object)
        numbers = [f", {len(each.split(','))} findings" for each in means["findings"]]
        titles = means["metric"].map(metric_title) + numbers
        named = titles.mask(means["metric"] == "auroc", "AUROC")
        return wide(means.assign(title=named), "title", "first").rename_axis("Mean")

    @property
    def sections(self) -> list[Section]:
        """Sections of the page: the findings, and the means over them."""
        notes = []
        if self.few:
            known = "patients" in self._one.answer.counts
            unit = "patients" if known else "patients (images, as no patient is known)"
            notes.append(f"† Fewer than ten positive {unit}: little can be said of this finding.")
        by, two = "patient" if "patients" in self._one.answer.counts else "image", ["", ""]
        if len(self._mean_metrics) > 1:
            two = [" in the two figures of the answer, AUROC and AP50", " in the two figures"]
        notes.append(
            f"Intervals are 95 % intervals by {by}. A p-value is corrected by Holm's method over "
            f"all findings and pairs of systems{two[0]} (of a joint system over the findings), "
            "here and in the report of each finding; that of a mean over the pairs"
            f"{two[1]}. A finding opens its report."
        )
        made = [Section("first", "", self.rows, notes, linked=self.results, marked=self.few)]
        if len(self.means):
            trust = "How far the means can be trusted"
            made.append(Section("first", "Means", self.means))
            made.append(Section("first", trust, pd.DataFrame(), [_TRUST], fold="always"))
        return made

    @property
    def _tested(self) -> str:
        """Numbers of test images and patients of all findings together."""
        rows = pd.concat([each.decisions for each in self.results.values()])
        text = f"{rows['image_id'].nunique():,} test {self._one.answer.units}"
        if "patient_id" in rows and self._one.answer.unit != "patient":
            text += f" of {counted(rows['patient_id'].nunique(), 'patient')}"
        return text

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
        means = self.macro.assign(target=_MEAN)
        return pd.concat([*rows, means], ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``cxr compare --json`` prints."""
        folders = {name: each.folder and str(each.folder) for name, each in self.results.items()}
        return {
            "headline": self.headline,
            "must_say": self.must_say,
            "macro": files.records_of(self.macro),
            "targets": folders,
            **({"gate": self.margin} if self.margin else {}),
        }

    def __str__(self) -> str:
        cautions = [f"Caution: {caution}" for caution in self.cautions]
        lines = [self.headline, *cautions, "", self.table.to_string(line_width=100)]
        lines += ["", f"Report: {self.page}"] if self.page else []
        lines += [gate_line(self._margins, self.margin)] if self.gate and self.margin else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.headline)}</p>{self.table.to_html()}"

    def save(self, folder: str | Path) -> ResultsByTarget:
        """Write one page for all findings, and a report folder for each of them."""
        return files.saved(self.write_all, folder, "report on several findings", self.results)

    def write_all(self, folder: Path) -> ResultsByTarget:
        """Write all files into a folder that nothing else writes to at this time.

        ``answers.json`` is written last, so its presence shows that the folder is complete.
        """
        from cxr_compare.evaluation.report.charts import draw_findings, drawn_once
        from cxr_compare.evaluation.report.page import render

        (folder / files.ANSWERS).unlink(missing_ok=True)
        saved = {name: each.save(folder / name) for name, each in self.results.items()}
        tables_of = [each.figures.assign(target=name) for name, each in self.results.items()]
        figures = pd.concat(tables_of, ignore_index=True)
        write_csv(figures, folder / files.FIGURES_CSV)
        write_csv(self.macro, folder / files.MACRO_CSV)
        chart = ""
        (folder / files.FINDINGS_CHART).unlink(missing_ok=True)
        if self.rows[self.systems].map(lambda cell: cell.known).any(axis=None):
            metric = self._one.answer.primary[0]
            drawing = partial(draw_findings, self.rows, self.systems, "finding", metric)
            file, chart = drawn_once(drawing, "findings", f"{metric_title(metric)} of each finding")
            (folder / files.FINDINGS_CHART).write_bytes(file)
        page = render(
            "targets.html.jinja",
            result=self,
            title=f"{counted(len(self.results), 'finding')} · {self._tested}",
            systems=self.systems,
            sentences=self._sentences,
            chart=chart,
        )
        write_text(folder / files.PAGE, page)
        record = AnswerByFinding(
            headline=self.headline,
            findings=tuple(self.results),
            left_out=dict(self.left_out),
            files=files.digests_of(folder, list(self.results)),
        )
        record.write(folder / files.ANSWERS)
        return replace(self, results=saved, page=folder / files.PAGE)
