"""What Prometheus reads: counts and seconds, never names."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The figures of one server.

    Example:
        >>> metrics = Metrics(lambda: 3)
        >>> metrics.count("/v1/analyze", 200, 0.1)
        >>> b"cxr_waiting_images 3.0" in metrics.text()
        True
    """

    def __init__(self, waiting: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "cxr_requests", "Requests by route and status.", ["route", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "cxr_request_seconds", "Seconds of a request.", ["route"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._batch_images = Histogram(
            "cxr_batch_images", "Images that were answered at a time.", buckets=_IMAGES,
            registry=self._registry,
        )  # fmt: skip
        self._batch_seconds = Histogram(
            "cxr_batch_seconds", "Seconds that the systems took for them.", buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._decisions = Counter(
            "cxr_decisions", "Answers by system and decision.", ["system", "decision"],
            registry=self._registry,
        )  # fmt: skip
        gauge = Gauge("cxr_waiting_images", "Images that wait.", registry=self._registry)
        gauge.set_function(waiting)

    def count(self, route: str, status: int, seconds: float) -> None:
        """A request that was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_batch(self, images: int, seconds: float) -> None:
        """A batch that the systems answered."""
        self._batch_images.observe(images)
        self._batch_seconds.observe(seconds)

    def count_decision(self, system: str, decision: str | None) -> None:
        """An answer of a system."""
        self._decisions.labels(system, decision or "undecided").inc()

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self._registry)
