"""Which suites are run, in which arrangements, and which part of them CI runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

TRANSPORT = "errands.broker.transport:Transport"
BACKEND = "errands.broker.results:Backend"
POOL = "errands.worker.pool:TaskPool"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A suite with what it runs on; None is stock's own."""

    name: str
    package: str
    transport: str | None = None
    backend: str | None = None
    pool: str | None = None

    @property
    def is_stock(self) -> bool:
        return not (self.transport or self.backend or self.pool)


# Stock's outcomes are kept by package; ours are compared with those of the same package.
STOCKS = (Arrangement("kombu", "kombu"), Arrangement("celery", "celery"))
OURS = (
    Arrangement("kombu", "kombu", TRANSPORT),
    Arrangement("celery-prefork", "celery", TRANSPORT, BACKEND),
    Arrangement("celery-pool", "celery", TRANSPORT, BACKEND, POOL),
)

# What of each suite is run: prefixes of test ids, a tuple for each job; long ones first.
JOBS = {
    "celery": (
        ("test_canvas.py::test_chord",),
        ("test_tasks.py", "test_inspect.py"),
        ("test_canvas.py::test_link_error", "test_canvas.py::test_chain", "test_canvas.py::test_result_set"),
        (
            "test_canvas.py::test_group",
            "test_canvas.py::test_xmap_xstarmap",
            "test_canvas.py::test_signature_serialization",
            "test_canvas.py::test_stamping_mechanism",
        ),
    ),
    "kombu": (("test_redis.py", "test_redis_brpop_qos.py"),),
}
# Tests in their words that stock cannot pass, run on ours alone.
ADDED = {"kombu": (("test_errands.py",),)}
# Left out of what CI runs: they take long, and others ask much the same.
SLOW = (
    "test_canvas.py::test_chord::test_disabling_flag_allow_error_cb_on_chord_header",
    "test_canvas.py::test_chord::test_enabling_flag_allow_error_cb_on_chord_header",
    "test_canvas.py::test_chord::test_flag_allow_error_cb_on_chord_header_on_upgraded_chord",
    "test_canvas.py::test_chord::test_nested_chord_header_link_error",
    "test_canvas.py::test_chord::test_error_propagates_from_chord",
    "test_canvas.py::test_chord::test_large_header",
    "test_canvas.py::test_chord::test_generator",
    "test_tasks.py::test_tasks::test_retry",
    "test_tasks.py::test_tasks::test_revoked_by_headers_complex_canvas",
)


def chosen(test: str, prefixes: Iterable[str]) -> bool:
    """Whether a test is one of these: modules, classes, tests, or tests with all their parameters."""
    return any(test == prefix or test.startswith((f"{prefix}::", f"{prefix}[")) for prefix in prefixes)
