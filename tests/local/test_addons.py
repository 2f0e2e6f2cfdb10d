"""Manifests of DNS, volumes and metrics, and the images that they name."""

import re
from pathlib import Path

import pytest
import yaml

from dreambooth_demo.platform import NAMESPACE, RELEASE
from dreambooth_local import addons
from dreambooth_local.builder import BASE_IMAGE
from dreambooth_local.configs import PAUSE_IMAGE
from dreambooth_local.places import DNS_SERVICE, Places

WHERE = Places(Path("/cache"), Path("/some/state"))


def documents(name):
    return [document for document in yaml.safe_load_all(addons.manifest(name, WHERE)) if document]


@pytest.mark.parametrize("name", [*addons.FIRST, *addons.METRICS])
def test_every_manifest_is_made_of_whole_resources(name):
    assert documents(name)
    for document in documents(name):
        assert document["apiVersion"]
        assert document["kind"]
        assert document["metadata"]["name"]


def test_volumes_lie_in_the_state_folder():
    text = addons.manifest("storage", WHERE)
    assert "/some/state/volumes" in text
    assert "${volumes}" not in text


def test_dns_has_the_address_that_kubelet_gives_to_pods():
    services = [d for d in documents("coredns") if d["kind"] == "Service"]
    assert [service["spec"]["clusterIP"] for service in services] == [DNS_SERVICE]


def test_prometheus_adapter_has_the_charts_rules_and_the_charts_prometheus():
    (rules,) = [d["data"]["config.yaml"] for d in documents("adapter") if d["kind"] == "ConfigMap"]
    assert yaml.safe_load(rules) == yaml.safe_load(addons.RULES.read_text())
    assert f"http://{RELEASE}-prometheus.{NAMESPACE}.svc:9090" in addons.manifest("adapter", WHERE)


def test_every_image_that_a_manifest_names_is_made_here():
    made = {image.name for image in [*addons.first_images(WHERE), *addons.metrics_images(WHERE)]}
    assert PAUSE_IMAGE in made
    texts = [addons.manifest(name, WHERE) for name in (*addons.FIRST, *addons.METRICS)]
    named = {name for text in texts for name in re.findall(r"""image: *"?([^\s",]+)""", text)}
    assert named
    assert {f"docker.io/{name.removeprefix('docker.io/')}" for name in named} <= made | {BASE_IMAGE}
