"""Real artifacts on the example base, and servers over them: one in this process, one of its own with a real socket."""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

# pytest's importlib mode puts no folder of tests on the path; the kit has a name that nothing else has.
sys.path.append(str(Path(__file__).parent))

from page_kit import DESKTOP
from playwright.sync_api import Browser, Page, sync_playwright
from server_kit import Endpoint, Made, save_lora, write_card, write_full, write_lora, write_manifest
from store_kit import running

from dreambooth_api.job import MethodType
from dreambooth_server.app import create_app
from dreambooth_server.service import Service
from dreambooth_server.settings import Places, Room, Settings, SubjectSource

ROOT = Path(__file__).parents[2]
os.environ.update(HF_HUB_OFFLINE="1", OMP_WAIT_POLICY="PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example base: someone may be training the original."""
    return Path(shutil.copytree(ROOT / "examples/base", tmp_path_factory.mktemp("base") / "base"))


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Made:
    """The subject `rusty`: LoRA on U-Net and text encoder. Read only."""
    folder = tmp_path_factory.mktemp("lora")
    write_lora(folder, base, seed=1)
    write_card(folder, base)
    return Made(folder, write_manifest(folder))


@pytest.fixture(scope="session")
def second_lora(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Made:
    """The subject `tabby`: LoRA on the U-Net alone, saved by diffusers with a scale of its own. Read only."""
    folder = tmp_path_factory.mktemp("second")
    save_lora(folder, base, seed=2)
    write_card(folder, base, name="tabby", identifier="ohwx", class_name="cat", train_text_encoder=False)
    return Made(folder, write_manifest(folder))


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Made:
    """The subject `boxy`: all weights of U-Net and text encoder. Read only."""
    folder = tmp_path_factory.mktemp("full")
    write_full(folder, base, seed=3)
    write_card(folder, base, name="boxy", method=MethodType.FULL, lora=None)
    return Made(folder, write_manifest(folder))


@pytest.fixture
def copy_of_lora(lora: Made, tmp_path: Path) -> Path:
    """A copy of the artifact that a test may spoil."""
    return Path(shutil.copytree(lora.folder, tmp_path / "copy"))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """No store, and a work folder of its own."""
    return Places(store=tmp_path / "no-store", work=tmp_path / "work")


@pytest.fixture(scope="module", params=["minio", "versitygw"])
def store(
    s3_programs: dict[str, Path], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder like the mounted Secret of a running store with an empty bucket."""
    with running(request.param, s3_programs[request.param], tmp_path_factory.mktemp("s3")) as keys:
        yield keys


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory, started: Endpoint, lora: Made, second_lora: Made, full: Made
) -> Iterator[Service]:
    """A loaded service with three subjects on one base; `rusty` is the default."""
    where = tmp_path_factory.mktemp("places")
    subjects = tuple(SubjectSource(str(made.folder), made.digest) for made in (lora, second_lora, full))
    service = Service(Settings(subjects, places=Places(store=where / "none", work=where)))
    service.load()
    yield service
    service.close()


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this process, without a socket."""
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory, lora: Made) -> Iterator[Endpoint]:
    """A real server process that may still be loading: what loads beside it in this process uses the other core."""
    endpoint = Endpoint(lora, tmp_path_factory.mktemp("endpoint"))
    endpoint.wait_until_alive()
    yield endpoint
    endpoint.kill()


@pytest.fixture
def endpoint(started: Endpoint) -> str:
    """The URL of a ready server process that serves `rusty`."""
    return started.wait().url


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Service]:
    """A loaded pool with two slots on the device and three places in memory; no subject is there yet."""
    where = tmp_path_factory.mktemp("pool")
    places = Places(store=where / "none", work=where)
    service = Service(Settings(base=f"file://{base}", room=Room(2, 3, 8), places=places))
    service.load()
    yield service
    service.close()


@pytest.fixture
async def pool_client(pool: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the pool in this process, without a socket."""
    transport = httpx.ASGITransport(create_app(pool), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://pool") as client:
        yield client


@pytest.fixture(scope="module")
def browser(chromium: dict[str, Any]) -> Iterator[Browser]:
    """A real Chromium. Not for the session: while it is open no test can have an event loop."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium)
        yield browser
        browser.close()


@pytest.fixture
def errors() -> list[str]:
    """What the browser's console complained about; a test that expects some clears it."""
    return []


@pytest.fixture
def blank(browser: Browser, errors: list[str]) -> Iterator[Page]:
    """An empty page; the test fails when the browser's console has an error at its end."""
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors
