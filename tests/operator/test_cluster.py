"""What a name of a user's becomes in a request, read off a real server's raw paths."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from dreambooth_operator.cluster import Cluster
from dreambooth_operator.fence import Fence


@pytest.mark.parametrize("name", ["../../other/secrets/token", "?limit=500", "token/../..", "%2e%2e", "a#b", "..", "."])
async def test_a_name_never_leaves_its_place_in_the_path(name):
    """What an older chart's CRD let pass may be any text; a path that climbs would be another namespace's."""
    asked = []

    async def answer(request):
        asked.append(request.raw_path)
        return web.json_response({"metadata": {"name": name}}, status=404)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        configuration = client.Configuration(host=str(server.make_url("")).rstrip("/"))
        cluster = Cluster(client.ApiClient(configuration), Fence())
        assert await cluster.find("Secret", "team", name) is None
        await cluster.close()
    for path in asked:
        place, _, found = path.rpartition("/")
        assert place == "/api/v1/namespaces/team/secrets"
        assert found not in ("", ".", "..")
        assert "?" not in found
    assert len(asked) == (name not in (".", ".."))
