"""The life of a real process: it answers while it loads, and a SIGTERM loses no request."""

import signal
import threading
import time

import httpx
import pytest
from server_kit import Endpoint, get


def test_it_lives_before_it_is_ready(started: Endpoint) -> None:
    assert started.ready_when_alive == 503
    assert get(f"{started.wait().url}/readyz") == 200


def test_work_is_called_off_when_the_client_goes_away(started: Endpoint) -> None:
    url = started.wait().url
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/images/generations", json={"prompt": "rusty", "n": 8, "steps": 100}, timeout=0.4)
    begun = time.monotonic()
    while 'requests_total{code="499",model="rusty"} 1.0' not in httpx.get(f"{url}/metrics").text:
        assert time.monotonic() - begun < 60
        time.sleep(0.05)
    httpx.post(f"{url}/v1/images/generations", json={"prompt": "rusty", "steps": 1}, timeout=60).raise_for_status()


def test_a_sigterm_loses_no_request(started: Endpoint) -> None:
    url, process = started.wait().url, started.process
    answers: list[httpx.Response] = []

    def ask(steps: int) -> threading.Thread:
        body = {"prompt": "rusty", "n": 8, "steps": steps}
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/v1/images/generations", json=body, timeout=120))
        )
        asking.start()
        return asking

    first = ask(40)
    while "dreambooth_in_flight_requests 1.0" not in httpx.get(f"{url}/metrics").text:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert get(f"{url}/readyz") == 503
    # Whoever has not heard yet that this pod goes is still served.
    second = ask(2)
    for asking in (first, second):
        asking.join(120)
    assert [(answer.status_code, len(answer.json()["data"])) for answer in answers] == [(200, 8)] * 2
    assert process.wait(20) == 0
