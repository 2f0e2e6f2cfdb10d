"""API keys from Secrets."""

import base64
import hashlib

import pytest

from dreambooth_api import names
from dreambooth_operator import keys as keys_module
from dreambooth_operator.caches import Caches
from dreambooth_operator.cluster import ApiFault
from dreambooth_operator.keys import Keys, hashed
from dreambooth_operator.views import Key


def data(**entries):
    return {name: base64.b64encode(value.encode()).decode() for name, value in entries.items()}


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_keys_are_kept_as_hashes():
    assert hashed(data(anna="one", bob="two\n")) == {"anna": sha("one"), "bob": sha("two")}


def test_an_empty_key_opens_to_nobody():
    assert hashed({"a": "", "b": data(x=" \n")["x"], "c": "no base64!", "d": None}) == {}


class Cluster:
    """Has Secrets, or is away."""

    def __init__(self, **secrets):
        self.secrets, self.away, self.asked = secrets, False, 0

    async def secret(self, namespace, name):
        self.asked += 1
        if self.away:
            raise ApiFault(0, "away")
        return self.secrets.get(name)


@pytest.fixture
def caches(make):
    caches = Caches()
    body = make.model()
    body["spec"]["serving"] = {"access": {"secret": "keys"}}
    caches.put(names.MODEL_KIND, body)
    return caches


async def passes(keys, monkeypatch, rounds):
    """Let so many rounds of reading again go by; returns the models that were told."""
    told, left = [], [rounds]

    async def sleep(_):
        left[0] -= 1
        if left[0] < 0:
            raise TimeoutError

    monkeypatch.setattr(keys_module.asyncio, "sleep", sleep)
    monkeypatch.setattr(keys_module, "FRESH", 0.0)
    with pytest.raises(TimeoutError):
        await keys.run(told.append)
    monkeypatch.undo()
    return told


async def test_a_secret_is_read_once_and_again_when_it_is_old(caches, monkeypatch):
    cluster = Cluster(keys=data(a="one"))
    keys = Keys(cluster, caches)
    assert keys.known("team", "keys") == {}
    assert await keys.of("team", "keys") == {"a": sha("one")}
    await keys.of("team", "keys")
    assert (cluster.asked, keys.version) == (1, 1)
    cluster.secrets["keys"] = data(a="two")
    assert await passes(keys, monkeypatch, 1) == []
    assert (keys.known("team", "keys"), keys.version) == ({"a": sha("two")}, 2)


async def test_a_secret_that_goes_closes_and_its_models_are_told(caches, monkeypatch):
    cluster = Cluster(keys=data(a="one"))
    keys = Keys(cluster, caches)
    await keys.of("team", "keys")
    cluster.secrets.clear()
    assert await passes(keys, monkeypatch, 1) == [Key(names.MODEL_KIND, "team", "robot")]
    assert keys.known("team", "keys") == {}


async def test_an_api_server_that_is_away_changes_nothing(caches, monkeypatch):
    cluster = Cluster(keys=data(a="one"))
    keys = Keys(cluster, caches)
    await keys.of("team", "keys")
    cluster.away = True
    assert await passes(keys, monkeypatch, 2) == []
    assert keys.known("team", "keys") == {"a": sha("one")}


async def test_what_no_model_names_any_more_is_forgotten(caches, monkeypatch):
    cluster = Cluster(keys=data(a="one"))
    keys = Keys(cluster, caches)
    await keys.of("team", "keys")
    caches.drop(names.MODEL_KIND, "team", "robot")
    await passes(keys, monkeypatch, 1)
    assert keys.known("team", "keys") == {}
    assert cluster.asked == 1
