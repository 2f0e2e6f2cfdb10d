"""A pool's subjects: whatever is asked for is drawn as if it were alone, and what is wrong with one is its own."""

import asyncio
import base64
import io
import shutil
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from PIL import Image
from server_kit import Made, write_card, write_lora, write_manifest

from dreambooth_api.adapters import AdapterPhase, AdapterRequest
from dreambooth_api.artifact import Manifest
from dreambooth_api.job import MethodType
from dreambooth_api.layout import short_digest
from dreambooth_api.names import MANIFEST, MODEL_CARD
from dreambooth_api.reasons import Reason
from dreambooth_server.artifacts import LORA_WEIGHTS
from dreambooth_server.library import Library
from dreambooth_server.metrics import make_metrics
from dreambooth_server.service import Service

URL = "/v1/images/generations"
BODY = {"prompt": "a photo of rusty in the snow", "steps": 3, "seed": 7}


def asking(made: Made, name: str = "rusty", uri: str | None = None) -> dict[str, str]:
    where = uri or f"file://{made.folder}"
    return {"dreambooth-model": f"team/{name}", "dreambooth-artifact": where, "dreambooth-digest": made.digest}


def pixels(answer: httpx.Response) -> bytes:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))).tobytes()


async def settled(client: httpx.AsyncClient, made: Made, **changes: str) -> dict[str, Any]:
    """The state that `POST /adapters` ends with; it answers at once."""
    body = {"name": "rusty", "uri": f"file://{made.folder}", "digest": made.digest, **changes}
    while True:
        state = (await client.post("/adapters", json=body)).raise_for_status().json()
        if state["phase"] != "Fetching":
            return state
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory, base: Path) -> list[Made]:
    """Five subjects of different ranks: more than the pool has slots, or places in memory."""
    made = []
    for seed in range(5):
        folder = tmp_path_factory.mktemp("crowd")
        write_lora(folder, base, seed=100 + seed, rank=2 + seed)
        write_card(folder, base, name=f"one{seed}")
        made.append(Made(folder, write_manifest(folder)))
    return made


async def test_it_draws_what_an_endpoint_of_its_own_draws(
    pool_client: httpx.AsyncClient, client: httpx.AsyncClient, lora: Made, second_lora: Made
) -> None:
    for made, name in ((lora, "rusty"), (second_lora, "tabby"), (lora, "rusty")):
        ours = await pool_client.post(URL, json=BODY, headers=asking(made, name))
        alone = await client.post(URL, json={**BODY, "model": name, "prompt": BODY["prompt"]})
        theirs = Image.open(io.BytesIO(base64.b64decode(alone.json()["data"][0]["b64_json"]))).tobytes()
        assert ours.json()["model"] == name
        if name == "rusty":
            assert max(abs(a - b) for a, b in zip(pixels(ours), theirs, strict=True)) <= 1
    plain = await pool_client.post(URL, json={**BODY, "model": "base"}, headers=asking(lora))
    theirs = await client.post(URL, json={**BODY, "model": "base"})
    assert pixels(plain) == pixels(theirs) != pixels(ours)


async def test_a_seed_is_a_picture_whoever_shares_the_batch(
    pool_client: httpx.AsyncClient, pool: Service, crowd: list[Made]
) -> None:
    """Bit by bit: alone, and among other subjects that come and go through two slots."""
    alone = [pixels(await pool_client.post(URL, json=BODY, headers=asking(made, "rusty"))) for made in crowd]
    assert len(set(alone)) == len(crowd)
    bodies = [{**BODY, "seed": 7 + other} for other in range(3)]
    asked = [(made, body) for body in bodies for made in crowd]
    together = await asyncio.gather(
        *(pool_client.post(URL, json=body, headers=asking(made, "rusty")) for made, body in asked)
    )
    assert [pixels(answer) for answer in together[: len(crowd)]] == alone
    found = (await pool_client.get("/metrics")).text
    assert 'dreambooth_adapters{tier="device"} 2.0' in found
    assert 'dreambooth_adapters{tier="memory"} 3.0' in found
    assert 'dreambooth_swap_duration_seconds_count{tier="memory"}' in found
    assert 'dreambooth_requests_total{code="200",model="shared"}' in found
    assert "one0" not in found


async def test_a_replica_says_how_far_it_is(pool_client: httpx.AsyncClient, second_lora: Made) -> None:
    assert await settled(pool_client, second_lora) == {
        "digest": second_lora.digest, "phase": "Ready", "reason": None, "message": "",
    }  # fmt: skip


def corrupt(folder: Path, base: Path) -> None:
    weights = folder / LORA_WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")


