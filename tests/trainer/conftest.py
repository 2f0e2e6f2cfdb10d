"""Small jobs on the example base: seconds each, everything real."""

import contextlib
import copy
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dreambooth_api.parse import parse_job_file
from dreambooth_trainer.store import S3Store, s3_store

# Read when torch is loaded, which collecting the tests does: idle threads that spin would take the cores from all else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

# What is small enough for a test: 4 class images of 2 denoising steps, 4 training steps.
SMALL = {
    "apiVersion": "dreambooth.dev/v1alpha1",
    "kind": "DreamBoothJob",
    "metadata": {
        "name": "small",
        "namespace": "tests",
        "annotations": {"dreambooth.dev/local-mirror": f"s3://dreambooth/examples={EXAMPLES}"},
    },
    "spec": {
        "baseModel": {"uri": "s3://dreambooth/examples/base"},
        "subject": {"images": {"uri": "s3://dreambooth/examples/robot/images"}, "className": "robot"},
        "prior": {"images": 4, "steps": 2, "guidanceScale": 2.0},
        "training": {"steps": 4, "batchSize": 2, "learningRate": 0.001},
        "checkpoints": {"everySteps": 2, "keep": 2},
        "validation": {"images": 1, "steps": 2, "guidanceScale": 2.0},
        "topology": {"gpusPerNode": 0},
        "publish": {"name": "small"},
    },
}


def merged(base: dict, over: dict) -> dict:
    """`over` on top of `base`, deeply."""
    out = copy.deepcopy(base)
    for key, value in over.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    from dreambooth_trainer.process import settle_libraries

    settle_libraries()


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """A trainer takes them for zero in its process; other tests in this one (hypothesis) need them."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def examples() -> Path:
    return EXAMPLES


@pytest.fixture(scope="session")
def small_job() -> Callable[..., dict]:
    """`small_job(training={"steps": 9})`: the small job, with parts of its spec changed."""
    return lambda **spec: merged(SMALL, {"spec": spec})


@pytest.fixture
def sdxl_ready(tmp_path: Path, sdxl_base: Path, context, prepare, small_job) -> Callable:
    """`sdxl_ready(training={…})`: as `ready`, on the tiny SDXL."""
    from dataclasses import replace

    from dreambooth_trainer.context import Mirror

    def make(folder: str = "out", **spec):
        world = tmp_path / "world"
        if not world.exists():
            world.mkdir()
            (world / "base").symlink_to(sdxl_base)
            (world / "robot").symlink_to(EXAMPLES / "robot")
        ctx = context(small_job(**spec), tmp_path / folder)
        ctx = replace(ctx, mirror=Mirror("s3://dreambooth/examples", world))
        prepare(ctx)
        return ctx

    return make


@pytest.fixture(scope="session")
def context() -> Callable:
    """`context(body, out)`: what `dreambooth run` makes of a job, without MLflow."""
    from dreambooth_trainer.context import Tracking, laptop_context

    def make(body: dict, out: Path, **changes):
        from dataclasses import replace

        made = laptop_context(parse_job_file(body), body["metadata"], Path("job.yaml"), out, terminal=False)
        return replace(made, tracking=Tracking(), **changes)

    return make


@pytest.fixture(scope="session")
def desk() -> Callable:
    """`desk(ctx)`: a silent place to report to."""
    from dreambooth_api.reasons import Phase
    from dreambooth_trainer.loop import Desk
    from dreambooth_trainer.progress import Board, Console
    from dreambooth_trainer.tracking import NullTracker

    return lambda ctx: Desk(Board(ctx, Phase.TRAINING), Console(silent=True), NullTracker())


@pytest.fixture(scope="session")
def prepare() -> Callable:
    """`prepare(ctx)`: the real thing, silently."""
    from dreambooth_api.reasons import Phase
    from dreambooth_trainer.prepare import prepare
    from dreambooth_trainer.progress import Board, Console

    return lambda ctx: prepare(ctx, Board(ctx, Phase.PREPARING), Console(silent=True))


@pytest.fixture(scope="session")
def class_images(tmp_path_factory: pytest.TempPathFactory, small_job, context, prepare) -> Path:
    """A store in which the small job's class images are."""
    out = tmp_path_factory.mktemp("prepared")
    prepare(context(small_job(), out))
    return out / "store" / "priors"


