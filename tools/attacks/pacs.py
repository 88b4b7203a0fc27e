"""`cxr pacs` against a real Orthanc: studies that change, and disks that are full.

    python -m tools.attacks.pacs EXPORT FILMS [PART ...]

EXPORT is a folder that `cxr export` made, FILMS a folder of chest radiographs (DICOM), PART one of
studies, watched, pull, receive. The program needs root (it mounts tmpfs, in a mount namespace of
its own) and the Debian packages orthanc, orthanc-dicomweb and dcmtk. It ends with 1 if an image was
answered never or twice, if a change was not named once, or if there was a traceback.
"""

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
import pydicom
import requests

from tests.scripts.launched import free_port, wait_until
from tests.serving.radiographs import radiograph
from tests.serving.test_pacs import as_version_1
from tests.serving.test_pacs_orthanc import PASSWORD, USER, Archive, Pacs
from tests.small_dicom import as_file

_NAMESPACE = "CXR_ATTACK_MOUNTS"


class Bench:
    """An Orthanc, images for it, and the rows of the table."""

    def __init__(self, folder: Path, export: Path, films: Path) -> None:
        self.folder = folder
        self.export = export
        self.listener = free_port()
        self.archive = Archive(folder, self.listener)
        self.archive.start()
        self._contents = [path.read_bytes() for path in sorted(films.glob("*.dcm"))[:40]]
        self._numbers = count(1)
        self.rows: list[tuple[str, str, bool]] = []
        self.begun: list[Pacs] = []

    def film(
        self, study: str, series: str = "1", *, is_small: bool = False, **values: str
    ) -> bytes:
        """Return a new image of a study.

        Args:
            study: UID of the study.
            series: Number of the series.
            is_small: True for a small synthetic image.
            **values: Values of header elements, by keyword.

        Returns:
            Content of the DICOM file.
        """
        number = next(self._numbers)
        if is_small:
            image = radiograph(np.tile(np.arange(64, dtype=np.uint8), (64, 1)), ViewPosition="PA")
        else:
            image = pydicom.dcmread(io.BytesIO(self._contents[number % len(self._contents)]))
        image.SOPInstanceUID = f"1.2.3.9.{number}"
        image.StudyInstanceUID = study
        image.SeriesInstanceUID = f"{study}.{series}"
        for keyword, value in values.items():
            setattr(image, keyword, value)
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        return as_file(image)

    def add(self, *contents: bytes) -> list[str]:
        """Send images to the archive, and return the archive's ids of them.

        Args:
            *contents: Contents of DICOM files.

        Returns:
            One id for each image.
        """
        return [self.archive.post("/instances", content)["ID"] for content in contents]

    def remove(self, identifier: str) -> None:
        """Delete an image from the archive.

        Args:
            identifier: The archive's id of the image.
        """
        requests.delete(
            f"{self.archive.url}/instances/{identifier}", auth=(USER, PASSWORD), timeout=60
        )

    def pacs(self, name: str, *options: object, journal: Path | None = None) -> Pacs:
        """Prepare a `cxr pacs` that reads from this archive or listens.

        Args:
            name: Name of its folder.
            *options: Words of the command line.
            journal: File of the journal; None for the usual one.

        Returns:
            The command, which is not started yet.
        """
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        if "--listen" not in options:
            options = ("--dicomweb", f"{self.archive.url}/dicom-web", *options)
        pacs = Pacs(folder, self.export, *options)
        if journal:
            pacs.command[-1] = str(journal)
        self.begun.append(pacs)
        return pacs

    def results(self) -> int:
        """Return the number of results in the archive; fail if an image was answered twice."""
        found = [each for each in self.archive.all() if each.get("Manufacturer") == "cxr-compare"]
        sources = [
            str(each.SourceImageSequence[0].ReferencedSOPInstanceUID)
            for each in found
            if "SourceImageSequence" in each
        ]
        assert len(sources) == len(set(sources)), "a film was answered for twice"
        return len(found)

    def row(self, case: str, said: str, is_well: bool) -> None:
        """Print a row of the table, and store it.

        Args:
            case: Name of the case.
            said: Description of what was seen.
            is_well: True if the case passed.
        """
        self.rows.append((case, said, is_well))
        print(f"{'ok  ' if is_well else 'FELL'}  {case:44s} {said}", flush=True)


