"""Whatever a program asks, within the OpenAPI document and beside it, the answer is one that the document promises."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from notif_assets_tests.cli.messages import ACME
from notif_assets_tests.panel.conftest import Served

_CHECKS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_every_answer_is_promised(served: Served) -> None:
    document = schemathesis.openapi.from_url(f"{served.url}/api/v1/openapi.json")
    operations = [result.ok() for result in document.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) == 7
    for operation in operations:

        @settings(max_examples=15, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            for whom in (None, ACME):
                headers = {"Authorization": f"Bearer {served.token(whom)}"}
                case.call_and_validate(headers=headers, checks=_CHECKS, timeout=60)
                if "customer_id" in case.path_parameters:
                    # Generated ids are nobody's: the same again of somebody, so that there is something to answer.
                    case.path_parameters["customer_id"] = ACME
                    case.call_and_validate(headers=headers, checks=_CHECKS, timeout=60)

        ask()
