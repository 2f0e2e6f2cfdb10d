"""OpenAI's own Python client against a real server process."""

import base64
import io
from collections.abc import Iterator

import openai
import pytest
from PIL import Image


@pytest.fixture
def openai_client(endpoint: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{endpoint}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_it_gets_a_picture(openai_client: openai.OpenAI) -> None:
    answer = openai_client.images.generate(
        model="rusty", prompt="a photo of rusty at night", n=2, size="auto", response_format="b64_json",
        quality="standard", user="someone", extra_body={"seed": 11, "steps": 4, "guidance_scale": 3.0,
        "negative_prompt": "snow"},
    )  # fmt: skip
    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    assert Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))).size == (32, 32)
    assert answer.data[1].revised_prompt == "a photo of sks robot at night"


def test_it_lists_models(openai_client: openai.OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == ["rusty", "base"]
    assert openai_client.models.retrieve("rusty").owned_by == "demo"


def test_its_errors_are_its_own(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        openai_client.images.generate(model="nobody", prompt="x")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="multiple of 8"):
        openai_client.images.generate(model="rusty", prompt="x", size="1024x1024")