def look(pacs: Pacs) -> tuple[int, int, str]:
    """Run `cxr pacs` once.

    Args:
        pacs: The command.

    Returns:
        Number of images that it answered, number that it named as gone, and its last line.
    """
    before = pacs.said.stat().st_size if pacs.said.exists() else 0
    pacs.start()
    status = pacs.finish()
    said = pacs.said.read_text()[before:]
    assert status == 0, said
    assert "Traceback" not in said, said
    answered = re.search(r"(\d+) images? answered", said)
    assert answered, said
    return int(answered[1]), said.count("no longer lists it"), said.splitlines()[-1]


def studies(bench: Bench) -> None:
    """Test studies that change between two calls."""
    pacs = bench.pacs("studies")

    def change(case: str, wanted: tuple[int, int], settle: int = 2) -> None:
        first = look(pacs)
        again = [look(pacs) for _ in range(settle)]
        seen = [first[:2], *(each[:2] for each in again)]
        words = f"answered, named: {', '.join(map(str, seen))}"
        bench.row(case, words, seen == [wanted, *[(0, 0)] * settle])

    two = bench.add(bench.film("1.2.4.1"), bench.film("1.2.4.1"))
    one = bench.add(bench.film("1.2.4.2"))
    change("two studies, 3 films", (3, 0))
    bench.remove(two[0])
    bench.add(bench.film("1.2.4.1"))
    change("retake in the same series, count equal", (1, 1))
    bench.remove(two[1])
    bench.add(bench.film("1.2.4.1", "2"))
    change("retake in another series, count equal", (1, 1))
    bench.add(bench.film("1.2.4.1", "3"))
    change("added view", (1, 0))
    bench.remove(one[0])
    change("the only film of a study deleted", (0, 1))
    bench.remove(bench.add(bench.film("1.2.4.3"))[0])
    change("a film that came and went between calls", (0, 0))
    bench.add(
        bench.film("1.2.4.4", BodyPartExamined="HAND"), bench.film("1.2.4.4", "2", Modality="CT")
    )
    first, second, third = (look(pacs)[2] for _ in range(3))
    bench.row(
        "no chest film: named at the first call alone",
        first.partition("skipped (")[2][:60],
        "body part" in first and "body part" not in second + third,
    )
    many = [
        bench.film("1.2.4.5", is_small=True, ViewPosition="PA" if n < 12 else "LL")
        for n in range(300)
    ]
    ids = bench.add(*many)
    change("300 instances, 12 of them frontal", (12, 0))
    bench.remove(ids[5])
    bench.add(bench.film("1.2.4.5", is_small=True))
    change("300 instances, a retake", (1, 1))

    journal = pacs.folder / "journal.sqlite"
    as_version_1(journal)
    bench.add(bench.film("1.2.4.1", "4"))
    change("a journal of the version before, a film added", (1, 0))
    bench.results()


def watched(bench: Bench) -> None:
    """Test a study that grows for a day, and a retake, while cxr pacs watches."""
    pacs = bench.pacs("watched", "--watch", 1)
    before = bench.results()
    pacs.start()
    ids: list[str] = []
    for number in range(1, 25):
        ids += bench.add(bench.film("1.2.5.1", str(number % 3)))
        wait_until(lambda n=number: bench.results() == before + 2 * n)
    bench.row("24 films, one an hour", f"{bench.results() - before} results", True)
    time.sleep(5)  # settled
    bench.remove(ids[3])
    bench.add(bench.film("1.2.5.1", "1"))
    wait_until(lambda: bench.results() == before + 50)
    wait_until(lambda: "no longer lists it" in pacs.said.read_text(), 20)
    time.sleep(5)
    pacs.end(signal.SIGINT)
    said = pacs.said.read_text()
    bench.row(
        "a retake while watching",
        said.splitlines()[-2][:90],
        bench.results() == before + 50
        and said.count("no longer lists it") == 1
        and "Traceback" not in said,
    )


def mounted(folder: Path, size: str) -> Path:
    """Mount a disk of a given size, and return its folder.

    Args:
        folder: Folder of the disk.
        size: Size, such as ``200k``.

    Returns:
        The folder.
    """
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    return folder


