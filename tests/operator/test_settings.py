"""Settings from the environment."""

import pytest

from dreambooth_operator.settings import MissingSetting, from_env

IMAGES = {"DREAMBOOTH_TRAINER_IMAGE": "t", "DREAMBOOTH_SERVER_IMAGE": "s"}


def test_defaults():
    settings = from_env(IMAGES)
    assert (settings.namespaces, settings.pull_policy, settings.health_port) == ((), "IfNotPresent", 8080)
    assert settings.watch_nodes


def test_namespaces_and_url():
    env = IMAGES | {"DREAMBOOTH_NAMESPACES": " a, b,", "DREAMBOOTH_MLFLOW_URL": "http://m/"}
    assert (from_env(env).namespaces, from_env(env).mlflow_url) == (("a", "b"), "http://m")
    assert not from_env(env).watch_nodes


def test_the_gateway():
    env = IMAGES | {
        "DREAMBOOTH_GATEWAY_URL": "http://g/", "DREAMBOOTH_GATEWAY_TOKEN_FILE": "/t", "DREAMBOOTH_METRICS_API": "true",
    }  # fmt: skip
    settings = from_env(env)
    assert (settings.gateway_url, settings.gateway_token_file, settings.metrics_api) == ("http://g", "/t", True)
    assert (from_env(IMAGES).gateway_url, from_env(IMAGES).metrics_api) == ("", False)
    assert (settings.routes_port, from_env(env | {"DREAMBOOTH_ROUTES_PORT": "1"}).routes_port) == (9402, 1)


def test_where_downloads_outlive_pods():
    assert from_env(IMAGES).cached_namespaces == frozenset()
    assert from_env(IMAGES | {"DREAMBOOTH_CACHED_NAMESPACES": "a,b"}).cached_namespaces == {"a", "b"}


@pytest.mark.parametrize("name", IMAGES)
def test_what_must_be_set(name):
    with pytest.raises(MissingSetting, match=name):
        from_env({key: value for key, value in IMAGES.items() if key != name})


def test_every_process_has_a_name_of_its_own_in_the_election():
    env = IMAGES | {"DREAMBOOTH_LEASE_NAMESPACE": "system", "HOSTNAME": "pod-1"}
    one, other = from_env(env), from_env(env)
    assert (one.lease_namespace, one.lease_name) == ("system", "dreambooth-operator")
    assert one.identity.startswith("pod-1_")
    assert one.identity != other.identity
