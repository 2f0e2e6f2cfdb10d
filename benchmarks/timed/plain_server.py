"""What `benchmarks/serving.py` compares with: diffusers' pipeline behind FastAPI, one request at a time.

python benchmarks/timed/plain_server.py BASE SUBJECTS PORT: `POST /draw` {subject, prompt, seed, steps, guidance_scale}
answers with a PNG. A subject's adapter is loaded with `load_lora_weights` when it is first asked for, and chosen with
`set_adapters`; loaded ones stay.
"""

import asyncio
import io
import sys
from pathlib import Path
from typing import Any

import torch
import uvicorn
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from fastapi import FastAPI, Response
from pydantic import BaseModel


class Wanted(BaseModel):
    """One picture."""

    subject: str
    prompt: str
    seed: int
    steps: int
    guidance_scale: float


def main(base: str, subjects: str, port: str) -> None:
    """Serve until SIGTERM."""
    # As ours does for so small a base: it is twice as fast.
    torch.set_num_threads(1)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(base, safety_checker=None, local_files_only=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    app, turn, loaded = FastAPI(), asyncio.Lock(), set[str]()

    def draw(wanted: Wanted) -> bytes:
        # Handlers' threads begin with all cores.
        torch.set_num_threads(1)
        if wanted.subject not in loaded:
            pipeline.load_lora_weights(str(Path(subjects) / wanted.subject), adapter_name=wanted.subject)
            loaded.add(wanted.subject)
        pipeline.set_adapters([wanted.subject])
        picture = pipeline(
            wanted.prompt, num_inference_steps=wanted.steps, guidance_scale=wanted.guidance_scale,
            generator=torch.Generator().manual_seed(wanted.seed),
        ).images[0]  # fmt: skip
        out = io.BytesIO()
        picture.save(out, "PNG")
        return out.getvalue()

    @app.post("/draw")
    async def answer(wanted: Wanted) -> Response:
        async with turn:
            return Response(await asyncio.to_thread(draw, wanted), media_type="image/png")

    @app.get("/readyz")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
