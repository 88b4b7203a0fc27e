"""From a DICOM file to results in the archive: checked, answered for, sent, and written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import counted
from data_prep.images.decoded_image import DecodedImage
from data_prep.images.dicom_header import header_facts, why_no_radiograph
from data_prep.images.image import read_image
from serving.answer import Answer, LoadedRun
from serving.dicom_objects.instance import SOFTWARE, Algorithm, Source, read_source
from serving.dicom_objects.secondary_capture import overlay_capture
from serving.dicom_objects.structured_report import structured_report
from serving.pacs.dicomweb import ArchivedImage, DicomWebArchive, LeftOut
from serving.pacs.journal import Journal, digest, job_id
from serving.pacs.patience import RefusedError

if TYPE_CHECKING:
    from serving.pacs.dimse import Inbox, StorePeer

_OWN_RESULT = f"a result of {SOFTWARE}"


@dataclass(frozen=True)
class Tally:
    """Images, results and studies by what was done with them since the program began."""

    answered: set[str] = field(default_factory=set)
    results: set[str] = field(default_factory=set)
    done_before: set[str] = field(default_factory=set)  # images that an earlier run dealt with
    unchanged: set[str] = field(default_factory=set)  # studies in which nothing is left to do
    skipped: dict[str, str] = field(default_factory=dict)  # images and series, with the reason
    failed: set[str] = field(default_factory=set)  # images without an answer, or one refused

    def line(self, destination: str, *, dry_run: bool = False) -> str:
        """The summary."""
        results = counted(len(self.results), "result")
        parts = [
            f"{counted(len(self.answered), 'image')} answered",
            f"{results} made, none sent" if dry_run else f"{results} sent to {destination}",
        ]
        if self.done_before:
            parts.append(f"{len(self.done_before):,} done before")
        if self.unchanged:
            parts.append(f"{counted(len(self.unchanged), 'study')} unchanged")
        if self.skipped:
            reasons = Counter(self.skipped.values()).most_common()
            words = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
            parts.append(f"{len(self.skipped):,} skipped ({words})")
        if self.failed:
            parts.append(f"{len(self.failed):,} failed, see above")
        return "; ".join(parts)


class Worker:
    """Answers for files of an archive, and sends the results.

    Args:
        systems: Runs or exports, each of which answers.
        archive: Where results go; None sends nothing.
        destination: The same as it is shown, and told from others.
        open_journal: Opens the journal of a job.
        modalities: Those that are answered for.
        strict: Whether an image with a warning is skipped.
        say: Shows a line to the person.
        emit: Writes a line of a result.
    """

    def __init__(
        self,
        systems: Sequence[LoadedRun],
        archive: DicomWebArchive | StorePeer | None,
        destination: str,
        open_journal: Callable[[str], Journal],
        *,
        modalities: Sequence[str],
        strict: bool,
        say: Callable[[str], object],
        emit: Callable[[str], object],
    ) -> None:
        self._systems, self._archive = systems, archive
        self.modalities, self._strict = modalities, strict
        self._say, self._emit = say, emit
        self._algorithms = [Algorithm.of(run) for run in systems]
        job = job_id([asdict(system) for system in self._algorithms], destination)
        self.journal = open_journal(job)
        self.tally = Tally()
        self.batch_size = min(run.model.batch_size for run in systems)

    def is_done(self, image: str) -> bool:
        """Whether an image needs nothing any more; each is counted once."""
        if self.journal.is_result(image):
            return True
        done = self.journal.is_done(image)
        now = (self.tally.answered, self.tally.skipped, self.tally.failed)
        if done and not any(image in images for images in now):
            self.tally.done_before.add(image)
        return done

    def skip(self, image: str, reason: str) -> None:
        """An image is none to answer for."""
        self.journal.enter(image, "skipped", reason)
        self.tally.skipped[image] = reason

    def fail(self, image: str, reason: str) -> None:
        """An image gets no answer, or its results were refused."""
        self.journal.enter(image, "failed", reason)
        self.tally.failed.add(image)
        self._say(f"{_called(image)}: {reason}")

    def work(self, files: Iterable[tuple[str, Path]], *, keep_failed: bool = False) -> None:
        """Deal with files, each with the digest of its image's UID, some at a time.

        A file is removed once nothing is left to do for it; with `keep_failed` what failed stays,
        to be tried by another run.
        """
        files = iter(files)
        while batch := list(islice(files, self.batch_size)):
            for image, _ in batch:
                self.journal.enter(image, "fetched")
            self._work(batch)
            for image, path in batch:
                if not (keep_failed and image in self.tally.failed):
                    path.unlink(missing_ok=True)

    def _work(self, batch: Sequence[tuple[str, Path]]) -> None:
        readable: list[tuple[str, Path, Dataset, DecodedImage]] = []
        for image, path in batch:
            try:
                header = read_source(path)
                if reason := self._why_not(header, path):
                    self.skip(image, reason)
                else:
                    readable.append((image, path, header, read_image(path)))
            except InputError as error:
                self.fail(image, _without_path(error, path))
        if not readable:
            return
        images = [(str(path), decoded) for _, path, _, decoded in readable]
        by_system = [run.answer(images) for run in self._systems]
        for (image, path, header, _), answers in zip(
            readable, zip(*by_system, strict=True), strict=True
        ):
            self._deliver(image, path, header, answers)

    def _deliver(
        self, image: str, path: Path, header: Dataset, answers: Sequence[Answer | InputError]
    ) -> None:
        """Make and send the results of one image."""
        named: list[Answer] = []
        for answer in answers:
            if isinstance(answer, InputError):
                self.fail(image, _without_path(answer, path))
                return
            named.append(replace(answer, image=_called(image)))
        warned = list(dict.fromkeys(text for answer in named for text in answer.warnings))
        if warned and self._strict:
            self.skip(image, warned[0])
            return
        try:
            source = Source.of(header)
            results = [
                structured_report(source, named, self._algorithms),
                overlay_capture(source, named, self._algorithms),
            ]
        except InputError as error:
            self.fail(image, str(error))
            return
        uids = [digest(str(result.SOPInstanceUID)) for result in results]
        self.journal.answer(image, uids)
        if self._archive is not None:
            try:
                self._archive.store(results)
            except RefusedError as error:
                self.fail(image, str(error))
                return
            self.journal.enter(image, "sent")
        self.tally.answered.add(image)
        self.tally.results.update(uids)
        for text in warned:
            self._emit(f"{_called(image)}  WARNING: {text}")
        for answer in named:
            self._emit(str(answer))

    def _why_not(self, header: Dataset, path: Path) -> str | None:
        """Why a file is none to answer for; nothing of its header is quoted but its modality."""
        if str(header.get("Manufacturer", "")).strip() == SOFTWARE:
            return _OWN_RESULT
        modality = header_facts(header)["modality"]
        if modality is not None and modality not in self.modalities:
            return f"its modality is {modality}"
        return why_no_radiograph(path)[0]


def pull(
    archive: DicomWebArchive, worker: Worker, folder: Path, since: str | None, limit: int | None
) -> None:
    """Fetch what is new in an archive, study by study, and answer for it."""
    worker.work(islice(_fetched(archive, worker, folder, since), limit))


def _fetched(
    archive: DicomWebArchive, worker: Worker, folder: Path, since: str | None
) -> Iterator[tuple[str, Path]]:
    for study in archive.studies(worker.modalities, since):
        key = digest(study.uid)
        if study.instances is not None and worker.journal.is_finished(key, study.instances):
            worker.tally.unchanged.add(key)
            continue
        new = 0
        for item in archive.images(study.uid, worker.modalities, SOFTWARE):
            image = digest(item.uid)
            if isinstance(item, LeftOut):
                worker.tally.skipped[image] = item.reason
            elif not worker.is_done(image):
                new += 1
                if path := _fetch(archive, item, worker, folder / f"{image}.dcm"):
                    yield image, path
        # What is new is dealt with by now or a batch later: the next listing tells.
        if not new and study.instances is not None:
            worker.journal.finish(key, study.instances)


def _fetch(
    archive: DicomWebArchive, item: ArchivedImage, worker: Worker, path: Path
) -> Path | None:
    """Fetch one image into a file; None where that fails."""
    try:
        dataset = archive.fetch(item)
    except RefusedError as error:
        worker.fail(path.stem, str(error))
        return None
    try:
        dataset.save_as(path, enforce_file_format=True)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom raises all kinds on broken data sets
        path.unlink(missing_ok=True)
        worker.fail(path.stem, f"its data set is damaged ({type(error).__name__})")
        return None
    return path


def take_received(inbox: Inbox, worker: Worker) -> None:
    """Answer for the images that were received until now, the oldest first."""
    inbox.arrived.clear()

    def waiting() -> Iterator[tuple[str, Path]]:
        for path in inbox.waiting():
            if not worker.is_done(path.stem):
                yield path.stem, path
            elif path.stem not in worker.tally.failed:
                path.unlink(missing_ok=True)

    worker.work(waiting(), keep_failed=True)


def _called(image: str) -> str:
    return f"image {image[:12]}"


def _without_path(error: InputError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
