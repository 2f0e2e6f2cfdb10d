"""The whole path, looked at where a user looks: kubectl, MLflow, the store, Prometheus, the endpoint and its page."""

import base64
import hashlib
import io
import json
import re

import httpx
import openai
import pytest
from PIL import Image, ImageChops
from playwright.sync_api import sync_playwright

from dreambooth_api import names
from dreambooth_demo import evidence
from dreambooth_demo.pictures import draw
from dreambooth_demo.store import open_store


def test_kubectl_shows_the_job_succeeded_and_the_model_ready(trained):
    name = trained.job["metadata"]["name"]
    trained.kube.kubectl("wait", "-n", trained.namespace, f"dbj/{name}", "--for=condition=Complete", "--timeout=5s")
    header, row = trained.kube.kubectl("get", "dbj", name, "-n", trained.namespace).strip().splitlines()
    assert header.split() == ["NAME", "PHASE", "STEP", "LOSS", "ETA", "RESTARTS", "AGE"]
    steps = trained.job["spec"]["training"]["steps"]
    assert row.split()[1:3] == ["Succeeded", str(steps)]
    header, row = trained.kube.kubectl("get", "pm", "-n", trained.namespace).strip().splitlines()
    assert header.split() == ["NAME", "READY", "REPLICAS", "URL", "AGE"]
    assert row.split()[1:3] == ["True", "1"]
    assert row.split()[3].startswith("http://")


def test_two_pods_trained_and_their_gradients_were_averaged(trained):
    """Each rank sees other pictures and noise: only averaged gradients leave both with the same weights."""
    name = names.training(trained.job["metadata"]["name"])
    weights = {}
    for pod in trained.kube.list("pods", "-n", trained.namespace, "-l", f"job-name={name}"):
        log = trained.kube.kubectl("logs", "-n", trained.namespace, pod["metadata"]["name"])
        (line,) = [line for line in log.splitlines() if "final weights sha256:" in line]
        weights[pod["metadata"]["name"]] = line.split("sha256:")[1].split()[0]
    assert len(weights) == 2
    assert len(set(weights.values())) == 1, weights


def test_the_subject_was_learned_and_the_scores_say_so(trained):
    scores = trained.status["scores"]
    assert float(scores["clipI"]) > float(scores["baseClipI"]) + 0.1
    assert float(scores["dino"]) > float(scores["baseDino"]) + 0.1


def test_mlflow_the_store_and_prometheus_hold_the_evidence(trained):
    store = open_store(trained.kube, trained.namespace)
    model = trained.model["metadata"]["name"]
    found = evidence.collect(trained.kube, trained.namespace, trained.job["metadata"]["name"], model, store)
    assert found.facts["MLflow"]["parameters"] > 40
    assert found.facts["MLflow"]["lossPoints"] > 5
    assert set(found.facts["Prometheus"]) == {"operator", "trainer", "server", "gateway"}
    mlflow, prometheus = found.urls["mlflow"], found.urls["prometheus"]
    # As its own page asks: MLflow refuses pages of origins that it does not know.
    search = f"{mlflow}/ajax-api/2.0/mlflow/runs/search"
    experiment = httpx.get(f"{mlflow}/api/2.0/mlflow/runs/get", params={"run_id": trained.status["run"]["id"]}).json()
    body = {"experiment_ids": [experiment["run"]["info"]["experiment_id"]]}
    assert httpx.post(search, json=body, headers={"Origin": mlflow}).json()["runs"]
    assert httpx.post(search, json=body, headers={"Origin": "http://elsewhere.example"}).status_code == 403
    # Every script and style that Prometheus' page loads is there.
    page = httpx.get(prometheus, follow_redirects=True).text
    loaded = re.findall(r'(?:src|href)="(/[^"]*\.(?:js|css)[^"]*)"', page)
    assert len(loaded) > 5
    assert {httpx.get(f"{prometheus}{path}").status_code for path in loaded} == {200}


def test_the_artifact_in_the_store_matches_its_manifest(trained):
    client, bucket = open_store(trained.kube, trained.namespace)
    prefix = trained.status["artifact"]["uri"].split(f"{bucket}/", 1)[1].rstrip("/")
    manifest = json.loads(client.get_object(bucket, f"{prefix}/{names.MANIFEST}").read())
    assert manifest["files"]
    for path, entry in manifest["files"].items():
        content = client.get_object(bucket, f"{prefix}/{path}").read()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"]), path


def test_openais_own_client_gets_a_picture(trained):
    client = openai.OpenAI(base_url=f"{trained.endpoint}/v1", api_key="none", max_retries=0)
    name = trained.model["metadata"]["name"]
    assert name in [model.id for model in client.models.list()]
    answer = client.images.generate(model=name, prompt=f"a photo of {name} in the snow", extra_body={"seed": 3})
    picture = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))
    assert picture.size == (32, 32)


def test_the_subject_is_not_what_the_base_draws(trained):
    prompt, model = "a photo of sks robot on grass", trained.model["metadata"]["name"]
    subject, again, base = (draw(trained.endpoint, m, prompt, seed=5) for m in (model, model, "base"))
    assert ImageChops.difference(subject, again).getbbox() is None
    assert ImageChops.difference(subject, base).getbbox() is not None


@pytest.mark.parametrize("width", [1280, 390])
def test_the_playground_draws_in_a_real_browser(trained, chromium, width):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium)
        page = browser.new_page(viewport={"width": width, "height": 900})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{trained.endpoint}/")
        page.get_by_label("Prompt", exact=True).fill("a photo of sks robot at night")
        page.get_by_role("button", name="Draw", exact=True).click()
        picture = page.locator("img[data-result]").first
        picture.wait_for(state="visible", timeout=60_000)
        assert picture.evaluate("image => image.naturalWidth") == 32
        assert not faults
        browser.close()
