"""`cxr pacs --listen` is killed (-9) while images come and results go; no archive is needed.

Usage: ``python -m tools.attacks.pacs_kills EXPORT [--kills N] [--images N] [--seed N]``. EXPORT is
a folder that ``cxr export`` made. A sender sends each image until it is acknowledged, as a modality
does; a receiver in this program keeps the results. At the end each acknowledged image must have one
report and one capture, whatever was sent twice, and no incomplete file may remain. Otherwise the
exit status is 1.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import ComputedRadiographyImageStorage, Verification

from tests.scripts.launched import free_port, naming
from tests.serving.radiographs import radiograph
from tools.attacks import material

_PATIENCE_S = 240.0


class Peer:
    """Receiver that keeps the results of each image, by their kind."""

    def __init__(self) -> None:
        self.port = free_port()
        self.captures: dict[str, set[str]] = defaultdict(set)  # by the image that they show
        self.reports: dict[str, set[str]] = defaultdict(set)
        self.received = 0
        entity = AE(ae_title="KEEPER")
        entity.supported_contexts = AllStoragePresentationContexts
        entity.add_supported_context(Verification)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._keep)]
        self._server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=handlers
        )

    def _keep(self, event: evt.Event) -> int:
        result = event.dataset
        self.received += 1
        uid = str(result.SOPInstanceUID)
        if result.Modality == "SR":
            evidence = result.CurrentRequestedProcedureEvidenceSequence[0]
            source = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
            self.reports[str(source.ReferencedSOPInstanceUID)].add(uid)
        else:
            source = result.SourceImageSequence[0]
            self.captures[str(source.ReferencedSOPInstanceUID)].add(uid)
        return 0

    def has(self, image: str) -> bool:
        """Return True if both results of an image have arrived."""
        return image in self.captures and image in self.reports

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()


def image_of(number: int) -> Any:
    """Make a small radiograph with its own patient and study."""
    rng = np.random.default_rng(number)
    uid = f"1.2.3.55.{number}"
    made = radiograph(
        rng.integers(0, 255, (64, 64), np.uint8),
        SOPInstanceUID=uid,
        StudyInstanceUID=f"{uid}.1",
        SeriesInstanceUID=f"{uid}.2",
        PatientID=f"P{number}",
        ViewPosition="PA",
    )
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = uid
    return made


def send(port: int, images: list[Any], acknowledged: set[str]) -> None:
    """Send images, and note which were acknowledged.

    Args:
        port: Port of `cxr pacs`.
        images: DICOM objects.
        acknowledged: UIDs of acknowledged images, to which this function adds.
    """
    entity = AE(ae_title="CT1")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 5
    entity.add_requested_context(ComputedRadiographyImageStorage)
    association = entity.associate("127.0.0.1", port, ae_title="CXR")
    if not association.is_established:
        return
    try:
        for image in images:
            with suppress(RuntimeError):
                status = association.send_c_store(image)
                if status and status.Status == 0:
                    acknowledged.add(str(image.SOPInstanceUID))
    finally:
        if association.is_established:
            association.release()


def check(peer: Peer, acknowledged: set[str], folder: Path) -> list[str]:
    """Return one line for each problem.

    Args:
        peer: Receiver of the results.
        acknowledged: UIDs of acknowledged images.
        folder: Folder of `cxr pacs`.

    Returns:
        Results that are missing or repeated, and files that were left.
    """
    wrong = []
    for uid in sorted(acknowledged):
        counts = len(peer.reports[uid]), len(peer.captures[uid])
        if counts != (1, 1):
            wrong.append(f"{uid}: {counts[0]} reports, {counts[1]} captures")
    text = (folder / "said.txt").read_text()
    if "Traceback" in text:
        wrong.append(text[text.index("Traceback") :][:800])
    wrong += [
        f"left: {path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.suffix in (".part", ".tmp") or path.name.endswith(".lock")
    ]
    processes = naming(str(folder))
    return wrong + [f"still runs: {each}" for each in processes if each != os.getpid()]


def main() -> int:
    """Run the attack; return 1 if an image has no result or several."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--seed", type=int, default=55)
    given = parser.parse_args()
    draw = random.Random(given.seed)  # noqa: S311
    peer = Peer()
    port = free_port()
    wrong = []
    images = [image_of(number) for number in range(given.images)]
    acknowledged: set[str] = set()
    kills = 0
    with tempfile.TemporaryDirectory(prefix="cxr-pacs-kills-") as name:
        folder = Path(name)
        words = (
            "pacs",
            given.export.resolve(),
            "--listen",
            f"CXR:{port}",
            "--send-to",
            f"KEEPER@127.0.0.1:{peer.port}",
            "--journal",
            folder / "journal.sqlite",
            "--log",
            folder / "log",
        )
        said = (folder / "said.txt").open("ab")
        variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(material.ROOT)}
        until = time.monotonic() + _PATIENCE_S
        while kills < given.kills or any(not peer.has(uid) for uid in acknowledged):
            process = subprocess.Popen(
                material.cxr_command(*words),
                env={**os.environ, **variables},
                stderr=said,
                stdout=said,
            )
            last = kills >= given.kills
            kill_at = time.monotonic() + draw.uniform(3, 14)
            until = time.monotonic() + _PATIENCE_S
            while process.poll() is None and time.monotonic() < (until if last else kill_at):
                missing = [each for each in images if str(each.SOPInstanceUID) not in acknowledged]
                batch = draw.sample(missing, min(len(missing), draw.randint(1, 4)))
                if batch:
                    send(port, batch, acknowledged)
                if last and not missing and all(map(peer.has, acknowledged)):
                    break
                time.sleep(0.3)
            if process.poll() is not None:
                wrong.append(f"ended by itself with {process.returncode}")
                break
            process.send_signal(signal.SIGTERM if last else signal.SIGKILL)
            process.wait(timeout=60)
            kills += not last
            if last:
                break
        said.close()
        wrong += check(peer, acknowledged, folder)
    peer.close()
    print(
        f"{len(acknowledged)} of {len(images)} images acknowledged, {kills} kills, "
        f"{peer.received} results received, {len(wrong)} wrong"
    )
    for line in wrong:
        print(f"  {line}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
