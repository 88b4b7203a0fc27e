"""Names of the files in report and study folders, for all modules that read or write them."""

from __future__ import annotations

from cxr_compare.data_prep.store.identify_folder import REPORT_MARKER

PAGE = "report.html"
DETAILS = "details.html"
METRICS = REPORT_MARKER  # written last; it marks the folder complete
METRICS_TABLE = "metrics.csv"
TESTS_TABLE = "tests.csv"
WHERE_TABLE = "where.csv"
COSTS_TABLE = "costs.csv"
DECISIONS = "decisions.parquet"
RESULT = "result.json"  # content of the report that no other file contains, for `Report.open`
LATEX_TABLE = "table.tex"
MARKDOWN_TABLE = "table.md"
CHECKLISTS = "checklists.md"
REFERENCES = "references.bib"
CARDS = "cards"  # folder with the model card of each system
FIGURES = "figures"
OVERLAYS = "overlays"
FIGURE_NAMES = "forest", "cases", "roc", "precision_recall", "froc", "calibration", "confusion"
ARCHIVE = "report.zip"
SYSTEMS = "systems"  # folder of the predictions that were made for this report
IMAGES_PAGE = "images.html"
IMAGES_TABLE = "images.js"
THUMBNAILS = "thumbs"
MOST_THUMBNAILS = 5_000  # default number
CASES_PAGE = "cases-{:03d}.html"
CASES_PAGES = "cases-[0-9]*.html"  # pattern of these names

OF_ONE_TARGET = frozenset(
    {
        PAGE,
        DETAILS,
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
        IMAGES_PAGE,
        IMAGES_TABLE,
        THUMBNAILS,
        ARCHIVE,
        CHECKLISTS,
        REFERENCES,
        RESULT,
        CARDS,
    }
)
IN_ARCHIVE = (
    LATEX_TABLE,
    MARKDOWN_TABLE,
    METRICS_TABLE,
    TESTS_TABLE,
    WHERE_TABLE,
    COSTS_TABLE,
    PAGE,
    DETAILS,
    IMAGES_PAGE,
    CHECKLISTS,
    REFERENCES,
)
OF_ALL_TARGETS = frozenset({PAGE, METRICS_TABLE, SYSTEMS})  # beside one folder for each target


def study_files(kind: str) -> set[str]:
    """Return the names of the files in which a study, such as a learning curve, is stored.

    Args:
        kind: Short name of the study, with which the file names begin, such as ``curve``.

    Returns:
        The names of its page, its JSON file and its CSV file.

    Example:
        >>> sorted(study_files("curve"))
        ['curve.csv', 'curve.html', 'curve.json']
    """
    return {f"{kind}.{ending}" for ending in ("html", "json", "csv")}
