"""The settings of a station of `cxr pacs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxr_compare.data_prep.store.answer_log import AnswerLog
from cxr_compare.serving.pacs.dimse import Address, Tls


@dataclass(frozen=True)
class StationSettings:
    """Source of the images, choice among them, and destination of the results.

    Attributes:
        url: DICOMweb service from which images are fetched; None where they are received.
        listen: ``AE:PORT`` at which images are received; None where they are fetched.
        callers: AE titles that may send to `listen`; empty allows every sender.
        send_to: Destination of the results, a URL or ``AE@HOST:PORT``; None sends to `url`.
        title: AE title of the station as a sender, where there is no `listen`.
        tls_cert: PEM file with the station's key and certificate.
        tls_ca: PEM file of the authority that signs the certificates of DICOM peers.
        modalities: Modalities that are answered for.
        since: First study date, ``YYYYMMDD``.
        limit: Most images that one search fetches; None fetches all.
        watch: Seconds between two searches; None searches once.
        journal: File that records what is done.
        patience: Seconds for which an archive may not answer.
        dry_run: True sends nothing and records nothing.
        strict: True skips an image with a warning.
        log: Log of answers for `cxr monitor`, without images that their header excludes.
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
        """Address at which images are received; None where they are fetched."""
        if self.listen is None:
            return None
        return Address.parse(self.listen, "--listen", host="127.0.0.1")

    @property
    def tls(self) -> Tls | None:
        """TLS for DICOM's own network; None where the settings name no certificates."""
        if self.tls_cert is None or self.tls_ca is None:
            return None
        return Tls(self.tls_cert, self.tls_ca)

    @property
    def images_folder(self) -> Path:
        """Folder of images while they are worked on; their headers name patients."""
        return self.journal.with_name(f"{self.journal.name}-images")
