"""A gateway, its operator and a client."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from gateway_kit import Stage, staged


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A gateway that has heard of nothing yet."""
    async with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the gateway."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(stage.url, connector=connector) as client:
        yield client