@pytest.fixture
def ready(tmp_path: Path, class_images: Path, context, prepare, small_job) -> Callable:
    """`ready(training={…})`: a context whose job is prepared; the class images are not drawn again."""

    def make(folder: str = "out", **spec):
        ctx = context(small_job(**spec), tmp_path / folder)
        shutil.copytree(class_images, tmp_path / folder / "store" / "priors")
        prepare(ctx)
        return ctx

    return make


@pytest.fixture(scope="session")
def processes():
    """Processes that need not import torch anew: forked from a server that has it."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.trainer.loaded"])
    return server


@pytest.fixture
def pod(tmp_path: Path) -> Callable[[dict], dict[str, str]]:
    """`pod(body)`: writes job.json and the store Secret as a pod has them; returns the environment."""

    def make(body: dict, **secret: str) -> dict[str, str]:
        folder = tmp_path / "secret"
        folder.mkdir(exist_ok=True)
        for key, value in ({"endpoint": f"file://{tmp_path}/store"} | secret).items():
            (folder / key).write_text(value)
        (tmp_path / "job.json").write_text(json.dumps(merged(body, {"metadata": {"uid": "uid-1"}})))
        return {
            **os.environ,
            "DREAMBOOTH_STORE_DIR": str(folder),
            "DREAMBOOTH_WORK_DIR": str(tmp_path / "work"),
            "DREAMBOOTH_TERMINATION_LOG": str(tmp_path / "termination"),
            "OMP_NUM_THREADS": "1",
        }

    return make


def final_hash(ctx) -> str:
    """Of the weights, averages and optimizer state in the last checkpoint."""
    from dreambooth_trainer.checkpoint import Checkpoints

    checkpoints = Checkpoints(ctx, print)
    store = checkpoints.at(checkpoints.committed()[-1])
    files = [store.read(name) for name in store.keys() if name.endswith(".safetensors")]  # noqa: SIM118
    return hashlib.sha256(b"".join(files)).hexdigest()


KEY, SECRET = "tests-access", "tests-secret-key"


def unused_port() -> int:
    """A port that is free, and below those that outgoing connections take for themselves."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) != 0:
                return port


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """`free_port()`: a port to listen on."""
    return unused_port


def server_command(program: Path, kind: str, folder: Path, port: int) -> list[str]:
    """The command of a real S3 server."""
    if kind == "minio":
        return [str(program), "server", "--quiet", "--address", f"127.0.0.1:{port}", str(folder)]
    return [str(program), "--port", f"127.0.0.1:{port}", "--access", KEY, "--secret", SECRET, "posix", str(folder)]


@contextlib.contextmanager
def serving(program: Path, kind: str, folder: Path) -> Iterator[S3Store]:
    """A bucket on a real server that keeps its objects in `folder`."""
    port = unused_port()
    env = {**os.environ, "MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET}
    process = subprocess.Popen(server_command(program, kind, folder, port), env=env, stdout=subprocess.DEVNULL)
    try:
        store = s3_store(f"http://127.0.0.1:{port}", "bucket", KEY, SECRET, prefix="some/prefix", patience=10)
        deadline = time.monotonic() + 20
        while True:
            try:
                store.client.make_bucket("bucket")
                break
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield store
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def minio(s3_programs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    """A bucket on MinIO."""
    with serving(s3_programs["minio"], "minio", tmp_path_factory.mktemp("minio")) as store:
        yield store


@pytest.fixture(scope="session")
def versitygw(s3_programs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    """A bucket on versitygw."""
    with serving(s3_programs["versitygw"], "versitygw", tmp_path_factory.mktemp("versitygw")) as store:
        yield store


@pytest.fixture(params=["minio", "versitygw"])
def s3(request: pytest.FixtureRequest) -> S3Store:
    """A bucket on each kind of server."""
    return request.getfixturevalue(request.param)
