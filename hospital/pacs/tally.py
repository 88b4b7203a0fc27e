"""Numbers of images that `cxr pacs` has answered, skipped and failed, for its summary line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cxr_compare.data_prep.contracts.errors import counted


@dataclass(frozen=True)
class Tally:
    """Images, results and studies since the program began, by their outcome.

    All names in the sets are digests of UIDs.

    Attributes:
        answered: Images that were predicted.
        results: DICOM objects that were made.
        done_before: Images that an earlier run of the program had finished.
        unchanged: Studies without a new image.
        skipped: Reason for each image or series that was not predicted, such as its modality.
        failed: Images that could not be predicted, or whose results the archive refused.

    Example:
        >>> tally = Tally(answered={"a"}, results={"r", "s"}, skipped={"b": "its modality is CT"})
        >>> tally.line("PACS")
        '1 image answered; 2 results sent to PACS; 1 skipped (1 its modality is CT)'
    """

    answered: set[str] = field(default_factory=set)
    results: set[str] = field(default_factory=set)
    done_before: set[str] = field(default_factory=set)
    unchanged: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def line(self, destination: str, *, dry_run: bool = False) -> str:
        """Return the counts as one line of text; `destination` is where results are sent.

        With `dry_run`, results were made but not sent.
        """
        results = counted(len(self.results), "result")
        parts = [f"{counted(len(self.answered), 'image')} answered"]
        parts.append(
            f"{results} made, none sent" if dry_run else f"{results} sent to {destination}"
        )
        if self.done_before:
            parts.append(f"{len(self.done_before):,} done before")
        if self.unchanged:
            parts.append(f"{counted(len(self.unchanged), 'study')} unchanged")
        if self.skipped:
            reasons = Counter(self.skipped.values()).most_common()
            reasons_text = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
            parts.append(f"{len(self.skipped):,} skipped ({reasons_text})")
        if self.failed:
            parts.append(f"{len(self.failed):,} failed, see above")
        return "; ".join(parts)

    def mentions(self, image: str) -> bool:
        """Return True if this run of the program predicted or skipped an image, or failed on it.

        The image is the digest of its UID, from `hospital.pacs.journal.digest`.
        """
        return image in self.answered or image in self.skipped or image in self.failed
