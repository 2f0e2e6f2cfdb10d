"""Bad input, with the real trainer and the real store: each fault is named in the conditions and in an event, and
nothing half-made stays."""

import base64
import copy
import io
import time
from typing import Any

import pytest
from PIL import Image

from dreambooth_api import names
from dreambooth_demo.kube import KubeError


def png(size: tuple[int, int] = (64, 64), mode: str = "RGB", kind: str = "PNG") -> bytes:
    """A picture."""
    content = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(content, kind)
    return content.getvalue()


def pictures(name: str, files: dict[str, bytes]) -> dict[str, Any]:
    """A ConfigMap with files."""
    data = {path: base64.b64encode(content).decode() for path, content in files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "binaryData": data}


JPEG = png(kind="JPEG")
DATASETS = {
    "no-pictures": {"notes.txt": b"the pictures are elsewhere"},
    "text-as-png": {"1.png": png(), "2.png": b"I am a text file"},
    "truncated": {"1.png": png(), "2.jpg": JPEG[: len(JPEG) // 2]},
    "one-pixel": {"1.png": png(), "2.png": png((1, 1))},
}
# name → (what is changed in the example's spec, the reason, a word of the message)
FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no-pictures": ({"images": "configMap://no-pictures"}, "DatasetNotFound", "picture"),
    "text-as-png": ({"images": "configMap://text-as-png"}, "DatasetInvalid", "2.png"),
    "truncated": ({"images": "configMap://truncated"}, "DatasetInvalid", "2.jpg"),
    "one-pixel": ({"images": "configMap://one-pixel"}, "DatasetInvalid", "2.png"),
    "no-folder": ({"images": "s3://dreambooth/examples/nothing-here"}, "DatasetNotFound", "nothing-here"),
    "no-bucket": ({"images": "s3://no-such-bucket/images"}, "", "no-such-bucket"),
    "no-base": ({"base": "s3://dreambooth/examples/no-such-base"}, "BaseModelNotFound", "no-such-base"),
}


def job_of(example: dict[str, Any], name: str, images: str | None = None, base: str | None = None) -> dict[str, Any]:
    """The example with another name and other inputs, in pods that fit beside each other."""
    job = copy.deepcopy(example)
    job["metadata"]["name"] = job["spec"]["publish"]["name"] = name
    job["spec"]["backoffLimit"] = 0
    job["spec"]["topology"]["template"]["resources"]["requests"] = {"cpu": "50m", "memory": "256Mi"}
    if images:
        job["spec"]["subject"]["images"]["uri"] = images
    if base:
        job["spec"]["baseModel"]["uri"] = base
    return job


def failed(cluster: Any, name: str, seconds: float = 300) -> dict[str, Any]:
    """The job's condition Failed, once it is True."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        conditions = (cluster.get("dreamboothjob", name).get("status") or {}).get("conditions", [])
        if found := next((c for c in conditions if c["type"] == "Failed" and c["status"] == "True"), None):
            return found
        time.sleep(1)
    raise AssertionError(f"{name} did not fail within {seconds} s: {conditions}")


def reasons_told(cluster: Any, name: str) -> set[str]:
    events = cluster.list("events", f"--field-selector=involvedObject.name={name},involvedObject.kind={names.JOB_KIND}")
    return {event["reason"] for event in events}


def test_bad_input_is_named_and_leaves_nothing_half_made(cluster, example_job):
    cluster.apply(*(pictures(name, files) for name, files in DATASETS.items()))
    cluster.apply(*(job_of(example_job, name, **change) for name, (change, _, _) in FAULTS.items()))
    for name, (_, reason, word) in FAULTS.items():
        condition = failed(cluster, name)
        assert not reason or condition["reason"] == reason, condition
        assert word in condition["message"], condition
        assert condition["reason"] in reasons_told(cluster, name)
    assert cluster.list("personalizedmodels") == []
    assert [
        s for s in cluster.list("services,deployments") if names.LABEL_MANAGED_BY in s["metadata"].get("labels", {})
    ] == []
    assert [p for p in cluster.list("pods") if p["status"]["phase"] in ("Running", "Pending")] == []


@pytest.mark.parametrize("key", ["accessKey", "bucket"])
def test_a_store_that_refuses_is_named(cluster, example_job, key):
    secret = cluster.get("secret", names.STORE_SECRET)
    wrong = {**secret["data"], key: base64.b64encode(b"no-such-thing").decode()}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": names.STORE_SECRET}, "data": wrong})
    cluster.apply(job_of(example_job, "refused"))
    assert failed(cluster, "refused")["reason"] == "StoreUnavailable"
    assert "StoreUnavailable" in reasons_told(cluster, "refused")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"training": {"steps": -5}}, "spec.training.steps"),
        ({"subject": {"prompt": "a photo of a robot", "className": "robot", "images": {"uri": "s3://bucket/x"}}},
         "spec.subject.prompt"),
        ({"publish": {"name": "Not A Name"}}, "spec.publish.name"),
    ],
)  # fmt: skip
def test_what_the_schema_knows_is_refused_at_the_door(cluster, example_job, change, field):
    job = job_of(example_job, "refused")
    job["spec"] |= change
    with pytest.raises(KubeError, match=field):
        cluster.apply(job)


def test_cmyk_and_rotated_pictures_simply_work(cluster, example_job):
    rotated = Image.new("RGB", (80, 40), "red")
    exif = rotated.getexif()
    exif[0x0112] = 6
    content = io.BytesIO()
    rotated.save(content, "JPEG", exif=exif)
    files = {"1.jpg": png(mode="CMYK", kind="JPEG"), "2.jpg": content.getvalue(), "3.png": png()}
    cluster.apply(pictures("odd", files))
    job = job_of(example_job, "odd", images="configMap://odd")
    job["spec"]["prior"] = {"weight": 0}
    job["spec"]["topology"]["nodes"] = 1
    job["spec"]["training"] |= {"steps": 2, "warmupSteps": 1}
    job["spec"]["validation"] = {"images": 1, "steps": 1}
    job["spec"]["publish"]["gate"] = {}
    cluster.apply(job)
    deadline = time.monotonic() + 400
    while (status := cluster.get("dreamboothjob", "odd").get("status") or {}).get("phase") != "Succeeded":
        assert status.get("phase") != "Failed", status
        assert time.monotonic() < deadline, status
        time.sleep(1)
