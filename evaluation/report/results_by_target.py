"""Results on several findings: each finding, and the mean over all of them."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.notebook import ShownAsText
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.macro_means import finding_tests, macro_table
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.metric_table import image_count
from cxr_compare.evaluation.report.result import Result, known_of_any
from cxr_compare.evaluation.report.table import Table, text_table, value_text
from cxr_compare.evaluation.report.templates import render
from cxr_compare.evaluation.report.unknown_patients import image_wording
from cxr_compare.evaluation.statistics.figure_text import p_equation, p_value_text
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval
from cxr_compare.evaluation.verdict.claims import same

_MACRO = "mean over findings"
_MOST_NAMED = 6  # findings in a sentence; the table has all


@dataclass(frozen=True, repr=False)
class ResultsByTarget(ShownAsText):
    """Results on several findings (disease signs), and the mean of their figures.

    Attributes:
        results: Result on each finding, by the finding's name, such as ``mass``.
        titles: Name of each finding as reports show it.
        macro: Means over the findings with 95 % intervals, as `evaluation.macro_means.macro_table`
            returns them: one row for each figure of a system and of a pair of systems.
        tests: Paired differences of the AUROC, one row for each finding and pair of systems, with
            ``p_holm`` corrected for all of them.
        left_out: Findings that are in no mean of the AUROC, with the reason.
        page: Path of the HTML page; None if no report was written.

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> import cxr_compare
        >>> n = np.arange(80)
        >>> truth = pd.DataFrame({"mass": n % 2, "edema": n // 2 % 2})
        >>> scores = truth * 0.4 + pd.DataFrame({"mass": n % 5, "edema": n % 7}) / 20
        >>> results = cxr_compare.compare({"A": scores}, truth=truth, target="all", replicates=100)
        >>> list(results.results)
        ['mass', 'edema']
    """

    results: Mapping[str, Result]
    titles: Mapping[str, str]
    macro: pd.DataFrame
    tests: pd.DataFrame
    left_out: Mapping[str, str]
    page: Path | None = None

    @classmethod
    def of_results(
        cls, results: Mapping[str, Result], titles: Mapping[str, str], left_out: Mapping[str, str]
    ) -> ResultsByTarget:
        """Compute the means and tests of results that are in memory.

        All results are on the same resamples of the same patients. `left_out` has the findings that
        were not evaluated, with the reason.
        """
        comparisons = {
            name: result.compared.comparison
            for name, result in results.items()
            if result.compared is not None
        }
        macro = macro_table(comparisons)
        means = macro.loc[macro["metric"] == "auroc", "findings"]
        in_mean = means.iloc[0].split(",") if len(means) else []
        reasons = dict(left_out)
        for name, each in comparisons.items():
            if name not in in_mean:
                figures = [each.figures.get(system, "auroc") for system in each.names]
                notes = [figure.note for figure in figures if not figure.bounded]
                reasons[name] = notes[0] if notes else "the only finding"
        return cls(results, titles, macro, finding_tests(comparisons), reasons)

    @property
    def systems(self) -> list[str]:
        """Names of the systems, the reference first."""
        return next(iter(self.results.values())).systems

    @property
    def headline(self) -> str:
        """The answer in sentences: the mean AUROC over findings, and the findings that differ."""
        sentences = [self._sentence_on_means(), *self._sentences_on_findings()]
        if self.left_out:
            by_reason: dict[str, list[str]] = {}
            for name, why in self.left_out.items():
                by_reason.setdefault(why, []).append(self._title(name))
            reasons = [f"{listing(names)} ({why})" for why, names in by_reason.items()]
            sentences.append(f"Not in the mean: {'; '.join(reasons)}.")
        return " ".join(filter(None, sentences))

    @property
    def table(self) -> pd.DataFrame:
        """AUROC of each system with its interval as text: a row a finding, and the mean last."""
        rows = {}
        for name, result in self.results.items():
            figures = _aurocs(result)
            rows[self._title(name)] = [
                value_text(figures.get(system, "auroc")) for system in self.systems
            ]
        if len(self._macro("auroc")):
            means = [value_text(self._interval("auroc", system)) for system in self.systems]
            rows[_MACRO.capitalize()] = means
        return pd.DataFrame.from_dict(rows, orient="index", columns=self.systems)

    def to_frame(self) -> pd.DataFrame:
        """Return all figures and differences of all findings, and the means, one row each.

        Returns:
            Rows of `Result.to_frame` of each finding with a column ``target``, and rows of the
            means, whose ``target`` is "mean over findings".
        """
        tables = [result.to_frame().assign(target=name) for name, result in self.results.items()]
        means = self.macro.assign(target=_MACRO).reindex(columns=tables[0].columns)
        return pd.concat([*tables, means.dropna(axis="columns", how="all")], ignore_index=True)

    def __str__(self) -> str:
        lines = [self.headline, "", self.table.to_string()]
        if self.page is not None:
            lines += ["", f"All findings: {self.page}"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.headline)}</p>{self.table.to_html()}"

    def to_dict(self) -> dict[str, Any]:
        """Return the answer, the rows of the means, and where the report of each finding is.

        Returns:
            ``headline``, ``macro`` (rows), ``left_out``, and ``targets`` with the path of each
            report folder, or None where none was written.
        """
        folders = {name: result.folder for name, result in self.results.items()}
        macro = self.macro.astype(object).where(self.macro.notna(), None)
        return {
            "headline": self.headline,
            "macro": macro.to_dict("records"),
            "left_out": dict(self.left_out),
            "targets": {
                name: None if folder is None else str(folder) for name, folder in folders.items()
            },
        }

    @with_known_keywords
    def save(self, folder: str | Path) -> ResultsByTarget:
        """Write one page for all findings, and a report folder for each of them.

        Args:
            folder: Folder to write; it may be missing, empty, or hold the same kind of report.

        Returns:
            The results in the new folder.

        Raises:
            InputError: The folder holds something else.
        """
        folder = Path(folder)
        require_only_files(folder, files.OF_ALL_TARGETS.union(self.results), "report")
        make_folder(folder)
        with folder_lock(folder):
            results = {name: each.save(folder / name) for name, each in self.results.items()}
            return self.write(folder, results)

    def write(
        self, folder: Path, results: Mapping[str, Result], data_name: str = ""
    ) -> ResultsByTarget:
        """Write the page and the tables of all findings beside the reports of each.

        The folder has the report of each finding; `results` are the results of these reports.
        """
        figures = pd.concat([result.figures for result in results.values()], ignore_index=True)
        write_csv(known_of_any(figures), folder / files.FIGURES_CSV)
        write_csv(self.macro, folder / files.MACRO_CSV)
        write_csv(self.tests, folder / files.TESTS_CSV)
        page = render(
            "targets.html.jinja",
            headline=self.headline,
            systems=self.systems,
            tables=self._tables(),
            data_name=data_name,
            results=results,
            titles=self.titles,
            counts={name: image_count(_aurocs(each)) for name, each in results.items()},
        )
        if figures["n_patients"].isna().all():
            page = image_wording(page, self.systems)
        return replace(self, results=results, page=write_text(folder / files.PAGE, page))

    def _tables(self) -> list[Table]:
        """Return the tables of the page: AUROC of each finding, means, and differences."""
        systems = self.systems
        of_findings = self.table
        rows = zip(of_findings.index, of_findings.to_numpy(), strict=True)
        rows_of_findings = [(name, *values) for name, values in rows]
        tables = [text_table("AUROC of each finding", ("Finding", *systems), rows_of_findings)]
        means = [
            (
                metric_title(metric),
                str(len(self._macro(metric)["findings"].iloc[0].split(","))),
                *(value_text(self._interval(metric, system)) for system in systems),
            )
            for metric in dict.fromkeys(self.macro["metric"])
        ]
        if means:
            heads = ("Figure", "Findings", *systems)
            tables.append(text_table("Means over findings", heads, means))
        gaps = [
            (
                self._title(gap.finding) if gap.finding else _MACRO.capitalize(),
                f"{gap.first} − {gap.second}",
                value_text(gap.interval),
                p_value_text(gap.p_holm),
            )
            for gap in [*self._gaps_of_means(), *_gaps(self.tests)]
        ]
        if gaps:
            heads = ("Finding", "Difference of", "AUROC (95 % CI)", "p, corrected")
            tables.append(text_table("Differences", heads, gaps))
        return tables

    def _title(self, finding: str) -> str:
        return self.titles.get(finding, finding)

    def _macro(self, metric: str) -> pd.DataFrame:
        return self.macro[self.macro["metric"] == metric]

    def _interval(self, metric: str, first: str, second: str = "") -> Interval:
        rows = self._macro(metric)
        row = rows[(rows["first"] == first) & (rows["second"] == second)].iloc[0]
        return Interval(row["estimate"], row["ci_low"], row["ci_high"])

    def _gaps_of_means(self) -> list[_Gap]:
        means = self._macro("auroc")
        return _gaps(means[means["second"] != ""].assign(finding=""))

    def _sentence_on_means(self) -> str:
        """State the mean AUROC of the systems, and which differences of it were shown."""
        means = self._macro("auroc")
        if means.empty:
            return ""
        count = len(means["findings"].iloc[0].split(","))
        of_systems = means[means["second"] == ""].sort_values("estimate", ascending=False)
        values = [
            f"{name} {value_text(self._interval('auroc', name))}" for name in of_systems["first"]
        ]
        sentences = [f"Mean AUROC over {count} findings: {listing(values)}."]
        gaps = self._gaps_of_means()
        for gap in gaps:
            better, worse = gap.ranked
            difference = f"difference {value_text(gap.size)}"
            if gap.is_shown:
                p_text = p_equation(gap.p_holm)
                text = f"{better} had the higher mean than {worse}: {difference}, {p_text}."
            elif gap.p_holm is None and not same(gap.size.estimate, 0):
                text = f"{better} and {worse} could not be tested: {difference}."
            else:
                text = f"{better} and {worse} were not shown to differ: {difference}."
            sentences.append(text)
        if len(gaps) > 1:
            sentences.append(f"P-values are corrected for {len(gaps)} pairs.")
        return " ".join(sentences)

    def _sentences_on_findings(self) -> list[str]:
        """State for which findings a system was shown to be better than another."""
        tested = [gap for gap in _gaps(self.tests) if gap.p_holm is not None]
        if not tested:
            return []
        findings: dict[tuple[str, str], list[str]] = {}
        for gap in tested:
            if gap.is_shown:
                findings.setdefault(gap.ranked, []).append(self._title(gap.finding))
        correction = f"(AUROC, corrected for {len(tested)} tests)"
        if not findings:
            return [f"For no single finding were two systems shown to differ {correction}."]
        count = len(self.results)
        sentences = []
        for (better, worse), names in findings.items():
            which = listing(names) if len(names) <= _MOST_NAMED else f"{len(names)} of {count}"
            which = f"all {count} findings" if len(names) == count > 1 else which
            sentences.append(f"{better} was better than {worse} for {which}")
        return [f"{'; '.join(sentences)} {correction}."]


def _aurocs(result: Result) -> Figures:
    """Return the AUROC of each system by image."""
    rows = result.figures
    return Figures.from_table(rows[(rows["unit"] == "image") & (rows["metric"] == "auroc")])


class _Gap(NamedTuple):
    """Paired difference of two systems for one finding, or for the mean over findings."""

    finding: str
    first: str
    second: str
    interval: Interval
    p_holm: float | None

    @property
    def is_shown(self) -> bool:
        """True if the difference is shown after the correction."""
        return self.p_holm is not None and self.p_holm < 1 - LEVEL

    @property
    def ranked(self) -> tuple[str, str]:
        """Names of the better and of the worse system."""
        if self.interval.estimate < 0:
            return self.second, self.first
        return self.first, self.second

    @property
    def size(self) -> Interval:
        """The difference of the better system from the worse one."""
        return self.interval.reversed() if self.interval.estimate < 0 else self.interval


def _gaps(table: pd.DataFrame) -> list[_Gap]:
    return [
        _Gap(
            str(row["finding"]),
            str(row["first"]),
            str(row["second"]),
            Interval(row["estimate"], row["ci_low"], row["ci_high"]),
            None if pd.isna(row["p_holm"]) else float(row["p_holm"]),
        )
        for row in table.to_dict("records")
    ]
