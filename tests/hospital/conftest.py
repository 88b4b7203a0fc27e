"""Systems that answer: those that the tests of serving make."""

from tests.serving.conftest import systems as systems
