"""Pictures through the application, with real weights; and every way to ask for none."""

import asyncio
import base64
import hashlib
import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image
from server_kit import Made

from dreambooth_server.app import create_app
from dreambooth_server.service import Service
from dreambooth_server.settings import Settings

URL = "/v1/images/generations"


async def draw(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post(URL, json={"prompt": "a photo of rusty in the snow", "steps": 3, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def picture(answer: dict[str, Any], index: int = 0) -> Any:
    return Image.open(io.BytesIO(base64.b64decode(answer["data"][index]["b64_json"])))


async def test_a_request_as_openai_sends_it_gets_a_picture(client: httpx.AsyncClient) -> None:
    answer = await draw(
        client, model="rusty", n=1, size="auto", response_format="b64_json", user="me", quality="hd", style="vivid",
        background="auto", moderation="low", output_format="png", output_compression=100, stream=False,
    )  # fmt: skip
    assert picture(answer).size == (32, 32)
    assert picture(answer).format == "PNG"
    assert answer["data"][0]["revised_prompt"] == "a photo of sks robot in the snow"
    assert (answer["model"], answer["size"], answer["warnings"]) == ("rusty", "32x32", [])


async def test_defaults_are_the_subjects(client: httpx.AsyncClient) -> None:
    answer = (await client.post(URL, json={"prompt": "rusty", "n": None, "seed": None, "size": None})).json()
    assert (answer["model"], answer["steps"], answer["guidance_scale"]) == ("rusty", 8, 4.0)
    assert 0 <= answer["data"][0]["seed"] < 2**32


async def test_seeds_count_up_and_draw_the_same_again(client: httpx.AsyncClient) -> None:
    four = await draw(client, seed=41, n=4)
    assert [one["seed"] for one in four["data"]] == [41, 42, 43, 44]
    again = await draw(client, seed=41, n=4)
    assert [one["b64_json"] for one in four["data"]] == [one["b64_json"] for one in again["data"]]
    assert len({one["b64_json"] for one in four["data"]}) == 4
    third = await draw(client, seed=43)
    difference = max(abs(a - b) for a, b in zip(picture(four, 2).tobytes(), picture(third).tobytes(), strict=True))
    assert difference <= 1


async def test_subjects_and_base_draw_differently(client: httpx.AsyncClient) -> None:
    answers = [await draw(client, model=model, seed=1) for model in ("rusty", "tabby", "boxy", "base")]
    assert len({picture(answer).tobytes() for answer in answers}) == 4
    assert [a["data"][0]["revised_prompt"] for a in answers][2:] == [
        "a photo of rusty in the snow",
        "a photo of robot in the snow",
    ]


async def test_negative_prompt_guidance_and_size_take_effect(client: httpx.AsyncClient) -> None:
    plain = await draw(client, seed=1)
    for change in ({"negative_prompt": "snow"}, {"guidance_scale": 9}, {"steps": 5}, {"size": "40x24"},
                   {"scheduler": "euler"}):  # fmt: skip
        assert picture(await draw(client, seed=1, **change)).tobytes() != picture(plain).tobytes()
    assert picture(await draw(client, size="64x16")).size == (64, 16)


async def test_pictures_say_where_they_come_from(client: httpx.AsyncClient, lora: Made) -> None:
    text = picture(await draw(client, seed=5)).text
    assert text["dreambooth:subject"] == "rusty"
    assert text["dreambooth:artifact"] == lora.digest
    assert text["dreambooth:seed"] == "5"
    assert text["dreambooth:prompt_sha256"] == hashlib.sha256(b"a photo of sks robot in the snow").hexdigest()
    assert not any("snow" in value for value in text.values())
    assert "dreambooth:artifact" not in picture(await draw(client, model="base")).text


async def test_what_is_understood_otherwise_is_said(client: httpx.AsyncClient) -> None:
    long = await draw(client, prompt="a photo of rusty " + "in the snow " * 9)
    assert any("; the model reads the first " in warning for warning in long["warnings"])
    assert any("write rusty where it belongs" in w for w in (await draw(client, prompt="a cat"))["warnings"])
    unknown = await draw(client, prompt="rusty 🤖 \x00 zzyzx ünïcode")
    assert picture(unknown).size == (32, 32)


BAD: list[tuple[dict[str, Any], str | None]] = [
    ({}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": " \n"}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"prompt": ["a"]}, "prompt"),
    ({"prompt": "x" * 2001}, "prompt"),
    ({"n": 0}, "n"),
    ({"n": 9}, "n"),
    ({"n": 10**6}, "n"),
    ({"n": 10**400}, "n"),
    ({"n": -1}, "n"),
    ({"n": 1.5}, "n"),
    ({"n": "1"}, "n"),
    ({"n": True}, "n"),
    ({"size": "33x32"}, "size"),
    ({"size": "8x32"}, "size"),
    ({"size": "1024x1024"}, "size"),
    ({"size": "99999999x8"}, "size"),
    ({"size": "0x0"}, "size"),
    ({"size": "-8x8"}, "size"),
    ({"size": "big"}, "size"),
    ({"size": 32}, "size"),
    ({"response_format": "url"}, "response_format"),
    ({"output_format": "webp"}, "output_format"),
    ({"stream": 1}, "stream"),
    ({"partial_images": 2}, "partial_images"),
    ({"scheduler": "magic"}, "scheduler"),
    ({"background": "transparent"}, "background"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**63}, "seed"),
    ({"seed": 0.5}, "seed"),
    ({"steps": 0}, "steps"),
    ({"steps": 101}, "steps"),
    ({"guidance_scale": -1}, "guidance_scale"),
    ({"guidance_scale": 31}, "guidance_scale"),
    ({"guidance_scale": float("nan")}, "guidance_scale"),
    ({"guidance_scale": float("inf")}, "guidance_scale"),
    ({"negative_prompt": "x" * 2001}, "negative_prompt"),
    ({"guidence_scale": 3}, "guidence_scale"),
    ({"model": 3}, "model"),
]


@pytest.mark.parametrize(("body", "param"), BAD)
async def test_bad_fields_are_named(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    content = json.dumps(body if not body or "prompt" in body else {"prompt": "rusty", **body})
    answer = await client.post(URL, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert param in error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 30_000, b'{"prompt": "\\ud800"}', b'{"\\ud800": 1}', b"null"]
)
async def test_bad_bodies(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post(URL, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await client.post(URL, json={"prompt": "x", "model": "dall-e-3"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "rusty, tabby, boxy, base" in answer.json()["error"]["message"]


async def test_a_large_body_is_refused_announced_or_not(client: httpx.AsyncClient) -> None:
    async def endless() -> Any:
        for _ in range(10):
            yield b" " * 10_000

    for content in (b" " * 70_000, endless()):
        answer = await client.post(URL, content=content)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"


async def test_a_full_line_is_429_and_the_rest_is_served(service: Service) -> None:
    crowded = Service(Settings(service.settings.subjects, waiting=2))
    crowded.open(service.engine)
    transport = httpx.ASGITransport(create_app(crowded))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        asking = [client.post(URL, json={"prompt": "rusty", "n": 2, "steps": 20}) for _ in range(8)]
        answers = await asyncio.gather(*asking)
    crowded.close()
    codes = sorted(answer.status_code for answer in answers)
    assert set(codes) == {200, 429}
    assert codes.count(200) >= 2
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"
