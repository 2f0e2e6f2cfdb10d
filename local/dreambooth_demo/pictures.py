"""Asks an endpoint for pictures, as any client of OpenAI's image API would."""

import base64
import io
import json
import urllib.request

from PIL import Image


def draw(url: str, model: str, prompt: str, seed: int, seconds: float = 120) -> Image.Image:
    """One picture of `prompt`. Raises OSError when the endpoint answers with an error."""
    body = json.dumps({"model": model, "prompt": prompt, "n": 1, "seed": seed}).encode()
    request = urllib.request.Request(
        f"{url}/v1/images/generations", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        picture = json.load(answer)["data"][0]["b64_json"]
    return Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
