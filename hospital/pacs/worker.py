"""The steps of `cxr pacs`: find new images, answer for them, send the results, record each step.

In the journal and in all messages, images, studies and results are named by digests of their UIDs.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydicom.dataset import Dataset

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.dicom_header import header_facts
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.loose_images import LooseImage
from cxr_compare.data_prep.images.radiograph_check import why_no_radiograph
from cxr_compare.hospital.answers.logged_answers import log_answers
from cxr_compare.hospital.dicom_objects.result_identity import SOFTWARE, Algorithm
from cxr_compare.hospital.dicom_objects.results import dicom_results
from cxr_compare.hospital.dicom_objects.source_header import Source, read_source
from cxr_compare.hospital.pacs.connections import Destination
from cxr_compare.hospital.pacs.dicomweb import ArchivedImage, DicomWebArchive
from cxr_compare.hospital.pacs.dimse import Inbox
from cxr_compare.hospital.pacs.journal import Journal, digest, job_id, writing
from cxr_compare.hospital.pacs.patience import RefusedError
from cxr_compare.hospital.pacs.station_settings import StationSettings
from cxr_compare.hospital.pacs.tally import Tally
from cxr_compare.serving.answer import Answer
from cxr_compare.serving.joint_answers import AnsweredFile, answers_by_image
from cxr_compare.serving.run import Run

_UNCHANGED_STUDIES_LISTED = 100  # number of them in each search after the first


class _StoredImage(NamedTuple):
    """An image in a file of the station: the digest of its UID, and the file."""

    image: str
    path: Path


class _ReadableImage(NamedTuple):
    """An image that is to be answered for: its digest, file, header and pixels."""

    image: str
    path: Path
    header: Dataset
    decoded: DecodedImage


class Worker:
    """Predicts DICOM files, sends the results, and records the state of each image.

    The journal records it in a file; the tally counts since the program began.
    """

    def __init__(
        self,
        settings: StationSettings,
        systems: Sequence[Run],
        destination: Destination,
        say: Callable[[str], object],
        emit: Callable[[str], object],
    ) -> None:
        """Prepare the work and open the journal.

        The settings say which images are predicted, what happens to an image with a warning, and
        where the journal is. The systems are loaded runs, `say` shows one line to the user, and
        `emit` prints one line of a prediction.
        """
        self._settings = settings
        self._systems = systems
        self._destination = destination
        self._say = say
        self._emit = emit
        self._algorithms = [Algorithm.from_run(run) for run in systems]
        job = job_id([asdict(system) for system in self._algorithms], destination.shown)
        self.journal = Journal.open(settings.journal, job, dry_run=settings.dry_run)
        self.tally = Tally()
        self._modalities = " ".join(sorted(settings.modalities))
        self._since = settings.since or ""
        # Number of instances of each study without work left; the one listed longest ago first.
        self._settled_counts: dict[str, int] = {}
        self._batch_size = min(run.model.batch_size for run in systems)
        self._on_answer = partial(log_answers, settings.log, systems)

    def pull(self, archive: DicomWebArchive, folder: Path) -> None:
        """Search an archive once, and fetch and predict its new images.

        The folder holds the images while they are predicted. `UnreachableError` says that the
        archive or the destination has not answered in time, or that the disk is full.
        """
        self._work_through(islice(self._fetch_new(archive, folder), self._settings.limit))

    def take_received(self, inbox: Inbox) -> None:
        """Predict the images that have been received, the oldest first.

        An image that fails stays in the inbox, so that the next run of the program tries it again.
        `UnreachableError` is as in `pull`, of the destination or the disk.
        """
        inbox.arrived.clear()

        def images_to_do() -> Iterator[_StoredImage]:
            for path in inbox.waiting():
                if not self._is_done(path.stem):
                    yield _StoredImage(path.stem, path)
                elif path.stem not in self.tally.failed:
                    path.unlink(missing_ok=True)

        self._work_through(images_to_do(), keep_failed=True)

    # ------------------------------------------------------------------ search of an archive

    def _fetch_new(self, archive: DicomWebArchive, folder: Path) -> Iterator[_StoredImage]:
        """Fetch the images of an archive that are not done, study by study."""
        for study, count in self._studies_to_list(archive).items():
            listed = archive.images(study, self._settings.modalities)
            entries = {digest(entry.uid): entry for entry in listed}
            has_changed = self._record_study(digest(study), entries.keys())
            new_images: dict[str, ArchivedImage] = {}
            for image, entry in entries.items():
                if isinstance(entry, ArchivedImage):
                    if not self._is_done(image):
                        new_images[image] = entry
                elif has_changed:
                    self.tally.skipped[image] = entry.reason
            self._settled_counts.pop(study, None)
            if not new_images:
                if count is not None:
                    self._settled_counts[study] = count
                if not has_changed:
                    self.tally.unchanged.add(digest(study))
            for image, entry in new_images.items():
                path = self._fetch(archive, entry, folder / f"{image}.dcm")
                if path is not None:
                    yield _StoredImage(image, path)

    def _studies_to_list(self, archive: DicomWebArchive) -> dict[str, int | None]:
        """Return the studies whose images this search lists, each with its number of instances.

        The first search lists all studies. A later one lists studies with another number of
        instances than before, and some of the others: an image may have replaced another.
        """
        modalities = self._settings.modalities
        studies = archive.studies(modalities, self._settings.since)
        listed_before = self.journal.listed_studies(self._modalities, self._since)
        if listed_before.difference(map(digest, studies)):
            # A study may have moved from one page of the list to another meanwhile.
            studies |= archive.studies(modalities, self._settings.since)
        for study in listed_before.difference(map(digest, studies)):
            self._record_study(study, set())
        unchanged = [
            study for study, count in self._settled_counts.items() if studies.get(study) == count
        ]
        for study in unchanged[_UNCHANGED_STUDIES_LISTED:]:
            del studies[study]
        return studies

    def _record_study(self, study: str, images: Set[str]) -> bool:
        """Record the images that a study holds now; return True if they have changed.

        An image that the archive no longer lists is named where it has an answer.
        """
        images_before = self.journal.images_of_study(study, self._modalities)
        for image in images_before - images:
            if self.journal.state(image) in ("answered", "sent"):
                self._say(f"{_name(image)}: the archive no longer lists it; its answer stays there")
        if images_before == images:
            return False
        self.journal.record_study(study, self._modalities, self._since, images)
        return True

    def _fetch(self, archive: DicomWebArchive, entry: ArchivedImage, path: Path) -> Path | None:
        """Fetch one image into a file; return None where that fails."""
        try:
            dataset = archive.fetch(entry)
        except RefusedError as error:
            self._fail(path.stem, str(error))
            return None
        content = io.BytesIO()
        try:
            dataset.save_as(content, enforce_file_format=True)
        except Exception as error:  # noqa: BLE001 - pydicom raises all kinds on broken data sets
            self._fail(path.stem, f"its data set is damaged ({type(error).__name__})")
            return None
        with writing(path.parent), content.getbuffer() as view:  # releases the view on errors, too
            path.write_bytes(view)
        return path

    # ------------------------------------------------------------------ state of an image

    def _is_done(self, image: str) -> bool:
        """Return True if nothing is left to do for an image; count it if it was done before."""
        if self.journal.is_result(image):
            return True
        is_done = self.journal.state(image) in ("sent", "skipped", "failed")
        if is_done and not self.tally.mentions(image):
            self.tally.done_before.add(image)
        return is_done

    def _skip(self, image: str, reason: str) -> None:
        """Record that an image is not answered for."""
        self.journal.record(image, "skipped", reason)
        self.tally.skipped[image] = reason

    def _fail(self, image: str, reason: str) -> None:
        """Record that an image could not be answered for, or that its results were refused."""
        self.journal.record(image, "failed", reason)
        self.tally.failed.add(image)
        self._say(f"{_name(image)}: {reason}")

    # ------------------------------------------------------------------ answers and results

    def _work_through(self, images: Iterator[_StoredImage], *, keep_failed: bool = False) -> None:
        """Answer for images in batches, and remove their files."""
        while batch := list(islice(images, self._batch_size)):
            for image, _ in batch:
                self.journal.record(image, "fetched")
            self._answer(batch)
            for image, path in batch:
                if not (keep_failed and image in self.tally.failed):
                    path.unlink(missing_ok=True)

    def _answer(self, batch: Sequence[_StoredImage]) -> None:
        """Answer for a batch of images, and send their results."""
        readable = self._read(batch)
        if not readable:
            return
        images = [(str(item.path), item.decoded) for item in readable]
        start = time.monotonic()
        outcomes = answers_by_image(self._systems, images)
        seconds = (time.monotonic() - start) / len(images)
        for item, outcome in zip(readable, outcomes, strict=True):
            file = LooseImage(Path(item.image), item.decoded)
            self._on_answer(AnsweredFile.from_outcome(file, outcome, seconds))
            if isinstance(outcome, InputError):
                self._fail(item.image, _without_path(outcome, item.path))
            else:
                name = {"image": _name(item.image)}
                named = [answer.model_copy(update=name) for answer in outcome]
                self._deliver(item.image, item.header, named)

    def _read(self, batch: Sequence[_StoredImage]) -> list[_ReadableImage]:
        """Read the images to answer for; the others are skipped, or fail."""
        readable: list[_ReadableImage] = []
        for image, path in batch:
            try:
                header = read_source(path)
                reason = self._reason_to_skip(header, path)
                if reason is None:
                    readable.append(_ReadableImage(image, path, header, read_image(path)))
                else:
                    self._skip(image, reason)
            except InputError as error:
                self._on_answer(AnsweredFile(LooseImage(Path(image)), None, str(error)))
                self._fail(image, _without_path(error, path))
        return readable

    def _deliver(self, image: str, header: Dataset, answers: Sequence[Answer]) -> None:
        """Make the results of one image, send them, and write the answers."""
        image_warnings = Answer.joint_warnings(answers)
        if image_warnings and self._settings.strict:
            self._skip(image, image_warnings[0])
            return
        try:
            objects = dicom_results(Source.from_header(header), answers, self._algorithms)
        except InputError as error:
            self._fail(image, str(error))
            return
        results = list(objects.values())
        result_digests = [digest(str(result.SOPInstanceUID)) for result in results]
        self.journal.record_answer(image, result_digests)
        if not self._settings.dry_run:
            try:
                self._destination.store(results)
            except RefusedError as error:
                self._fail(image, str(error))
                return
            self.journal.record(image, "sent")
        self.tally.answered.add(image)
        self.tally.results.update(result_digests)
        for warning in image_warnings:
            self._emit(f"{_name(image)}  WARNING: {warning}")
        for caution in Answer.image_cautions(answers):
            self._emit(f"{_name(image)}  CAUTION: {caution}")
        for answer in answers:
            self._emit(str(answer))

    def _reason_to_skip(self, header: Dataset, path: Path) -> str | None:
        """Return why an image is not answered for; None if it is.

        The reason quotes nothing of the header but the modality.
        """
        if str(header.get("Manufacturer", "")).strip() == SOFTWARE:
            return f"a result of {SOFTWARE}"
        modality = header_facts(header)["modality"]
        if modality is not None and modality not in self._settings.modalities:
            return f"its modality is {modality}"
        return why_no_radiograph(path)[0]


def _name(image: str) -> str:
    """Return the name of an image in messages."""
    return f"image {image[:12]}"


def _without_path(error: InputError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
