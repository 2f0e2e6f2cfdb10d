"""A gateway before a real pool: real adapters on the example base."""

import base64
import io

import aiohttp
from gateway_fakes import FakeReplica, route
from gateway_kit import Stage, serving
from PIL import Image
from server_kit import Made

from dreambooth_api.routes import Target
from dreambooth_server.app import create_app
from dreambooth_server.service import Service

POOL = "pool/demo/default"


def subject(made: Made) -> Target:
    return Target(digest=made.digest, uri=f"file://{made.folder}", weight=100, backend=POOL)


async def test_two_subjects_of_one_pool_are_listed_drawn_and_streamed(
    stage: Stage, client: aiohttp.ClientSession, pool: Service, lora: Made, second_lora: Made
) -> None:
    async with serving(create_app(pool)) as url:
        replica = FakeReplica("pool-1")
        replica.address = url.removeprefix("http://")
        routes = [route(name, subject(made), shared=True) for name, made in (("rex", lora), ("tabby", second_lora))]
        await stage.tell(routes, {POOL: [replica]})
        async with client.get("/demo/rex/v1/models") as answer:
            listed = (await answer.json())["data"]
        assert [entry["id"] for entry in listed] == ["rex", "base"]
        assert listed[0]["dreambooth"]["digest"] == lora.digest
        pictures = []
        for name, read in (("rex", "sks robot"), ("tabby", "ohwx cat")):
            body = {"prompt": f"a photo of {name}", "seed": 1, "steps": 2}
            async with client.post(f"/demo/{name}/v1/images/generations", json=body) as answer:
                drawn = (await answer.json())["data"][0]
            assert drawn["revised_prompt"] == f"a photo of {read}"
            pictures.append(Image.open(io.BytesIO(base64.b64decode(drawn["b64_json"]))))
        assert [picture.info["dreambooth:subject"] for picture in pictures] == ["rex", "tabby"]
        assert pictures[0].tobytes() != pictures[1].tobytes()
        body = {"prompt": "rex", "model": "demo/rex", "seed": 1, "steps": 2, "stream": True}
        async with client.post("/v1/images/generations", json=body) as answer:
            text = await answer.text()
        assert '"step":2,"steps":2' in text
        assert "event: image_generation.completed" in text
