"""The Secret `dreambooth-store`: its keys are those that trainer and server read, and each namespace has its own."""

import base64
import json
from typing import Any

import pytest

from dreambooth_api import names
from tests.chart.variants import DEMO, OWN_STORE, VARIANTS

pytestmark = pytest.mark.cluster


def _secrets(manifests: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, str]]:
    return {
        (m["metadata"]["namespace"], m["metadata"]["name"]): {
            k: base64.b64decode(v).decode() for k, v in m["data"].items()
        }
        for m in manifests
        if m["kind"] == "Secret"
    }


def test_the_demo_s_namespace_gets_the_bundled_store_and_not_root_s_key(render):
    secrets = _secrets(render(*DEMO))
    store, minio = secrets["demo", names.STORE_SECRET], secrets["dreambooth-system", "dreambooth-minio"]
    assert store == {
        "endpoint": "http://dreambooth-minio.dreambooth-system.svc:9000",
        "region": "us-east-1",
        "bucket": "dreambooth",
        "prefix": "",
        "accessKey": minio["accessKey"],
        "secretKey": minio["secretKey"],
        "mlflowUri": "http://dreambooth-mlflow.dreambooth-system.svc:5000",
    }
    assert len({minio["rootUser"], minio["rootPassword"], minio["accessKey"], minio["secretKey"]}) == 4
    assert json.loads(minio["users.json"]) == {store["accessKey"]: {"secretKey": store["secretKey"], "prefix": ""}}


def test_given_keys_of_minio_s_root_are_taken(render):
    secrets = _secrets(render(*DEMO, "--set", "minio.rootUser=admin,minio.rootPassword=correct-horse"))
    minio = secrets["dreambooth-system", "dreambooth-minio"]
    assert (minio["rootUser"], minio["rootPassword"]) == ("admin", "correct-horse")
    assert secrets["demo", names.STORE_SECRET]["accessKey"] != "admin"


def test_a_namespace_s_own_key_in_the_bundled_store_opens_its_prefix_only(render):
    own = "store.perNamespace.b.accessKey=key-b,store.perNamespace.b.secretKey=secret-b,store.perNamespace.b.prefix=b"
    secrets = _secrets(render(*DEMO, "--set", f"store.namespaces={{a,b}},{own}"))
    users = json.loads(secrets["dreambooth-system", "dreambooth-minio"]["users.json"])
    assert users.pop("key-b") == {"secretKey": "secret-b", "prefix": "b"}
    assert list(users) == [secrets["a", names.STORE_SECRET]["accessKey"]]


def test_keys_of_another_store_are_not_given_to_the_bundled_one(render):
    secrets = _secrets(render(*OWN_STORE, "--set", "minio.enabled=true"))
    assert "key" not in json.loads(secrets["dreambooth-system", "dreambooth-minio"]["users.json"])


def test_each_namespace_holds_only_its_own_keys(render):
    flags = (*OWN_STORE, "--set", "store.perNamespace.b.accessKey=key-b,store.perNamespace.b.secretKey=secret-b,"
             "store.perNamespace.b.prefix=teams/b,store.caCert=PEM,store.mlflowToken=token")  # fmt: skip
    secrets = _secrets(render(*flags))
    assert {where for where in secrets if where[1] == names.STORE_SECRET} == {
        ("a", names.STORE_SECRET), ("b", names.STORE_SECRET),
    }  # fmt: skip
    a, b = secrets["a", names.STORE_SECRET], secrets["b", names.STORE_SECRET]
    assert (a["accessKey"], a["secretKey"], a["prefix"]) == ("key", "secret", "")
    assert (b["accessKey"], b["secretKey"], b["prefix"]) == ("key-b", "secret-b", "teams/b")
    assert a["ca.crt"] == b["ca.crt"] == "PEM"
    assert a["mlflowToken"] == "token"


def test_without_a_wish_no_secret_and_no_namespace_is_made(render):
    made = [m for m in render("--set", "gateway.enabled=false") if m["kind"] in ("Secret", "Namespace")]
    assert not made


def test_namespaces_are_made_restricted_and_outlive_the_chart(render):
    (namespace,) = [m for m in render(*DEMO) if m["kind"] == "Namespace"]
    assert namespace["metadata"]["name"] == "demo"
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert namespace["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_data_of_bundled_servers_outlives_the_chart(render):
    claims = {
        m["metadata"]["name"]: m
        for m in render(*VARIANTS["persistent servers"])
        if m["kind"] == "PersistentVolumeClaim"
    }
    assert set(claims) == {"dreambooth-minio", "dreambooth-mlflow", "dreambooth-prometheus"}
    assert all(c["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for c in claims.values())
    assert not [m for m in render(*DEMO) if m["kind"] == "PersistentVolumeClaim"]
    given = render(*VARIANTS["persistent servers"], "--set", "minio.persistence.existingClaim=mine")
    assert "dreambooth-minio" not in {m["metadata"]["name"] for m in given if m["kind"] == "PersistentVolumeClaim"}


def test_the_hook_prepares_the_store_s_bucket(render):
    (job,) = [m for m in render(*DEMO, "--set", "store.bucket=pictures") if m["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert {"name": "BUCKET", "value": "pictures"} in container["env"]
    scope: dict[str, Any] = {"__name__": "prepare_store"}
    exec(compile(container["args"][0], "prepare_store.py", "exec"), scope)
    resources = [s["Resource"] for s in scope["policy"]("pictures", "teams/b")["Statement"]]
    assert resources == [["arn:aws:s3:::*"], ["arn:aws:s3:::pictures/teams/b/*"]]
    assert scope["policy"]("pictures", "")["Statement"][1]["Resource"] == ["arn:aws:s3:::pictures/*"]
