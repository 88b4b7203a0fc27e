"""Names of the files in report folders, for all modules that read or write them."""

from __future__ import annotations

from cxr_compare.data_prep.store.identify_folder import REPORT_MARKER

PAGE = "report.html"
ANSWER = REPORT_MARKER  # written last; it marks the folder complete
TABLES = ("figures", "tests", "groups", "decisions", "curves")  # each NAME.parquet
CSV_TABLES = ("figures", "tests", "groups")  # each also NAME.csv
FIGURES_CSV = "figures.csv"
TESTS_CSV = "tests.csv"
MACRO_CSV = "macro.csv"  # means over several targets
DECISIONS = "decisions.parquet"
LATEX_TABLE = "table.tex"
MARKDOWN_TABLE = "table.md"
CARDS = "cards"  # folder with the model card of each system
FIGURES = "figures"
OVERLAYS = "overlays"
SYSTEMS = "systems"  # folder of the predictions that were made for this report

OF_ONE_TARGET = frozenset(
    {
        PAGE,
        ANSWER,
        *(f"{name}.parquet" for name in TABLES),
        *(f"{name}.csv" for name in CSV_TABLES),
        LATEX_TABLE,
        MARKDOWN_TABLE,
        CARDS,
        FIGURES,
        OVERLAYS,
        SYSTEMS,
    }
)
# beside one folder for each target
OF_ALL_TARGETS = frozenset({PAGE, FIGURES_CSV, MACRO_CSV, TESTS_CSV, SYSTEMS})
