"""Answers for DICOM images as DICOM objects in a folder: a report and a capture of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import make_folder
from data_prep.contracts.words import Terminal, counted
from data_prep.images.dicom_header import starts_like_dicom
from data_prep.work.local_copies import open_image
from serving.answer import Answer, LoadedRun
from serving.dicom_objects.instance import Algorithm, Source, read_source, to_bytes
from serving.dicom_objects.secondary_capture import overlay_capture
from serving.dicom_objects.structured_report import structured_report
from serving.image_files import CAPTURE, REPORT, free_stem


@dataclass
class DicomWriter:
    """Writes what was answered for DICOM images as DICOM objects into a folder."""

    folder: Path
    algorithms: list[Algorithm]
    terminal: Terminal
    written: int = 0  # images so far
    refused: int = 0  # DICOM images so far that no object can refer to
    others: int = 0  # images so far that are no DICOM
    _stems: set[str] = field(default_factory=set)

    @classmethod
    def begin(cls, folder: Path, runs: Sequence[LoadedRun], terminal: Terminal) -> DicomWriter:
        """Make the folder."""
        make_folder(folder)
        return cls(folder, [Algorithm.of(run) for run in runs], terminal)

    def write(self, answers: Sequence[Answer]) -> None:
        """One image, answered by each system."""
        path = Path(answers[0].image)
        try:
            with open_image(path) as local:
                with local.open("rb") as file:
                    if not starts_like_dicom(file.read(132)):
                        self.others += 1
                        return
                source = Source.of(read_source(local))
            report = to_bytes(structured_report(source, answers, self.algorithms))
            capture = to_bytes(overlay_capture(source, answers, self.algorithms))
        except InputError as error:
            self.terminal.say(f"no DICOM objects of {path}: {error}")
            self.refused += 1
            return
        stem = free_stem(path.stem, self._stems)
        (self.folder / (stem + REPORT)).write_bytes(report)
        (self.folder / (stem + CAPTURE)).write_bytes(capture)
        self.written += 1

    def close(self) -> None:
        """Say what was written."""
        without = [f"{self.refused} refused, see above"] if self.refused else []
        without += [f"{self.others} no DICOM"] if self.others else []
        note = f" ({'; '.join(without)})" if without else ""
        images = counted(self.written, "image")
        self.terminal.say(f"DICOM objects of {images}: {self.folder}{note}")
