"""What goes over the wire, read off a real server: a user's name in a path, and by which proxy it goes."""

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client, config

from dreambooth_operator.cluster import ApiFault, Cluster, connect
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


async def test_of_a_list_only_what_is_read_is_kept():
    kept = {"metadata": {"name": "a", "namespace": "team", "labels": {"x": "y"}}, "spec": {"a": [1]}, "status": {}}
    item = {**kept, "metadata": {**kept["metadata"], "managedFields": [{"manager": "kubectl"}]}}

    async def answer(_):
        return web.json_response({"kind": "JobList", "metadata": {"resourceVersion": "5"}, "items": [item]})

    app = web.Application()
    app.router.add_get("/apis/batch/v1/namespaces/team/jobs", answer)
    async with TestServer(app) as server:
        configuration = client.Configuration(host=str(server.make_url("")).rstrip("/"))
        cluster = Cluster(client.ApiClient(configuration), Fence())
        page = await cluster.list_page("Job", "team", "", 500, "")
        await cluster.close()
    assert page == {"metadata": {"resourceVersion": "5"}, "items": [kept]}


@pytest.mark.parametrize(("passed_by", "asked"), [("", "http://api.invalid"), ("api.invalid", None)])
async def test_the_environments_proxy_is_gone_through(monkeypatch, tmp_path, passed_by, asked):
    """`.invalid` has no address: it is the proxy that is asked for it, or nobody."""
    paths = []

    async def answer(request):
        paths.append(request.raw_path)
        return web.json_response({"metadata": {"name": "token"}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        named = {"clusters": [{"name": "c", "cluster": {"server": "http://api.invalid"}}],
                 "users": [{"name": "u", "user": {"token": "t"}}],
                 "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}  # fmt: skip
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "x", **named}))
        monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        monkeypatch.setenv("http_proxy", str(server.make_url("")))
        monkeypatch.setenv("no_proxy", passed_by)
        cluster = await connect(Fence())
        if asked:
            assert await cluster.find("Secret", "team", "token")
        else:
            with pytest.raises(ApiFault):
                await cluster.find("Secret", "team", "token")
        await cluster.close()
    assert paths == ([f"{asked}/api/v1/namespaces/team/secrets/token"] if asked else [])