def pickled(folder: Path, base: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")


def of_another_base(folder: Path, base: Path) -> None:
    card = write_card(folder, base)
    changed = card.model_copy(update={"base": card.base.model_copy(update={"digest": "sha256:" + "1" * 64})})
    (folder / MODEL_CARD).write_text(changed.model_dump_json(by_alias=True))
    write_manifest(folder)


def of_too_high_a_rank(folder: Path, base: Path) -> None:
    write_lora(folder, base, seed=9, rank=9)
    write_manifest(folder)


def full(folder: Path, base: Path) -> None:
    shutil.copytree(base / "unet", folder / "unet")
    write_card(folder, base, method=MethodType.FULL, lora=None)
    write_manifest(folder)


UNFIT = [
    (corrupt, "differs from its SHA-256"),
    (pickled, "is a pickle: only safetensors are loaded"),
    (of_another_base, "completes another base"),
    (of_too_high_a_rank, "rank 9 is beyond the highest rank here, 8"),
    (full, "set serving.mode: Dedicated"),
]


@pytest.mark.parametrize("case", range(len(UNFIT)))
async def test_what_is_unfit_fails_alone_and_says_why(
    pool_client: httpx.AsyncClient, tmp_path: Path, base: Path, lora: Made, case: int
) -> None:
    spoil, words = UNFIT[case]
    write_lora(tmp_path, base, seed=60 + case)
    write_card(tmp_path, base)
    write_manifest(tmp_path)
    spoil(tmp_path, base)
    bad = Made(tmp_path, Manifest.model_validate_json((tmp_path / MANIFEST).read_text()).digest)
    state = await settled(pool_client, bad)
    assert (state["phase"], state["reason"]) == ("Failed", "ArtifactInvalid")
    assert words in state["message"]
    answer = await pool_client.post(URL, json=BODY, headers=asking(bad))
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]
    pixels(await pool_client.post(URL, json=BODY, headers=asking(lora)))


async def test_nothing_there_is_404_and_no_store_is_503(pool_client: httpx.AsyncClient, tmp_path: Path) -> None:
    nothing = Made(tmp_path, "sha256:" + "2" * 64)
    assert (await settled(pool_client, nothing))["reason"] == "ArtifactNotFound"
    assert (await pool_client.post(URL, json=BODY, headers=asking(nothing))).status_code == 404
    away = Made(tmp_path, "sha256:" + "3" * 64)
    answer = await pool_client.post(URL, json=BODY, headers=asking(away, uri="s3://models/rusty"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert (await settled(pool_client, away, uri="s3://models/rusty"))["reason"] == "StoreUnavailable"


async def test_what_is_on_the_disk_needs_no_store(
    pool_client: httpx.AsyncClient, pool: Service, tmp_path: Path, base: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    write_lora(made, base, seed=50)
    write_card(made, base)
    digest = write_manifest(made)
    kept = pool.settings.places.cache / "models" / short_digest(digest)
    shutil.copytree(made, kept)
    state = await settled(pool_client, Made(made, digest), uri="s3://models/gone")
    assert state["phase"] == "Ready"
    pixels(await pool_client.post(URL, json=BODY, headers=asking(Made(made, digest), uri="s3://models/gone")))
    # What was spoilt on the disk since is fetched anew, which here fails: it is never drawn.
    weights = kept / LORA_WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    fresh = Library(cast("Any", pool.engine), pool.base_digest, pool.settings.places, make_metrics())
    asked = AdapterRequest(name="x", uri="s3://models/gone", digest=digest)
    while (state := fresh.state(asked)).phase is AdapterPhase.FETCHING:
        await asyncio.sleep(0.02)
    assert state.reason is Reason.STORE_UNAVAILABLE
    fresh.close()


@pytest.mark.parametrize(
    "headers",
    [{}, {"dreambooth-model": "a/b"}, {**asking(Made(Path("/x"), "sha256:12"))}, {**asking(Made(Path("/x"), "..;"))}],
)
async def test_without_the_gateways_headers_it_is_400(pool_client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await pool_client.post(URL, json=BODY, headers=headers)
    assert answer.status_code == 400
    assert "gateway" in answer.json()["error"]["message"]


async def test_a_replica_of_one_subject_is_no_pool(client: httpx.AsyncClient, lora: Made) -> None:
    body = {"name": "rusty", "uri": "s3://x", "digest": lora.digest}
    assert (await client.post("/adapters", json=body)).status_code == 404
    assert (await client.post("/adapters", json={**body, "digest": "x"})).status_code == 400
    answer = await client.post(URL, json={**BODY, "model": "team/rusty"}, headers=asking(lora))
    assert (answer.status_code, answer.json()["model"]) == (200, "team/rusty")
