"""The gateway's OpenAPI description, fuzzed over a real socket: no 5xx, and no answer that it does not describe."""

from pathlib import Path

import schemathesis
from gateway_fakes import REX, route, target
from gateway_kit import Behind
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


def fuzz(operation: schemathesis.schemas.APIOperation) -> set[int]:
    """The statuses that hypothesis found."""
    found: set[int] = set()
    tried = 0

    @settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def check(case: schemathesis.Case) -> None:
        nonlocal tried
        tried += 1
        # Of names that hypothesis thinks of nobody is served: every second request is for the subject that is.
        if tried % 2 and "name" in case.path_parameters:
            case.path_parameters.update(namespace="demo", name="rex")
        found.add(case.call_and_validate(checks=CHECKS, timeout=30).status_code)

    check()
    return found


def test_no_request_makes_the_gateway_fail(tmp_path: Path) -> None:
    behind = Behind(tmp_path)
    try:
        behind.do(behind.stage.tell([route("rex", target())], {REX: [behind.do(behind.stage.replica("rex-1"))]}))
        schema = schemathesis.openapi.from_url(f"{behind.stage.url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        found = {operation.label: fuzz(operation) for operation in operations}
    finally:
        behind.end()
    assert len(found) == 6
    assert {200, 400} <= found["POST /{namespace}/{name}/v1/images/generations"], found
