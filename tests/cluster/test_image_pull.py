"""An image that cannot be pulled is named in the conditions and in an event; the start deadline ends the job."""

import copy
import time

import pytest
import yaml

from dreambooth_demo.platform import NAMESPACE, RELEASE
from dreambooth_demo.watch import JobFailed, wait_for_job

DEPLOYMENT = f"deployment/{RELEASE}-operator"
VARIABLE = "DREAMBOOTH_TRAINER_IMAGE"


@pytest.fixture
def unpullable(kube, shared_namespace):
    """The operator with a trainer image that no registry has, until the test is over."""

    def set_image(image: str) -> None:
        kube.kubectl("set", "env", "-n", NAMESPACE, DEPLOYMENT, f"{VARIABLE}={image}")
        kube.kubectl("rollout", "status", "-n", NAMESPACE, DEPLOYMENT, "--timeout=90s")

    path = f"jsonpath={{.spec.template.spec.containers[0].env[?(@.name=='{VARIABLE}')].value}}"
    image = kube.kubectl("get", "-n", NAMESPACE, DEPLOYMENT, "-o", path)
    missing = "localhost:1/no-such-image:0"
    set_image(missing)
    yield missing
    set_image(image)


def test_a_job_whose_image_cannot_be_pulled_says_so_and_ends(unpullable, cluster, example_job):
    job = copy.deepcopy(example_job)
    job["metadata"]["name"] = "unpullable"
    job["spec"]["startDeadlineSeconds"] = 20
    cluster.apply(job)
    with pytest.raises(JobFailed, match=r"ImagePullFailed|StartDeadlineExceeded") as failure:
        wait_for_job(cluster.kube, cluster.namespace, "unpullable", print, seconds=90)
    assert unpullable in str(failure.value)
    events = cluster.list("events", "--field-selector=involvedObject.name=unpullable")
    assert "ImagePullFailed" in {event["reason"] for event in events}, yaml.safe_dump(events)
    deadline = time.monotonic() + 90
    while cluster.list("pods") and time.monotonic() < deadline:  # a pod may take its grace period to go
        time.sleep(1)
    assert cluster.list("pods") == []
