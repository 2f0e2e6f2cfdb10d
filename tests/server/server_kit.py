"""What the server's tests share: making artifacts as the trainer writes them, and running server processes."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from dreambooth_api.artifact import BaseReference, Manifest, ManifestEntry, ModelCard
from dreambooth_api.job import Lora, MethodType
from dreambooth_api.names import MANIFEST, MODEL_CARD
from dreambooth_server.artifacts import LORA_WEIGHTS
from dreambooth_server.sources import FolderSource
from dreambooth_server.verify import base_digest, sha256


@dataclass(frozen=True)
class Made:
    """An artifact that a fixture made."""

    folder: Path
    digest: str


def write_manifest(folder: Path) -> str:
    """(Re)write MANIFEST.json over all files of `folder`; returns the artifact's digest."""
    names = [n for n in FolderSource(folder).names() if n != MANIFEST]
    entries = {n: ManifestEntry(bytes=(folder / n).stat().st_size, sha256=sha256(folder / n)) for n in names}
    manifest = Manifest(files=entries)
    (folder / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    return manifest.digest


def write_card(folder: Path, base: Path, **changes: Any) -> ModelCard:
    """Write model.json for the base in the folder `base`."""
    digest = base_digest(base)
    fields: dict[str, Any] = {
        "name": "rusty", "namespace": "demo", "job": "robot",
        "base": BaseReference(uri=f"file://{base}", digest=digest),
        "method": MethodType.LORA, "lora": Lora(rank=4, alpha=4), "train_text_encoder": True, "identifier": "sks",
        "class_name": "robot", "prompt": "a photo of sks robot", "resolution": 32, "steps": 8, "guidance_scale": 4.0,
        "trained_steps": 1, "created": "2026-01-01T00:00:00Z", "scores": {"clipI": 0.9, "baseClipI": 0.5},
    }  # fmt: skip
    card = ModelCard(**{**fields, **changes})
    (folder / MODEL_CARD).write_text(card.model_dump_json(by_alias=True))
    return card


def write_lora(folder: Path, base: Path, seed: int, rank: int = 4) -> None:
    """Random adapters on the attention of U-Net and text encoder, in diffusers' file format, without torch."""
    rng = np.random.default_rng(seed)
    adapters: dict[str, Any] = {}
    for part, leaves, kind in (("unet", ("to_q", "to_k", "to_v", "to_out.0"), "lora"),
                               ("text_encoder", ("q_proj", "v_proj"), "lora_linear_layer")):  # fmt: skip
        with safe_open(next((base / part).glob("*.safetensors")), "np") as weights:
            for key in weights.keys():  # noqa: SIM118  (a file, not a dict)
                module = key.removesuffix(".weight")
                if module == key or not module.endswith(leaves):
                    continue
                out, inner = weights.get_slice(key).get_shape()
                name = f"{part}.{module.removeprefix('text_model.')}.{kind}"
                down, up = rng.normal(size=(rank, inner)), rng.normal(size=(out, rank))
                adapters[f"{name}.down.weight"] = (down / inner**0.5).astype("float32")
                adapters[f"{name}.up.weight"] = (up / rank**0.5).astype("float32")
    save_file(adapters, folder / LORA_WEIGHTS, metadata={"format": "pt"})


def save_lora(folder: Path, base: Path, seed: int) -> None:
    """Random adapters on the U-Net, made and saved by peft and diffusers; alpha is twice the rank."""
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model_state_dict

    torch.manual_seed(seed)
    unet: Any = UNet2DConditionModel.from_pretrained(str(base / "unet"))
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(
        str(folder),
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(unet)),
        **_collate_lora_metadata({"unet": unet}),
    )


def write_full(folder: Path, base: Path, seed: int) -> None:
    """U-Net and text encoder of the base, with all weights disturbed."""
    rng = np.random.default_rng(seed)
    for part in ("unet", "text_encoder"):
        shutil.copytree(base / part, folder / part)
        path = next((folder / part).glob("*.safetensors"))
        weights = load_file(path)
        noisy = {
            k: v + rng.normal(scale=0.02, size=v.shape).astype(v.dtype) if v.dtype.kind == "f" else v
            for k, v in weights.items()
        }
        save_file(noisy, path, metadata={"format": "pt"})


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def get(url: str) -> int | None:
    """The status of a GET; None when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status
    except urllib.error.HTTPError as e:
        return e.code
    except OSError:
        return None


class Endpoint:
    """A server process as in a pod, started at once."""

    def __init__(self, made: Made, folder: Path) -> None:
        port = free_port()
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "log"
        self.ready_when_alive: int | None = None
        self._command = [sys.executable, "-m", "dreambooth_server", "--artifact", f"file://{made.folder}"]
        self._command += ["--digest", made.digest, "--name", "rusty", "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--drain-seconds", "3", "--grace-seconds", "90"]
        self._command += ["--patience-seconds", "300"]  # other tests may be at work beside this one
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        env = {**os.environ, "DREAMBOOTH_WORK_DIR": str(self.log.parent)}
        with self.log.open("ab") as out:
            return subprocess.Popen(self._command, stdout=out, stderr=out, cwd=self.log.parent, env=env)

    def wait_until_alive(self) -> None:
        """Until `/healthz` answers; what `/readyz` says then is kept in `ready_when_alive`."""
        while self.process.poll() is None and get(f"{self.url}/healthz") != 200:
            time.sleep(0.05)
        self.ready_when_alive = get(f"{self.url}/readyz")

    def wait(self, seconds: float = 120) -> "Endpoint":
        """Until it is ready; one that a test has ended in order is started again."""
        if self.process.poll() == 0:
            self.process = self._start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            if get(f"{self.url}/readyz") == 200:
                return self
            time.sleep(0.1)
        raise AssertionError(f"not ready; status {self.process.poll()}, log:\n{self.log.read_text()}")

    def kill(self) -> None:
        """End it if it still lives."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
