"""A DICOMweb archive: it lists studies and images, sends images, and stores results.

The services are QIDO-RS, WADO-RS and STOW-RS of DICOM PS3.18. An error message names the archive
and the kind of request, and never a UID or a header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom.dataset import Dataset

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.hospital.dicom_objects.result_identity import SOFTWARE
from cxr_compare.hospital.pacs.patience import OutageError, Patience, RefusedError

Result = TypeVar("Result")

_TIMEOUT = (10.0, 120.0)  # seconds to connect, and between bytes
_PAGE = 200  # entries of a list
_PLAIN_BYTES = 1 << 29  # up to here a request states its length: not every archive reads chunks
_STUDY = "0020000D"
_SERIES = "0020000E"
_INSTANCE = "00080018"
_MODALITY = "00080060"
_MANUFACTURER = "00080070"
_COUNT = "00201208"
_DUPLICATE = 0x0111  # failure reason: the archive has this instance
_LATER = {408, 429, 502, 503, 504}


@dataclass(frozen=True)
class Credentials:
    """Credentials for an archive, which are read from the environment and never shown.

    Attributes:
        variables: Beginning of the names of the environment variables, such as ``CXR_PACS`` for
            ``CXR_PACS_TOKEN``.
        token: Token that is sent as "Authorization: Bearer TOKEN".
        user: User name that is sent with the password as HTTP Basic.
    """

    variables: str
    token: str | None = None
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return "<Credentials>"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], prefix: str) -> Credentials:
        """Read the variables ``PREFIX_TOKEN``, or ``PREFIX_USER`` and ``PREFIX_PASSWORD``.

        If no variable is set, there is neither a token nor a user. Only one of user and password, a
        token beside a user, and a value with a control character are refused.
        """
        token, user, password = (
            environment.get(f"{prefix}_{name}") or None for name in ("TOKEN", "USER", "PASSWORD")
        )
        if (user is None) != (password is None):
            present, lacking = ("USER", "PASSWORD") if user else ("PASSWORD", "USER")
            raise InputError(
                f"{prefix}_{present} is set without {prefix}_{lacking}; set both or neither"
            )
        if token and user:
            raise InputError(f"{prefix}_TOKEN and {prefix}_USER are both set; unset one")
        for name, value in (("TOKEN", token), ("USER", user), ("PASSWORD", password)):
            if value and not value.isprintable():
                raise InputError(f"{prefix}_{name}: has a line break or another control character")
        return cls(prefix, token, user, password)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the credentials to a request. The package `requests` calls this for each request.

        If the archive redirects to another host, `requests` removes them.
        """
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        elif self.user and self.password:
            pair = (self.user.encode(), self.password.encode())
            request = requests.auth.HTTPBasicAuth(*pair)(request)
        return request


@dataclass(frozen=True)
class ArchivedImage:
    """An image of an archive, named by the three DICOM UIDs of study, series and instance."""

    study: str
    series: str
    uid: str


@dataclass(frozen=True)
class LeftOutImage:
    """A DICOM series or instance that is not predicted, with the reason in one line."""

    uid: str
    reason: str