def pull(bench: Bench) -> None:
    """Test fetching with a journal on a small disk."""
    bench.add(*[bench.film(f"1.2.6.{n}") for n in range(6)])
    for size in ("16k", "40k", "200k", "800k"):
        disk = mounted(bench.folder / f"disk-{size}", size)
        filler = disk / "filler"
        if size in ("200k", "800k"):  # a film fits, the journal does not; or the other way round
            filler.write_bytes(b"\0" * (150_000 if size == "200k" else 700_000))
        pacs = bench.pacs(f"pull-{size}", journal=disk / "j.sqlite")
        pacs.start()
        status = pacs.finish()
        lines = pacs.said.read_text().splitlines()
        is_well = (
            status == 2 and lines[-1].startswith(f"cxr: {disk}") and "Traceback" not in str(lines)
        )
        bench.row(f"tmpfs of {size}", f"exit {status}: {lines[-1]}", is_well)
        filler.unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        look(pacs)
        answered, named, line = look(pacs)
        bench.row(f"tmpfs of {size}, with space again", line[:60], (answered, named) == (0, 0))
    bench.results()


def receive(bench: Bench) -> None:
    """Test receiving many images, with the journal and the images on a small disk."""
    for size in ("300k", "800k"):
        disk = mounted(bench.folder / f"inbox-{size}", size)
        peer = f"ORTHANC@127.0.0.1:{bench.archive.dicom}"
        pacs = bench.pacs(
            f"receive-{size}",
            "--listen",
            f"CXR:{bench.listener}",
            "--send-to",
            peer,
            journal=disk / "j.sqlite",
        )
        pacs.start()
        wait_until(lambda said=pacs.said: "Receiving" in said.read_text())
        before = bench.results()
        films = []
        for number in range(12):
            films.append(pacs.folder / f"{number}.dcm")
            films[-1].write_bytes(bench.film(f"1.2.7.{size[:-1]}.{number}"))
        (disk / "filler").write_bytes(b"\0" * (int(size[:-1]) * 1000 - 290_000))
        refused = send(bench, films)
        # Somebody else fills what is left, while films wait; then there is space again.
        with (disk / "filler2").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
        answered = (bench.results() - before) // 2
        time.sleep(12)
        is_up = pacs.process is not None and pacs.process.poll() is None
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        send(bench, sorted(refused))
        wait_until(lambda n=before: bench.results() == n + 24, 180)
        time.sleep(6)
        pacs.end(signal.SIGTERM)
        said = pacs.said.read_text()
        named = [line for line in said.splitlines() if str(disk) in line]
        bench.row(
            f"receiver, tmpfs of {size}, 12 films",
            f"{len(refused)} refused, {answered} answered, then full; in the end "
            f"{bench.results() - before} results; {named[:1]}",
            is_up and bool(refused) and bench.results() == before + 24 and "Traceback" not in said,
        )


def send(bench: Bench, films: list[Path]) -> set[Path]:
    """Send images one by one.

    Args:
        bench: Orthanc and its settings.
        films: Files of the images.

    Returns:
        Images that were refused as out of resources (0xA700).
    """
    refused = set()
    for film in films:
        sent = subprocess.run(
            [
                "/usr/bin/storescu",
                "-v",
                "-xy",
                "-aec",
                "CXR",
                "127.0.0.1",
                str(bench.listener),
                film,
            ],
            capture_output=True,
            text=True,
        )
        if "OutOfResources" in sent.stdout + sent.stderr:
            refused.add(film)
        elif sent.returncode:
            raise AssertionError(sent.stderr)
    return refused


PARTS: dict[str, Callable[[Bench], None]] = {
    "studies": studies,
    "watched": watched,
    "pull": pull,
    "receive": receive,
}


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    if _NAMESPACE not in os.environ:
        os.environ[_NAMESPACE] = "1"
        here = [sys.executable, "-m", "tools.attacks.pacs", *sys.argv[1:]]
        sys.exit(subprocess.run(["unshare", "-m", *here]).returncode)
    with tempfile.TemporaryDirectory() as made:
        bench = Bench(Path(made), Path(sys.argv[1]), Path(sys.argv[2]))
        try:
            for name in sys.argv[3:] or PARTS:
                PARTS[name](bench)
        finally:
            bench.archive.kill()
            for pacs in bench.begun:
                if pacs.process and pacs.process.poll() is None:
                    pacs.end(signal.SIGKILL)
            for disk in Path(made).glob("*-*k"):
                subprocess.run(["umount", "-q", disk], check=False)
    fell = [row for row in bench.rows if not row[2]]
    print(f"{len(bench.rows)} rows, {len(fell)} fell")
    sys.exit(bool(fell))


if __name__ == "__main__":
    main()
