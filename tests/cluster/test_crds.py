"""The table of manifests, sent to a real API server by `kubectl apply`; and what only an API server can do."""

import json
from typing import Any

import pytest
import yaml

from dreambooth_api import names
from dreambooth_demo.kube import Kube, KubeError
from tests.api.manifests import BAD, GOOD, Case, job, model


def _numbered(prefix: str, cases: list[Case]) -> dict[str, dict[str, Any]]:
    """Case → its manifest, under a name of its own where the name is not what is bad."""
    found = {}
    for number, case in enumerate(cases):
        name = case.body["metadata"]["name"]
        keep = case.field == "metadata.name" or len(name) > 20
        found[case.name] = case.body | {"metadata": {"name": name if keep else f"{prefix}-{number}"}}
    return found


def _dry_run(kube: Kube, namespace: str, manifests: list[dict[str, Any]]) -> str:
    text = yaml.safe_dump_all(manifests)
    return kube.kubectl("apply", "-n", namespace, "--dry-run=server", "-o", "json", "-f", "-", stdin=text)


@pytest.fixture(scope="module")
def accepted(kube: Kube, shared_namespace: str) -> dict[str, dict[str, Any]]:
    """(kind, name) of every good manifest → what the API server makes of it; one call for all."""
    answer = json.loads(_dry_run(kube, shared_namespace, list(_numbered("good", GOOD).values())))
    return {item["metadata"]["name"]: item for item in answer["items"]}


@pytest.fixture(scope="module")
def refused(kube: Kube, shared_namespace: str) -> list[str]:
    """What kubectl says about the bad manifests, a text each; one call for all."""
    with pytest.raises(KubeError) as refusal:
        _dry_run(kube, shared_namespace, list(_numbered("bad", BAD).values()))
    return str(refusal.value).split("Error from server")[1:]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_good_manifests_are_accepted_with_their_defaults_filled_in(accepted, case):
    item = accepted[_numbered("good", GOOD)[case.name]["metadata"]["name"]]
    if case.kind == names.JOB_KIND:
        assert item["spec"]["subject"]["prompt"]
        assert item["spec"]["training"]["optimizer"]
        assert item["spec"]["publish"]["serving"]["maxReplicas"] >= 1
    elif case.kind == names.MODEL_KIND:
        assert item["spec"]["serving"]["mode"] in ("Shared", "Dedicated")
    else:
        assert item["spec"]["adapters"]["maxRank"] >= 1
        assert item["spec"]["maxReplicas"] >= 1


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_bad_manifests_are_refused_by_the_field_s_name(refused, case):
    name = _numbered("bad", BAD)[case.name]["metadata"]["name"]
    (message,) = [text for text in refused if f'{case.kind}.{names.GROUP} "{name}"' in text]
    assert case.field in message


def test_an_unknown_field_is_refused_by_name(kube, shared_namespace):
    with pytest.raises(KubeError, match=r"spec\.training\.step\b"):
        _dry_run(kube, shared_namespace, [job("typo", training__step=5)])


def test_training_is_immutable_once_it_has_started(cluster):
    cluster.apply(job("started", suspend=True, training__steps=100))
    # The operator is at work, too: it takes the job for one that is suspended in mid-training.
    status = json.dumps({"status": {"phase": "Training", "startTime": "2026-01-01T00:00:00Z"}})
    cluster.kubectl("patch", "dbj", "started", "--subresource=status", "--type=merge", "-p", status)
    for field, value in {"training": {"steps": 200}, "subject": {"identifier": "zwx"}, "prior": {"weight": 0}}.items():
        with pytest.raises(KubeError, match=rf"spec\.{field} is immutable once the job has started"):
            cluster.kubectl("patch", "dbj", "started", "--type=merge", "-p", json.dumps({"spec": {field: value}}))
    # What is about the running of it may change.
    cluster.kubectl("patch", "dbj", "started", "--type=merge", "-p", '{"spec": {"backoffLimit": 2}}')


def test_a_model_has_a_scale_and_both_kinds_are_in_one_category(kube, shared_namespace):
    item = json.loads(_dry_run(kube, shared_namespace, [model("scaled", serving={"minReplicas": 2})]))
    assert item["spec"]["serving"]["minReplicas"] == 2
    crd = kube.get("crd", f"{names.MODEL_PLURAL}.{names.GROUP}", "default")
    assert crd["spec"]["versions"][0]["subresources"]["scale"]["specReplicasPath"] == ".spec.serving.minReplicas"
    kube.kubectl("get", "dreambooth", "-n", shared_namespace)


def test_explain_tells_what_a_field_is_for(kube, shared_namespace):
    assert "λ of the prior's loss" in kube.kubectl("explain", "dbj.spec.prior.weight")
