"""`POST /routes` over real HTTP."""

import contextlib
import time

import pytest
from aiohttp.test_utils import TestClient, TestServer

from dreambooth_api.routes import GatewayReport
from dreambooth_operator import routes_web


class Table:
    """Routes that are what they are told to be."""

    revision = "one"

    def current(self):
        return self.revision, b'{"revision":"%s"}' % self.revision.encode()


@pytest.fixture
def leading():
    return [True]


@contextlib.asynccontextmanager
async def asking(tmp_path, leading, token="secret\n"):
    path, heard, table = tmp_path / "token", [], Table()
    path.write_text(token)
    app = routes_web.routes_app(table, path, heard.append, lambda: leading[0])
    async with TestClient(TestServer(app)) as client:

        async def ask(body=None, token="secret", **report):
            data = body or GatewayReport(gateway="g", **report).model_dump_json(by_alias=True)
            headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
            return await client.post("/routes", data=data, headers=headers)

        yield ask, heard, table


async def test_routes_that_are_others_come_at_once(tmp_path, leading):
    async with asking(tmp_path, leading) as (ask, heard, _):
        answer = await ask(revision="none")
        assert answer.status == 200
        assert await answer.json() == {"revision": "one"}
        assert [report.gateway for report in heard] == ["g"]


async def test_the_same_routes_are_waited_with(tmp_path, leading, monkeypatch):
    monkeypatch.setattr(routes_web, "HOLD_SECONDS", 0.3)
    async with asking(tmp_path, leading) as (ask, _, _):
        begun = time.monotonic()
        assert (await ask(revision="one")).status == 204
        assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize("token", [None, "", "wrong", "secret2", "sécret"])
async def test_without_the_token_nothing_is_told(tmp_path, leading, token):
    async with asking(tmp_path, leading) as (ask, heard, _):
        assert (await ask(token=token)).status == 401
        assert heard == []


async def test_without_any_token_nobody_has_it(tmp_path, leading):
    async with asking(tmp_path, leading, token="") as (ask, heard, _):
        assert (await ask(token="")).status == 401
        assert heard == []


async def test_a_replica_that_does_not_lead_says_so(tmp_path, leading):
    leading[0] = False
    async with asking(tmp_path, leading) as (ask, heard, _):
        answer = await ask()
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert heard == []


async def test_what_is_no_report_is_refused(tmp_path, leading, monkeypatch):
    monkeypatch.setattr(routes_web, "MOST_BYTES", 1000)
    async with asking(tmp_path, leading) as (ask, heard, _):
        for body in ("nonsense", "{}", '{"gateway": "g", "loads": {"a/b": {"inFlight": -1}}}'):
            answer = await ask(body=body)
            assert answer.status == 400
            assert "GatewayReport" in (await answer.json())["error"]
        assert (await ask(body="x" * 2000)).status == 413
        assert heard == []
