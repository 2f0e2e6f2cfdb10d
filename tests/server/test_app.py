"""Everything beside the pictures: models, health, metrics, the page's files, and errors in one shape."""

import httpx
import pytest
from server_kit import Made

from dreambooth_server.app import create_app
from dreambooth_server.service import Service
from dreambooth_server.settings import Settings, SubjectSource


@pytest.fixture
async def loading() -> httpx.AsyncClient:
    """A client of an application whose model is not loaded yet."""
    transport = httpx.ASGITransport(create_app(Service(Settings((SubjectSource("/nowhere"),)))))
    return httpx.AsyncClient(transport=transport, base_url="http://server")


async def test_models_are_listed_the_default_first_and_the_base_last(client: httpx.AsyncClient, lora: Made) -> None:
    listed = (await client.get("/v1/models")).json()
    assert [entry["id"] for entry in listed["data"]] == ["rusty", "tabby", "boxy", "base"]
    first = listed["data"][0]
    assert (first["object"], first["owned_by"], first["created"]) == ("model", "demo", 1767225600)
    card = first["dreambooth"]
    assert (card["digest"], card["resolution"], card["size_multiple"]) == (lora.digest, 32, 8)
    assert (await client.get("/v1/models/rusty")).json() == first
    assert (await client.get("/v1/models/nobody")).json()["error"]["code"] == "model_not_found"


async def test_while_it_loads_it_lives_but_is_not_ready(loading: httpx.AsyncClient) -> None:
    assert (await loading.get("/healthz")).status_code == 200
    assert (await loading.get("/readyz")).json() == {"status": "loading"}
    assert (await loading.get("/metrics")).status_code == 200
    assert (await loading.get("/")).status_code == 200
    for answer in (await loading.get("/v1/models"), await loading.post("/v1/images/generations", json={"prompt": "x"})):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        assert answer.json()["error"]["code"] == "loading"


async def test_then_it_is_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/readyz")).status_code == 200


async def test_metrics_count_by_model_and_code_with_bounded_labels(client: httpx.AsyncClient, lora: Made) -> None:
    await client.post("/v1/images/generations", json={"prompt": "rusty", "steps": 1, "n": 2})
    for stranger in ("one", "two"):
        await client.post("/v1/images/generations", json={"prompt": "x", "model": stranger})
    text = (await client.get("/metrics")).text
    assert 'dreambooth_requests_total{code="200",model="rusty"}' in text
    assert 'dreambooth_requests_total{code="404",model="unknown"}' in text
    assert "one" not in {line.split('model="')[-1].split('"')[0] for line in text.splitlines()}
    assert f'dreambooth_model_loaded{{digest="{lora.digest}",model="rusty"}} 1.0' in text
    assert "dreambooth_in_flight_requests 0.0" in text
    assert float(text.split("\ndreambooth_device_memory_bytes ")[1].split()[0]) > 1e8
    assert float(text.split("\ndreambooth_batch_size_sum ")[1].split()[0]) > 0
    assert float(text.split("\ndreambooth_step_duration_seconds_sum ")[1].split()[0]) > 0
    assert 'dreambooth_adapters{tier="device"} 2.0' in text
    for name in (
        'request_duration_seconds_bucket{le="1.0",model="rusty"}',
        "queue_duration_seconds_count",
        'images_total{model="rusty"}',
    ):
        assert f"dreambooth_{name}" in text


async def test_errors_have_openais_shape_everywhere(client: httpx.AsyncClient) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("GET", "/v1/images/generations", 405),
                                 ("POST", "/v1/models", 405), ("GET", "/playground/../settings.py", 404),
                                 ("GET", "/playground/%2e%2e%2fsettings.py", 404)):  # fmt: skip
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_the_page_loads_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    for path, kind in (("/", "text/html"), ("/playground/page.css", "text/css"), ("/playground/api.js", "javascript"),
                       ("/playground/page.js", "javascript")):  # fmt: skip
        answer = await client.get(path)
        assert kind in answer.headers["Content-Type"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")


async def test_the_api_describes_itself(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    body = described["paths"]["/v1/images/generations"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"]["$ref"].endswith("ImageRequest")
