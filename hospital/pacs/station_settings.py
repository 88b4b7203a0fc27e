"""The settings of a station of `cxr pacs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxr_compare.hospital.answers.answer_log import AnswerLog
from cxr_compare.hospital.pacs.dimse import Address, Tls


@dataclass(frozen=True)
class StationSettings:
    """Settings of a station: source of the images, choice of them, and receiver of the results.

    Attributes:
        url: URL of the DICOMweb service from which images are fetched; None if other machines send
            them.
        listen: ``AE:PORT`` at which images are received; None if they are fetched.
        callers: AE titles that may send to `listen`; empty allows every sender.
        send_to: Destination of the results, a URL or ``AE@HOST:PORT``; None sends them to `url`.
        title: AE title under which results are sent, if there is no `listen`.
        tls_cert: PEM file with the key and certificate of this program; None for no TLS.
        tls_ca: PEM file of the authority that signs the certificates of DICOM peers; None for no
            TLS.
        modalities: Modalities of the images that are predicted, as DICOM codes such as ``CR``.
        since: First study date of the search, ``YYYYMMDD``; None for any date.
        limit: Largest number of images that one search fetches; None fetches all.
        watch: Seconds between two searches; None searches once.
        journal: SQLite file that records which images are already predicted and sent.
        patience: Seconds for which the archive may fail to answer.
        dry_run: True sends nothing and records nothing.
        strict: True skips an image with a warning, such as one that is no frontal chest X-ray.
        log: Log of predictions for `cxr monitor`; None writes no log. Images that are skipped by
            their header are not in it.
    """

    url: str | None
    listen: str | None
    callers: list[str]
    send_to: str | None
    title: str
    tls_cert: Path | None
    tls_ca: Path | None
    modalities: list[str]
    since: str | None
    limit: int | None
    watch: float | None
    journal: Path
    patience: float
    dry_run: bool
    strict: bool
    log: AnswerLog | None = None

    @property
    def listening_address(self) -> Address | None:
        """Address at which images are received; None if they are fetched from `url`."""
        if self.listen is None:
            return None
        return Address.parse(self.listen, "--listen", host="127.0.0.1")

    @property
    def tls(self) -> Tls | None:
        """Files for TLS of the DICOM network; None if the settings name no certificates."""
        if self.tls_cert is None or self.tls_ca is None:
            return None
        return Tls(self.tls_cert, self.tls_ca)

    @property
    def images_folder(self) -> Path:
        """Folder of the images that are being predicted; headers in it contain patients' names."""
        return self.journal.with_name(f"{self.journal.name}-images")
