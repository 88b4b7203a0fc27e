"""Reports without their charts, which take most of the time of a small one."""

from contextlib import contextmanager
from unittest import mock

from cxr_compare import Result


@contextmanager
def undrawn():
    """Write reports whose page has no chart."""
    with mock.patch.object(Result, "_shown_charts", return_value={}):
        yield
