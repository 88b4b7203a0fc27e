"""Result on classes that exclude each other: one report of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, ShownAsText, counted
from cxr_compare.data_prep.base.files import make_folder, write_text
from cxr_compare.data_prep.base.provenance import MadeRecord, provenance
from cxr_compare.data_prep.base.records import Digests, Items
from cxr_compare.data_prep.base.user_tables import write_csv
from cxr_compare.evaluation.classes import NO_CLASS, ClassComparison
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.notes import Note, worst_first
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.cells import Tested, shown_text, wide
from cxr_compare.evaluation.report.charts import draw_confusion, draw_findings, drawn_once
from cxr_compare.evaluation.report.faces import write_paper
from cxr_compare.evaluation.report.page import render
from cxr_compare.evaluation.report.sections import Section
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.verdict.budgets import budget_notes
from cxr_compare.evaluation.verdict.cautions import (
    chance_notes,
    few_patients,
    one_on_training,
    synthetic_images,
    unequal_training,
)
from cxr_compare.evaluation.verdict.claims import NOT_EQUAL, Lookup
from cxr_compare.evaluation.verdict.margin import GATE_STATUS, decided, gate_line, margin_sentence
from cxr_compare.evaluation.verdict.prose import listing
from cxr_compare.evaluation.verdict.verdict import begun, state_answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMED = 100  # images of a cell of a confusion matrix on the page
_ALL = "all classes"
_MEAN = f"{_ALL}: mean AUROC"
_NEARLY_ALL = 0.9
"""Share of the images of other classes from which a system calls nearly all images one class."""
_MANY_WITHOUT = 0.1
"""Share of the images from which it is said that a system calls them no class."""


class ClassAnswer(MadeRecord, kind="answer on classes"):
    """Content of ``classes.json``, the record of a report on classes that exclude each other.

    `given` has name, size and SHA-256 of what the user gave, `options` are those of the call.
    """

    headline: str
    must_say: Items[str]
    classes: Items[str]
    counts: dict[str, int]
    margin: dict[str, Any]
    systems: dict[str, dict[str, Any]]
    options: dict[str, Any]
    given: Items[dict[str, Any]]
    files: Digests


@dataclass(frozen=True, repr=False)
class ClassResult(ShownAsText):
    """Result on classes of which each image has exactly one.

    Attributes:
        comparison: The figures, and the images with their classes and called ones.
        left_out: Classes that are not evaluated, with the reason.
        options: Options of the call as they were given.
        files: Name, size and SHA-256 of what the user gave.
        gate: True if the exit status of the command is the decision by the margin.
    """

    comparison: ClassComparison
    left_out: Mapping[str, str]
    options: Mapping[str, Any]
    files: Sequence[dict[str, Any]]
    page: Path | None = None
    gate: bool = False

    @property
    def classes(self) -> pd.DataFrame:
        """Figures of all classes (``class`` is empty) and of each, of systems and of pairs."""
        return self.comparison.figures

    @property
    def systems(self) -> list[str]:
        """Names of the systems, the reference first."""
        return list(self.comparison.outputs)

    @cached_property
    def calls(self) -> pd.DataFrame:
        """Class of each test image, and that which each system calls."""
        made, names = self.comparison, np.array([*self.comparison.names, NO_CLASS])
        columns = {"image_id": made.truth.ids, "class": names[made.y_true]}
        tables = [pd.DataFrame(columns=["system", *columns, "called"])]
        tables += [
            pd.DataFrame({"system": system, **columns, "called": names[called]})
            for system, called in made.called.items()
        ]
        return pd.concat(tables, ignore_index=True)

    @property
    def confusion(self) -> dict[str, pd.DataFrame]:
        """Number of images of each system by their class, a row, and their called class."""
        return {name: cells.map(len) for name, cells in self.called_images.items()}

    @cached_property
    def called_images(self) -> dict[str, pd.DataFrame]:
        """Ids of the images of each system by their class, a row, and their called class."""
        made, tables = self.comparison, {}
        for system, called in made.called.items():
            names = [*made.names, NO_CLASS][: max(len(made.names), called.max() + 1)]
            tables[system] = pd.DataFrame(index=[*made.names], columns=names, dtype=object)
            for (row, column), _ in np.ndenumerate(tables[system].to_numpy()):
                is_here = (made.y_true == row) & (called == column)
                tables[system].iat[row, column] = made.truth.ids[is_here].tolist()
        return tables

    @cached_property
    def counts(self) -> dict[str, int]:
        """Numbers of test images and, if they are known, of patients."""
        truth = self.comparison.truth
        patients = {"patient": len(set(truth.owners))} if truth.patients_known else {}
        return {"test image": len(truth.ids), **patients}

    @property
    def counts_text(self) -> str:
        """Numbers of test images and patients in words."""
        return " of ".join(counted(number, noun) for noun, number in self.counts.items())

    def _figures(self, name: str = "") -> Lookup:
        """Return the figures of a class by their names, or those of all classes."""
        rows = self.classes[self.classes["class"] == name]
        return Lookup(rows.assign(policy="", n_images=np.nan))

    @cached_property
    def sentences(self) -> list[str]:
        """The answer by the figure that decides, the margin, AUROCs, and what is left out."""
        made, figures = self.comparison, self._figures()
        sentences = [self._state(made.decides)]
        sentences += [margin_sentence(self.margin)] if self.margin else []
        have_means = all(figures.get(name, "auroc").known for name in self.systems)
        if made.decides != "auroc" and have_means:
            sentences.append(self._state("auroc"))
        shown: dict[tuple[str, str], list[str]] = {}
        for name in made.names:
            of_class = self._figures(name)
            for pair in combinations(self.systems, 2):
                claim = of_class.claim("answer", *pair, "auroc").falling
                if claim.higher:
                    shown.setdefault((claim.first, claim.second), []).append(name)
        if shown:
            parts = [
                f"{one} exceeds {other} in {listing(of)}" for (one, other), of in shown.items()
            ]
            sentences.append(f"Shown in AUROC of single classes: {'; '.join(parts)}.")
        return [*sentences, *(f"Left out: {name} ({why})." for name, why in self.left_out.items())]

    def _state(self, metric: str) -> str:
        """State which system is highest in a figure of all classes, and what it exceeds."""
        figures = self._figures()
        known = [name for name in self.systems if figures.get(name, metric).known]
        over = f"over {counted(len(self.comparison.names), 'class')}"
        title = f"{METRICS[metric].inside} {over}"
        if metric == "auroc":
            title = f"mean AUROC {(known and figures.get(known[0], metric).note) or over}"
        claims = [figures.claim("answer", *pair, metric) for pair in combinations(self.systems, 2)]
        corrected = any(claim.corrected for claim in claims)
        said = state_answer(figures, known, title, claims, key=(metric, ""), corrected=corrected)
        return f"{begun(said, self.systems)}."

    @property
    def headline(self) -> str:
        """Answer by the figure that decides and further ones, with the images it rests on."""
        return f"On these {self.counts_text}: {' '.join(self.sentences)}"

    @cached_property
    def _notes(self) -> list[Note]:
        """All remarks and cautions."""
        made, rows = self.comparison, self.classes
        of_classes = {name: made.y_true == number for number, name in enumerate(made.names)}
        notes = [
            *made.notes,
            *self._without_calls(),
            *few_patients(made.truth, of_classes),
            *synthetic_images(made.truth),
            *unequal_training(made.outputs),
            *budget_notes(made.outputs),
            *chance_notes(rows[rows["class"] == ""], self.systems),
        ]
        for system, called in made.called.items():
            without = called == len(made.names)
            if without.mean() >= _MANY_WITHOUT:
                of_all = f"{without.sum():,} of the {len(called):,} test images"
                text = f"{system} calls {of_all} no class: several share the highest score."
                notes.append(Note(text, "all_alike"))
            for number, name in enumerate(made.names):
                others = called[made.y_true != number] == number
                if others.mean() >= _NEARLY_ALL:
                    of_all = f"{(called == number).sum():,} of the {len(called):,} test images"
                    of_others = f"{others.sum():,} of the {len(others):,} of other classes"
                    text = f"{system} calls {of_all} {name}, among them {of_others}."
                    notes.append(Note(text, "all_alike"))
        return one_on_training(notes, self.systems)

    def _without_calls(self) -> list[Note]:
        """Note systems that call no class, as they lack the scores of one."""
        names = [name for name in self.systems if name not in self.comparison.called]
        none = self.comparison.names[0]
        text = (
            f"No score of {none} comes from {listing(names)}, so these scores call no class, and "
            "the mean AUROC over the other classes, which needs none, decides. If the scores of an "
            f"image exclude each other, as those of a softmax, add the column '{none}' with 1 "
            "minus their sum."
        )
        return [Note(text, "no_calls")] if names else []

    @property
    def cautions(self) -> list[str]:
        """Reasons why the answer may be wrong, the most harmful first."""
        return [note.with_page for note in worst_first(self._notes)]

    @property
    def must_say(self) -> list[str]:
        """Sentences that belong to the headline wherever it is quoted."""
        said = [note.text for note in self._notes if note.is_said]
        is_open = (self.classes["p_holm"] >= 0.05).any()
        return [*self.cautions, *said, *([NOT_EQUAL] if is_open else [])]

    @cached_property
    def margin(self) -> dict[str, Any]:
        """Decisions by the stated margin in the figure that decides; empty without a margin."""
        margin, decides = self.options["margin"], self.comparison.decides
        if margin is None:
            return {}
        (reference, *others), figures = self.systems, self._figures()
        claims = [figures.claim("answer", reference, name, decides) for name in others]
        called = {} if decides == "auroc" else self.comparison.called  # equal calls may rank apart
        same = {name for name in called if np.array_equal(called[name], called[reference])}
        return decided(claims, reference, decides, margin, same)

    @property
    def exit_status(self) -> int:
        """Exit status of the command: 0, or of a gate what the margin shows."""
        return GATE_STATUS[self.margin["gate"]] if self.gate else 0

    @cached_property
    def table(self) -> pd.DataFrame:
        """Figures of all classes and of each against the others, a row a figure, and differences.

        Systems are columns, and so are the differences of pairs.
        """
        rows = self.classes
        titles = (rows["class"].replace("", _ALL) + ": ") + rows["metric"].map(
            lambda name: METRICS[name].inside
        )
        columns = rows["first"] + (" − " + rows["second"]).where(rows["second"] != "", "")
        named = rows.assign(title=titles.replace(f"{_ALL}: AUROC", _MEAN), column=columns)
        made = wide(named, "title", "column", _cell)
        return made.rename_axis("Figure").rename_axis(None, axis=1)

    @property
    def sections(self) -> list[Section]:
        """Sections of the page: figures of all classes and of each, and how they were made."""
        of_all = self.table.index.str.startswith(_ALL)
        by = "patient" if "patient" in self.counts else "image"
        notes = [
            "Balanced accuracy is the mean share of the images of a class that are called it; F1 "
            "of all classes is the mean of theirs. The AUROC of a class is that of its scores "
            f"against all other classes. Intervals are 95 %, by {by}.",
            f"The {METRICS[self.comparison.decides].inside} over classes decides: p-values of all "
            "else are at least that of it, and of single classes at least that of the mean AUROC. "
            "They are corrected by Holm's method over the pairs of systems, of single classes over "
            "the classes, too.",
        ]
        reading = dict.fromkeys(note.with_page for note in self._notes if not note.caution)
        return [
            Section("classes", "", self.table[of_all], notes),
            Section("classes", "Each class against the others", self.table[~of_all]),
            Section("classes", "Notes", pd.DataFrame(), list(reading), fold="always"),
        ]

    @cached_property
    def _aurocs(self) -> pd.DataFrame:
        """AUROC of each class, a row, and system; empty without any."""
        ending = ": AUROC"
        rows = self.table[self.table.index.str.endswith(ending)]
        rows.index = rows.index.str.removesuffix(ending)
        return rows.reindex(columns=self.systems).dropna()

    @property
    def chart_names(self) -> list[str]:
        """Names of the charts of `plot`."""
        is_made = {"confusion": bool(self.confusion), "classes": not self._aurocs.empty}
        return [name for name, made in is_made.items() if made]

    def plot(self, name: str = "confusion") -> Figure:
        """Draw a chart: ``confusion`` matrices of the systems, or AUROCs of ``classes``.

        Raises:
            InputError: There is no such chart.
        """
        if name not in self.chart_names:
            names = ", ".join(self.chart_names)
            raise InputError(f"there is no chart '{name}'; this result has {names}")
        if name == "confusion":
            return draw_confusion(self.confusion, self.systems)
        return draw_findings(self._aurocs, self.systems, "class")

    def to_dict(self) -> dict[str, Any]:
        """Return what ``cxr compare --json`` prints."""
        return {**self._answer.to_json(), "figures": files.records_of(self.classes)}

    def __str__(self) -> str:
        lines = [self.headline, *(f"Caution: {caution}" for caution in self.cautions)]
        lines += [
            "",
            self.table.reindex(columns=self.systems).map(shown_text).to_string(line_width=100),
        ]
        lines += ["", f"Report: {self.page}"] if self.page else []
        lines += [gate_line({"": self.margin}, self.margin["gate"])] if self.gate else []
        return "\n".join(lines)

    @property
    def _answer(self) -> ClassAnswer:
        records = {name: dict(output.record) for name, output in self.comparison.outputs.items()}
        return ClassAnswer(
            headline=self.headline,
            must_say=tuple(self.must_say),
            classes=tuple(self.comparison.names),
            counts=self.counts,
            margin=self.margin,
            systems=records,
            options=dict(self.options),
            given=tuple(self.files),
            files={},
            **provenance(),
        )

    def save(self, folder: str | Path) -> ClassResult:
        """Write the report: a page, charts, and tables as CSV, LaTeX and Markdown."""
        return files.saved(self.write_all, folder, "report on classes")

    def write_all(self, folder: Path) -> ClassResult:
        """Write all files into a folder that nothing else writes to at this time.

        ``classes.json`` is written last, so its presence shows that the folder is complete.
        """
        (folder / files.CLASS_ANSWER).unlink(missing_ok=True)
        make_folder(folder / files.FIGURES)
        charts = {}
        for name in self.chart_names:
            file, charts[name] = drawn_once(partial(self.plot, name), name, f"Chart: {name}")
            (folder / files.FIGURES / f"{name}.svg").write_bytes(file)
        for name, table in zip(files.OF_CLASSES, (self.classes, self.calls), strict=True):
            write_csv(table, folder / name)
        caption = f"Figures and differences with 95 % intervals on {self.counts_text}."
        write_paper([Section("paper", caption, self.table)], folder)
        page = render(
            "classes.html.jinja",
            result=self,
            systems=self.systems,
            chart=charts.get("classes", ""),
            most=_MOST_NAMED,
        )
        write_text(folder / files.PAGE, page)
        answer = self._answer.with_values(files=files.digests_of(folder))
        answer.write(folder / files.CLASS_ANSWER)
        return replace(self, page=folder / files.PAGE)


def _cell(row: Any) -> Any:
    return Tested.from_row(row) if row["second"] else Interval.from_row(row)