class DicomWebArchive:
    """An archive that is reached by DICOMweb (DICOM over HTTP) at a URL.

    Every method that sends a request raises `UnreachableError` if the archive does not answer in
    time, `RefusedError` if it refuses this one request, and another `InputError` if the
    credentials, the certificate or the URL are wrong. A URL that contains credentials, or is not
    that of a DICOMweb service, is refused. `patience` is the rule for repeating a request.

    Attributes:
        shown: The URL as messages show it.
    """

    def __init__(self, url: str, credentials: Credentials, patience: Patience) -> None:
        _require_url(url)
        self.shown = url.rstrip("/")
        session = requests.Session()
        session.auth = credentials
        try:
            self._client = DICOMwebClient(
                self.shown, session=session, timeout=_TIMEOUT, chunk_size=_PLAIN_BYTES
            )
        except ValueError:
            raise InputError(f"{url}: write a URL such as https://pacs.example/dicom-web") from None
        self._client.set_http_retry_params(retry=False)
        self._session = session
        self._patience = patience
        self._variables = credentials.variables

    def close(self) -> None:
        """Close the connections to the archive."""
        self._session.close()

    def echo(self, modality: str = "CR", since: str | None = None, *, waits: bool = False) -> None:
        """Search the archive for one study, in order to learn whether it answers.

        The search is as in `studies`. With `waits`, the request is repeated until the archive
        answers, or for as long as the archive's `Patience` allows; without, it is sent once.
        """
        with suppress(RefusedError):  # it answers
            search = partial(self._search(modality, since), limit=1)
            self._ask(search, "the list of studies", waits=waits)

    def studies(self, modalities: Sequence[str], since: str | None = None) -> dict[str, int | None]:
        """Return the number of images of each study with one of the modalities, by its UID.

        The number is None if the archive does not tell it. Modalities are DICOM codes such as
        ``CR`` and ``DX``; `since` is the first study date, ``YYYYMMDD``, or None for any.
        """
        studies: dict[str, int | None] = {}
        for modality in modalities:
            search = self._search(modality, since)
            for uid, entry in self._list(search, _STUDY, "the list of studies").items():
                count = _value(entry, _COUNT)
                studies[uid] = None if count is None else int(count)
        return studies

    def _search(self, modality: str, since: str | None) -> Callable[..., list[dict[str, Any]]]:
        filters = {"ModalitiesInStudy": modality}
        if since:
            filters["StudyDate"] = f"{since}-"
        return partial(self._client.search_for_studies, fields=[_COUNT], search_filters=filters)

    def images(
        self, study: str, modalities: Sequence[str]
    ) -> Iterator[ArchivedImage | LeftOutImage]:
        """List the images of a study (StudyInstanceUID), and series and images that are left out.

        Only the modalities, DICOM codes such as ``CR`` and ``DX``, are included, and a series
        without a modality. Results of this program are always left out.
        """
        search = partial(self._client.search_for_series, study, fields=[_MODALITY, _MANUFACTURER])
        for series, entry in self._list(search, _SERIES, "a list of series").items():
            modality = _value(entry, _MODALITY)
            if _value(entry, _MANUFACTURER) == SOFTWARE:
                yield LeftOutImage(series, f"a result of {SOFTWARE}")
            elif modality is not None and modality not in modalities:
                term = modality if modality.isalnum() else "of another kind"
                yield LeftOutImage(series, f"a series whose modality is {term}")
            else:
                yield from self._images_of(study, series)

    def _images_of(self, study: str, series: str) -> Iterator[ArchivedImage | LeftOutImage]:
        search = partial(self._client.search_for_instances, study, series, fields=[_MANUFACTURER])
        for uid, entry in self._list(search, _INSTANCE, "a list of images").items():
            if _value(entry, _MANUFACTURER) == SOFTWARE:
                yield LeftOutImage(uid, f"a result of {SOFTWARE}")
            else:
                yield ArchivedImage(study, series, uid)

    def fetch(self, image: ArchivedImage) -> Dataset:
        """Fetch an image, header and pixels, as the archive stores it.

        If the archive sends another image, that is a `RefusedError`, too.
        """
        dataset = self._ask(
            lambda: self._client.retrieve_instance(image.study, image.series, image.uid),
            "an image",
        )
        if str(dataset.get("SOPInstanceUID", "")).strip(" \0") != image.uid:
            raise RefusedError(f"{self.shown}: gave another image than was asked for")
        return dataset

    def store(self, results: Sequence[Dataset]) -> None:
        """Send DICOM results to the archive. A result that it already has counts as stored."""
        answer = self._ask(lambda: self._store(results), "results")
        failed = [
            int(item.get("FailureReason", 0))
            for item in answer.get("FailedSOPSequence", [])
            if int(item.get("FailureReason", 0)) != _DUPLICATE
        ]
        if failed:
            raise RefusedError(f"{self.shown}: does not store a result (reason 0x{failed[0]:04X})")

    def _store(self, results: Sequence[Dataset]) -> Dataset:
        try:
            return self._client.store_instances(list(results))
        except requests.HTTPError as error:
            # 409: none was stored; the answer says why.
            if error.response is None or error.response.status_code != 409:
                raise
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                said = Dataset.from_json(error.response.json())
                if said.get("FailedSOPSequence"):
                    return said
            raise

    def _list(
        self, search: Callable[..., list[dict[str, Any]]], key: str, what: str
    ) -> dict[str, dict[str, Any]]:
        """Return all pages of a list by UID; an archive without pages gives one."""
        entries_by_uid: dict[str, dict[str, Any]] = {}
        page = {"limit": _PAGE, "offset": 0}
        while True:
            entries = self._ask(partial(search, **page), what)
            known = len(entries_by_uid)
            try:
                entries_by_uid |= {str(uid): e for e in entries if (uid := _value(e, key))}
            except (AttributeError, TypeError):
                raise InputError(f"{self.shown}: {_NO_DICOMWEB}") from None
            if len(entries_by_uid) > known and page:
                page["offset"] = len(entries_by_uid)
            elif page and known and known % _PAGE == 0:
                page = {}  # Orthanc 1.10 has no second page of a search by modality: ask for all
            else:
                return entries_by_uid

    def _ask(self, request: Callable[[], Result], what: str, *, waits: bool = True) -> Result:
        """Send a request, patiently, and say in one line what came of it instead."""

        def attempt() -> Result:
            try:
                return request()
            except requests.exceptions.SSLError:
                raise InputError(
                    f"{self.shown}: its certificate is not trusted; name your hospital's authority "
                    "in REQUESTS_CA_BUNDLE (a .pem file)"
                ) from None
            except requests.HTTPError as error:
                raise self._of_status(error.response, what) from None
            except requests.JSONDecodeError:
                raise InputError(f"{self.shown}: {_NO_DICOMWEB}") from None
            except requests.exceptions.InvalidURL:
                raise InputError(f"{self.shown}: is no URL that can be reached") from None
            except requests.Timeout:
                raise OutageError("does not answer in time") from None
            except requests.RequestException as error:
                refused = "refused" in str(error)
                raise OutageError(
                    "refuses the connection" if refused else "the connection broke"
                ) from None
            except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError):
                # What dicomweb-client and pydicom raise on answers that they cannot read.
                raise RefusedError(f"{self.shown}: its answer for {what} cannot be read") from None

        patience = self._patience if waits else replace(self._patience, seconds=0.0)
        return patience.run(attempt, self.shown)

    def _of_status(self, response: requests.Response | None, what: str) -> Exception:
        status = 0 if response is None else response.status_code
        words = f"answers {status} for {what}"
        if response is not None and (status in _LATER or status >= 500):
            wait = response.headers.get("Retry-After", "")
            seconds = float(wait) if wait.isdigit() else None
            return OutageError(words, retry_after=seconds, is_down=status in _LATER)
        if status in (401, 403):
            return InputError(
                f"{self.shown}: {words}; set {self._variables}_TOKEN, or {self._variables}_USER "
                f"and {self._variables}_PASSWORD, to what it knows"
            )
        if status in (404, 405) and "list of studies" in what:
            return InputError(f"{self.shown}: {words}: {_NO_DICOMWEB}")
        return RefusedError(f"{self.shown}: {words}")


_NO_DICOMWEB = "no DICOMweb service seems to be there; its URL often ends in /dicom-web"


def _require_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_url = False
    if not is_url:
        raise InputError("give a URL such as https://pacs.example/dicom-web")
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"{parts.hostname}: the URL holds credentials, which others can read on this machine; "
            "set CXR_PACS_USER and CXR_PACS_PASSWORD in the environment"
        )
    if parts.query or parts.fragment:
        raise InputError(f"{parts.hostname}: give the URL without ? and #")


def _value(entry: Mapping[str, Any], tag: str) -> Any:
    values = entry.get(tag, {}).get("Value") or [None]
    return values[0]
