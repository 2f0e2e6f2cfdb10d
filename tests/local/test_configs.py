"""Command lines and configuration files of the daemons."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from dreambooth_local import configs, programs
from dreambooth_local.places import API_PORT, DNS_SERVICE, ETCD_PORT, NODE_POD_RANGE, Places

WHERE = Places(Path("/cache"), Path("/state"), Path("/run/x"))


@pytest.fixture
def lines():
    known = programs.paths(WHERE)
    return {**configs.control_plane(WHERE, known), **configs.node(WHERE, known)}


def test_every_daemon_has_a_command_line(lines):
    assert tuple(lines) == configs.DAEMONS


def test_containerd_keeps_everything_below_state_and_run_and_does_not_lower_oom_scores():
    config = tomllib.loads(configs.containerd(WHERE))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["netns_mounts_under_state_dir"] is True
    runc = cri["containerd"]["runtimes"]["runc"]["options"]["Root"]
    for path in (config["root"], config["state"], config["grpc"]["address"], cri["cni"]["conf_dir"], runc):
        assert path.startswith(("/state/", "/run/x/"))


def test_kubelet_runs_on_either_version_of_control_groups_with_its_pods_in_our_group():
    config = yaml.safe_load(configs.kubelet(WHERE))
    assert config["failCgroupV1"] is False
    assert config["cgroupRoot"] == "/dreambooth"
    assert config["clusterDNS"] == [DNS_SERVICE]
    assert config["imageGCHighThresholdPercent"] == 100  # images come from this machine: they could not be pulled again


def test_pods_are_not_masqueraded():
    bridge, ports = json.loads(configs.cni(WHERE))["plugins"]
    assert bridge["ipMasq"] is False
    assert bridge["ipam"]["ranges"] == [[{"subnet": NODE_POD_RANGE}]]
    assert ports["capabilities"] == {"portMappings": True}


def test_the_api_server_finds_the_node_by_address_and_checks_who_it_is(lines):
    line = lines["apiserver"]
    assert "--kubelet-preferred-address-types=InternalIP" in line
    assert f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}" in line
    assert f"--secure-port={API_PORT}" in line
    assert "--authorization-mode=Node,RBAC" in line
    assert any(word.startswith("--kubelet-certificate-authority=") for word in line)


def test_only_the_api_server_and_the_node_listen_beyond_this_machine(lines):
    for name in ("controllers", "scheduler"):
        assert "--bind-address=127.0.0.1" in lines[name]
    assert all("0.0.0.0" not in word for words in lines.values() for word in words)


def test_programs_are_those_of_the_cache_by_version(lines):
    assert lines["apiserver"][0] == f"/cache/bin/kube-apiserver-{programs.KUBERNETES}"
    assert lines["etcd"][0] == f"/cache/bin/etcd-{programs.ETCD}"
    assert lines["kubelet"][0] == f"/cache/bin/kubelet-{programs.KUBERNETES}"
