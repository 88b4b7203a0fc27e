"""Archive ``report.zip``: the files of a report that a paper needs, with a README."""

from __future__ import annotations

import zipfile
from pathlib import Path

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.templates import CHARTS, sentence

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that equal files give equal archives


def write_archive(out: Path) -> None:
    """Pack tables, figures and pages of a report into ``report.zip``, with a README listing them.

    Args:
        out: Folder of the report, whose other files are written already.
    """
    contained = [out / name for name in files.IN_ARCHIVE if (out / name).is_file()]
    lines = [
        sentence("readme_start", template=CHARTS),
        *(sentence("readme", path.name, template=CHARTS) for path in contained),
    ]
    if (out / files.CARDS).is_dir():
        lines.append(sentence("readme_cards", template=CHARTS))
    captions = [out / files.FIGURES / f"{name}.txt" for name in files.FIGURE_NAMES]
    for number, path in enumerate(filter(Path.is_file, captions), start=1):
        caption = path.read_text(encoding="utf-8").strip()
        pattern = f"{files.FIGURES}/{path.stem}.*"
        lines.append(sentence("readme_figure", number, pattern, caption, template=CHARTS))
    readme = "\n".join(lines)
    # Files to which the pages link.
    folders = [f"{name}/*" for name in (files.FIGURES, files.THUMBNAILS, files.CARDS)]
    linked = [*folders, files.CASES_PAGES, files.IMAGES_TABLE]
    further = [path for pattern in linked for path in sorted(out.glob(pattern))]
    contents = {str(path.relative_to(out)): path.read_bytes() for path in (*contained, *further)}
    with atomic_path(out / files.ARCHIVE) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in {"README.txt": f"{readme}\n".encode(), **contents}.items():
            entry = zipfile.ZipInfo(f"report/{name}", _LONG_AGO)
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
