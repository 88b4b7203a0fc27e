"""The main loop of `cxr pacs`, which answers for the images of a hospital's archive.

It searches an archive once or repeatedly, or receives images that are sent to it. The journal
records which images are done, so that the same command continues after any interruption.
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.hospital.pacs.connections import check_connections, open_connections
from cxr_compare.hospital.pacs.dicomweb import DicomWebArchive
from cxr_compare.hospital.pacs.dimse import Inbox, listening
from cxr_compare.hospital.pacs.journal import writing
from cxr_compare.hospital.pacs.patience import UnreachableError
from cxr_compare.hospital.pacs.station_settings import StationSettings
from cxr_compare.hospital.pacs.tally import Tally
from cxr_compare.hospital.pacs.worker import Worker
from cxr_compare.serving.run import Run

# Time until received images are tried again if the destination does not answer.
_RETRY_SECONDS = 5.0


def run_station(
    settings: StationSettings,
    load: Callable[[], list[Run]],
    progress: Progress,
    emit: Callable[[str], object],
) -> Tally:
    """Fetch images from an archive or receive them, predict them, and send the results.

    The function returns when there are no more images. `load` returns the systems (trained networks
    with their thresholds), and is called after the addresses were checked. `emit` prints one line
    for each predicted image.
    """
    with warnings.catch_warnings(), ExitStack() as open_archives:
        connections = open_connections(settings, progress, open_archives)
        warnings.simplefilter("ignore")  # warnings about odd headers quote their content
        try:
            check_connections(settings, connections, progress)
            worker = Worker(settings, load(), connections.destination, progress.say, emit)
            with worker.journal:
                try:
                    worker.journal.forget_failures()
                    if connections.archive is None:
                        _receive(settings, worker, progress)
                    else:
                        _search(settings, connections.archive, worker, progress)
                finally:
                    destination = connections.destination.shown
                    progress.say(worker.tally.line(destination, dry_run=settings.dry_run))
        except UnreachableError as error:
            raise InputError(
                f"{error}; nothing is lost: the same command continues from here",
                full_disk=error.full_disk,
            ) from None
    return worker.tally


def _search(
    settings: StationSettings, archive: DicomWebArchive, worker: Worker, progress: Progress
) -> None:
    """Search the archive and answer for new images, once or again and again."""
    while True:
        try:
            with _empty_folder(settings.images_folder / "fetched") as folder:
                worker.pull(archive, folder)
        except UnreachableError as error:
            if settings.watch is None:
                raise
            progress.say(f"{error}; searching again in {settings.watch:g} s")
        if settings.watch is None:
            return
        time.sleep(settings.watch)


def _receive(settings: StationSettings, worker: Worker, progress: Progress) -> None:
    """Receive images and answer for them until the program is ended."""
    address = settings.listening_address
    assert address is not None  # noqa: S101 - without an archive the station listens
    inbox = Inbox(settings.images_folder / "received")
    with listening(address, inbox, settings.callers, settings.tls):
        progress.say(f"Receiving as {address.shown}  (Ctrl-C ends it)")
        last_problem = ""
        while True:
            try:
                worker.take_received(inbox)
            except UnreachableError as error:
                if str(error) != last_problem:
                    progress.say(f"{error}; what was received is kept and tried again")
                last_problem = str(error)
                time.sleep(_RETRY_SECONDS)
            else:
                last_problem = ""
                inbox.arrived.wait(_RETRY_SECONDS)


@contextmanager
def _empty_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder for the block, also after a kill, and remove it at the end."""
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
