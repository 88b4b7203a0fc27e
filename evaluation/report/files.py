"""Names of the files in report folders, for all modules that read or write them."""

from __future__ import annotations

from cxr_compare.data_prep.store.identify_folder import REPORT_MARKER

PAGE = "report.html"
METRICS = REPORT_MARKER  # written last; it marks the folder complete
METRICS_TABLE = "metrics.csv"
TESTS_TABLE = "tests.csv"
WHERE_TABLE = "where.csv"
COSTS_TABLE = "costs.csv"
DECISIONS = "decisions.parquet"
RESULT = "result.json"  # content of the report that no other file contains, for `Report.open`
LATEX_TABLE = "table.tex"
MARKDOWN_TABLE = "table.md"
CARDS = "cards"  # folder with the model card of each system
FIGURES = "figures"
OVERLAYS = "overlays"
SYSTEMS = "systems"  # folder of the predictions that were made for this report

OF_ONE_TARGET = frozenset(
    {
        PAGE,
        METRICS,
        METRICS_TABLE,
        TESTS_TABLE,
        WHERE_TABLE,
        COSTS_TABLE,
        DECISIONS,
        LATEX_TABLE,
        MARKDOWN_TABLE,
        FIGURES,
        OVERLAYS,
        SYSTEMS,
        RESULT,
        CARDS,
    }
)
OF_ALL_TARGETS = frozenset({PAGE, METRICS_TABLE, SYSTEMS})  # beside one folder for each target
