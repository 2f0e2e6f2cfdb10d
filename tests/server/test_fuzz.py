"""A replica's own OpenAPI description, fuzzed over real sockets: no 5xx, and no answer that it does not describe."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from server_kit import Made

from dreambooth_server.app import create_app
from dreambooth_server.protocol import MAX_STEPS
from dreambooth_server.service import Service

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
GENERATIONS = "/v1/images/generations"


@pytest.fixture(scope="module")
def pool_url(pool: Service) -> Iterator[str]:
    """The pool on a real socket."""
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(pool), log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield "http://{}:{}".format(*listening.getsockname())
    server.should_exit = True
    thread.join()


def fuzz(operation: schemathesis.schemas.APIOperation, headers: dict[str, str]) -> set[int]:
    """The statuses that hypothesis found."""
    found: set[int] = set()
    tried = 0

    @settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def check(case: schemathesis.Case) -> None:
        nonlocal tried
        tried += 1
        if isinstance(case.body, dict):
            _cheapen(case.body)
            # Of names that hypothesis thinks of nobody is served: every second request leaves the model to the server.
            if tried % 2:
                case.body.pop("model", None)
        found.add(case.call_and_validate(checks=CHECKS, headers=headers, timeout=60).status_code)

    check()
    return found


def _cheapen(body: dict[str, Any]) -> None:
    """What is valid and only takes long is asked for in its least form."""
    for name, most in (("steps", MAX_STEPS), ("n", 8)):
        if type(body.get(name)) is int and 1 < body[name] <= most:
            body[name] = 2
    body.setdefault("steps", 2)


def fuzzed(url: str, headers: dict[str, str]) -> dict[str, set[int]]:
    """Statuses by operation."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    return {op.label: fuzz(op, headers) for op in (result.ok() for result in schema.get_all_operations())}


def test_no_request_makes_a_replica_fail(endpoint: str) -> None:
    found = fuzzed(endpoint, {})
    assert found.keys() == {"GET /v1/models", "GET /v1/models/{model}", f"POST {GENERATIONS}"}
    assert {200, 400} <= found[f"POST {GENERATIONS}"], found
    assert found["GET /v1/models"] == {200}


def test_no_request_makes_a_pool_fail(pool_url: str, lora: Made) -> None:
    named = {"dreambooth-model": "team/rusty", "dreambooth-artifact": f"file://{lora.folder}"}
    found = fuzzed(pool_url, {**named, "dreambooth-digest": lora.digest})
    assert {200, 400} <= found[f"POST {GENERATIONS}"], found
    assert fuzzed(pool_url, {})[f"POST {GENERATIONS}"] == {400}


EXTREMES: list[tuple[str, str, int]] = [
    ("a size that is no multiple of 8", '{"prompt": "rusty", "size": "33x32"}', 400),
    ("a million pictures", '{"prompt": "rusty", "n": 1000000}', 400),
    ("more digits than an int has", '{"prompt": "rusty", "seed": %s}' % ("9" * 5000), 400),
    ("NaN", '{"prompt": "rusty", "guidance_scale": NaN}', 400),
    ("infinity", '{"prompt": "rusty", "guidance_scale": 1e999}', 400),
    ("a prompt of 10 kB", json.dumps({"prompt": "x" * 10_000}), 400),
    ("a prompt of 100 kB", json.dumps({"prompt": "x" * 100_000}), 413),
    ("a body of 10 MB", " " * 10_000_000, 413),
    ("arrays in arrays", '{"prompt": %s1%s}' % ("[" * 9000, "]" * 9000), 400),  # noqa: UP031
]


@pytest.mark.parametrize(("body", "status"), [pytest.param(*case, id=name) for name, *case in EXTREMES])
def test_extremes_are_refused_in_openais_shape(endpoint: str, body: str, status: int) -> None:
    answer = httpx.post(f"{endpoint}{GENERATIONS}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert len(answer.content) < 2000
