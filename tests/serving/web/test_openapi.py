"""The OpenAPI document is what the server does: schemathesis sends what it allows, and what not."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance


@pytest.fixture(scope="session")
def document(client: Any) -> Any:
    """The document of the running app."""
    return schemathesis.openapi.from_asgi("/openapi.json", client.asgi)


ROUTES = (
    ("GET", "/v1/models"), ("POST", "/v1/analyze"), ("POST", "/v1/pixels"),
    ("GET", "/healthz"), ("GET", "/examples"),
)  # fmt: skip


def test_the_document_names_every_route(document: Any) -> None:
    labels = {operation.ok().label for operation in document.get_all_operations()}
    assert labels == {f"{method} {path}" for method, path in ROUTES}


@pytest.mark.parametrize("examples", [5, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_route_answers_as_documented(document, method, path, mode, examples):
    """Requests as the document allows them, or not, and each response held against it."""
    operation = document[path][method]

    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        # Bytes of any kind are a file to the document, and seldom an image.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    try:
        check()
    except Unsatisfiable:  # without a parameter there is nothing to do wrong
        assert mode is GenerationMode.NEGATIVE
        assert method == "GET"
