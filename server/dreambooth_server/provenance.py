"""PNG files that say where they come from: subject, artifact, base, seed, and the prompt's hash, never the prompt."""

import hashlib
import io

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dreambooth_server.artifacts import Artifact
from dreambooth_server.drawing import Drawing
from dreambooth_server.settings import BASE_MODEL

PREFIX = "dreambooth:"


def to_png(picture: Image.Image, drawing: Drawing, artifact: Artifact) -> bytes:
    """`picture` as a PNG whose text chunks state its origin. `artifact` is the subject's, or any of the same base."""
    known = {
        "subject": BASE_MODEL if drawing.model == BASE_MODEL else artifact.name,
        "artifact": "" if drawing.model == BASE_MODEL else artifact.digest,
        "base": artifact.card.base.digest,
        "seed": str(drawing.seed),
        "steps": str(drawing.steps),
        "scheduler": drawing.sampler,
        "guidance_scale": str(drawing.guidance_scale),
        "prompt_sha256": hashlib.sha256(drawing.prompt.encode()).hexdigest(),
    }
    text = PngInfo()
    text.add_text("Software", "DreamBooth on Kubernetes")
    for key, value in known.items():
        if value:
            text.add_text(PREFIX + key, value)
    out = io.BytesIO()
    picture.save(out, "PNG", pnginfo=text)
    return out.getvalue()
