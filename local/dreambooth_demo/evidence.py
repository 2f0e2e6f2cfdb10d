"""What the demo left behind, looked up where a user would look: MLflow, the store, Prometheus, the job's status."""

import json
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from minio import Minio

from dreambooth_demo.access import service_url
from dreambooth_demo.kube import Kube
from dreambooth_demo.platform import NAMESPACE, RELEASE

SERIES = {
    "operator": "dreambooth_jobs",
    "trainer": "dreambooth_training_step",
    "server": "dreambooth_model_loaded",
    "gateway": "dreambooth_gateway_in_flight_requests",
}


@dataclass(frozen=True)
class Evidence:
    """URLs, scores and findings of one finished job."""

    urls: dict[str, str]
    fidelity: dict[str, float]
    scores: dict[str, str]
    facts: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        """The findings, a line each."""
        return [f"{name:<12}{fact}" for name, fact in self.facts.items()]


def collect(kube: Kube, namespace: str, job: str, model: str, store: tuple[Minio, str]) -> Evidence:
    """Look everything up. Raises LookupError when something that must be there is not."""
    urls = {name: service_url(kube, NAMESPACE, f"{RELEASE}-{name}") for name in ("mlflow", "prometheus")}
    status = (kube.get("dreamboothjob", job, namespace) or {})["status"]
    scores = status["scores"]
    facts = {
        "MLflow": _run(urls["mlflow"], status["run"]["id"], model),
        "store": _objects(*store, status),
        "Prometheus": {part: _series(urls["prometheus"], name) for part, name in SERIES.items()},
    }
    fidelity = {"base": float(scores["baseClipI"]), "personalised": float(scores["clipI"])}
    return Evidence(urls, fidelity, scores, facts)


def get_json(url: str) -> Any:
    """GET a JSON document."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def _run(mlflow: str, run_id: str, model: str) -> dict[str, Any]:
    run = get_json(f"{mlflow}/api/2.0/mlflow/runs/get?run_id={run_id}")["run"]
    pictures = get_json(f"{mlflow}/api/2.0/mlflow/artifacts/list?run_id={run_id}").get("files", [])
    history = get_json(f"{mlflow}/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=loss")
    query = urllib.parse.urlencode({"filter": f"name LIKE '%{model}'"})
    registered = get_json(f"{mlflow}/api/2.0/mlflow/registered-models/search?{query}").get("registered_models", [])
    found = {
        "run": run_id,
        "parameters": len(run["data"]["params"]),
        "lossPoints": len(history.get("metrics", [])),
        "artifacts": [f["path"] for f in pictures],
        "registered": [f"{m['name']} v{m['latest_versions'][0]['version']}" for m in registered],
    }
    if empty := [key for key, value in found.items() if not value]:
        raise LookupError(f"MLflow's run {run_id} lacks {', '.join(empty)}")
    return found


def _objects(client: Minio, bucket: str, status: dict[str, Any]) -> dict[str, int]:
    """Objects below the artifact and below the newest checkpoint; each must hold its manifest."""
    found = {}
    for kind in ("artifact", "checkpoint"):
        prefix = status[kind]["uri"].split(f"{bucket}/", 1)[1].rstrip("/") + "/"
        keys = [o.object_name or "" for o in client.list_objects(bucket, prefix, recursive=True)]
        if f"{prefix}MANIFEST.json" not in keys:
            raise LookupError(f"the store holds no {prefix}MANIFEST.json")
        found[kind] = len(keys)
    return found


def _series(prometheus: str, name: str, seconds: float = 40) -> int:
    """How many series of `name` Prometheus has seen in the last hour; waits for the first scrape."""
    query = urllib.parse.urlencode({"query": f"count(last_over_time({name}[1h]))"})
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := get_json(f"{prometheus}/api/v1/query?{query}")["data"]["result"]:
            return int(result[0]["value"][1])
        time.sleep(1)
    raise LookupError(f"Prometheus has no series {name}")
