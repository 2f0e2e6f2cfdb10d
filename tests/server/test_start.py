"""What a start was made of, as Prometheus and the log are told."""

import subprocess
import sys
import time

import httpx
from server_kit import Endpoint

from dreambooth_server.metrics import make_metrics
from dreambooth_server.start import Start, process_age


def test_stages_follow_one_another() -> None:
    metrics = make_metrics()
    start = Start(metrics)
    young = process_age()
    start.passed("process")
    time.sleep(0.05)
    start.passed("weights")
    old, rounding = process_age(), 0.011
    read = metrics.registry.get_sample_value
    process = read("dreambooth_start_duration_seconds", {"stage": "process"})
    weights = read("dreambooth_start_duration_seconds", {"stage": "weights"})
    assert young - rounding <= process <= old + rounding
    assert 0.04 < weights <= old - young + rounding
    assert young + 0.04 - rounding <= start.seconds <= old + rounding
    assert str(start).endswith(f", weights {weights:.2f}")


def test_a_process_knows_its_age() -> None:
    code = "import time; time.sleep(0.3); from dreambooth_server.start import process_age; print(process_age())"
    begun = time.monotonic()
    age = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 0.3 < age < time.monotonic() - begun + 0.02


def test_a_ready_replica_says_what_its_start_was_made_of(started: Endpoint) -> None:
    url, found = started.wait().url, {}
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        name, _, value = line.rpartition(" ")
        found[name] = value
    stages = ("process", "artifact", "base", "libraries", "weights", "picture")
    seconds = [float(found[f'dreambooth_start_duration_seconds{{stage="{stage}"}}']) for stage in stages]
    assert all(each >= 0 for each in seconds)
    assert float(found["process_start_time_seconds"]) + sum(seconds) < time.time()
    assert "s on cpu: rusty (process " in started.log.read_text()
