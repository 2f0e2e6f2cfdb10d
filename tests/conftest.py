"""The order of the whole run, and the one real cluster of all cluster tests.

That is the one of KUBECONFIG, a local one that runs already, or one brought up. What was brought up is taken down at
the end; on a cluster that was there, only the tests' namespaces come and go.

With workers (`make test`) one has the cluster and its tests; the other files go to whoever is free.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dreambooth_api import compiling
from dreambooth_demo.kube import Kube
from dreambooth_local import packages, programs
from dreambooth_local.places import places
from dreambooth_local.up import compile_cluster
from tests.workers import LinePerFile, Scheduling, on_the_cluster, unit_of

# The first test waits for the cluster: on a bare machine Kubernetes and MinIO are compiled, images are built.
COLD_START_SECONDS = 3600

# Whether a cluster was there before the tests began, well or not: a moment's complaint (DNS under load) must never make
# them take away what is someone's.
FOUND_RUNNING = pytest.StashKey[bool]()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[FOUND_RUNNING] = bool(os.environ.get("KUBECONFIG")) or places(os.environ).kubeconfig.exists()
    if hasattr(config, "workerinput"):
        return
    # Once for the whole run: not in the workers.
    config.pluginmanager.register(TakenDown(config.stash[FOUND_RUNNING]))
    if config.option.dist != "no" and config.option.verbose == 0:
        config.pluginmanager.register(LinePerFile(config.pluginmanager.getplugin("terminalreporter")))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    config.option.loadscopereorder = False  # the order is the one of `pytest_collection_modifyitems`
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fast files, those with tests that need programs, cluster tests, those that kill the cluster; otherwise the order
    stays.

    With workers the cluster's come first: one worker waits for it while the others run fast tests.
    """
    first = -1 if hasattr(config, "workerinput") else 2
    waiting = {unit_of(item.nodeid) for item in items if item.get_closest_marker("cluster")}

    def stage(item: pytest.Item) -> int:
        if item.get_closest_marker("local_lifecycle"):
            return 3
        return first if on_the_cluster(item.nodeid) else unit_of(item.nodeid) in waiting

    items.sort(key=stage)
    begun: set[str] = set()
    for item in items:
        if not item.get_closest_marker("cluster"):
            continue
        if (unit := unit_of(item.nodeid)) not in begun:
            begun.add(unit)
            item.add_marker(pytest.mark.timeout(COLD_START_SECONDS))
        if isinstance(item, pytest.Function):
            # First of all: programs that such tests call (helm) are there once the cluster is. In a list of its own:
            # the items of one function share theirs, and a parameter that needs no cluster must not wait for one.
            item.fixturenames = ["kube" if on_the_cluster(item.nodeid) else "compiled", *item.fixturenames]


class TakenDown:
    """A run that has cluster tests, and found no cluster, leaves none: neither after failures nor after Ctrl-C."""

    def __init__(self, found: bool) -> None:
        self.found, self.ours = found, False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if not session.config.option.collectonly:
            self.pytest_xdist_node_collection_finished([item.nodeid for item in session.items])

    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self.ours = not self.found and any(map(on_the_cluster, ids))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """After the workers have ended."""
        if self.ours:
            _local("down")


def _local(command: str) -> None:
    subprocess.run([sys.executable, "-m", "dreambooth_local", command], check=True)


@pytest.fixture(scope="session")
def found_running(pytestconfig: pytest.Config) -> bool:
    """Whether there was a cluster before the tests began."""
    return pytestconfig.stash[FOUND_RUNNING]


@pytest.fixture(scope="session")
def kube() -> Kube:
    """The cluster, bare."""
    if given := os.environ.get("KUBECONFIG"):
        return Kube(Path(given.split(":")[0]))
    # Also for one that runs: `up` is idempotent, and brings images of the present code.
    _local("up")
    return Kube(places(os.environ).kubeconfig, local=True)


@pytest.fixture(scope="session")
def compiled() -> None:
    """Programs that the cluster is made of, for tests that run some of them without it: helm, an API server, promtool.
    What is missing is compiled or installed (minutes, once per machine)."""
    where = places(os.environ)
    packages.install(where.logs / "packages.log")
    compile_cluster(where, where.logs / "compile.log")


@pytest.fixture(scope="session")
def s3_programs() -> dict[str, Path]:
    """Name -> program of MinIO and versitygw, compiled if need be (minutes, once per machine)."""
    where = places(os.environ)
    for program in (programs.STORE, programs.OTHER_STORE):
        programs.ensure(where, [program], where.logs / "compile.log")
    return programs.paths(where)


@pytest.fixture(scope="session")
def compiler() -> None:
    """What torch's compiler needs, installed if need be."""
    if compiling.lacking("cpu"):
        packages.install(places(os.environ).logs / "packages.log", packages.COMPILER)
    what = compiling.lacking("cpu")
    assert what is None, f"torch.compile needs {what}, which Debian's packages did not bring: is this Debian's Python?"


@pytest.fixture(scope="session")
def chromium() -> dict[str, Any]:
    """What Playwright's `chromium.launch` is to be called with: the machine's own browser, installed if need be."""
    if shutil.which("chromium") is None:
        packages.install(places(os.environ).logs / "packages.log", packages.BROWSER)
    quiet = [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync",
    ]  # fmt: skip
    return {"executable_path": shutil.which("chromium"), "args": quiet}


@pytest.fixture(scope="session")
def sdxl_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion XL of random weights: every part that the real one has, some hundred KB."""
    return make_sdxl(tmp_path_factory.mktemp("sdxl") / "base")


def make_sdxl(folder: Path) -> Path:
    import torch
    from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
    from diffusers import DPMSolverMultistepScheduler as Scheduler
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(
        Path(__file__).parents[1] / "examples" / "base" / "tokenizer", local_files_only=True
    )
    # As the real ones have it: an `eos_token_id` of 2, by which the pooled state is that of the highest id.
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "num_hidden_layers": 2, "eos_token_id": 2}
    words |= {"num_attention_heads": 4, "bos_token_id": 0, "pad_token_id": 1}
    first = CLIPTextConfig(hidden_size=16, intermediate_size=32, projection_dim=16, **words)
    second = CLIPTextConfig(hidden_size=24, intermediate_size=48, projection_dim=24, **words)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
        cross_attention_dim=40,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 16),
        norm_num_groups=8,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(first),
        text_encoder_2=CLIPTextModelWithProjection(second),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=Scheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        add_watermarker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder
