"""What `down` finds, and what it never touches."""

import json
from pathlib import Path

from dreambooth_local import teardown
from dreambooth_local.places import CNI_NETWORK, Places
from dreambooth_local.teardown import is_ours, mounts_below

MOUNTS = """/dev/vda / ext4 rw 0 0
tmpfs /state/kubelet/pods/1/volumes tmpfs rw 0 0
overlay /run/x/containerd/rootfs overlay rw 0 0
proc /state/kubelet/pods/1/volumes/with\\040space/deep proc rw 0 0
tmpfs /state-of-another tmpfs rw 0 0
tmpfs /mnt/state tmpfs rw 0 0
"""


def test_mounts_are_found_innermost_first_and_only_below_our_folders():
    assert mounts_below(MOUNTS, Path("/state"), Path("/run/x")) == [
        "/state/kubelet/pods/1/volumes/with space/deep",
        "/state/kubelet/pods/1/volumes",
        "/run/x/containerd/rootfs",
    ]


def test_the_folder_itself_may_be_a_mount():
    assert mounts_below(MOUNTS, Path("/state-of-another")) == ["/state-of-another"]


def test_an_absent_or_empty_folder_may_be_used(tmp_path):
    assert is_ours(tmp_path / "absent")
    assert is_ours(tmp_path)


def test_a_cluster_that_was_cut_short_at_its_first_folders_is_ours(tmp_path):
    (tmp_path / "cni/conf").mkdir(parents=True)
    (tmp_path / "volumes").mkdir()
    assert is_ours(tmp_path)


def test_a_cluster_of_ours_is_recognised_by_its_network(tmp_path):
    conf = tmp_path / "cni/conf/10-pods.conflist"
    conf.parent.mkdir(parents=True)
    conf.write_text(json.dumps({"name": CNI_NETWORK}))
    assert is_ours(tmp_path)
    conf.write_text(json.dumps({"name": "flannel"}))
    assert not is_ours(tmp_path)


def test_someone_elses_files_are_not_ours(tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert not is_ours(tmp_path)


def test_traces_go_and_those_of_other_nodes_stay(tmp_path, monkeypatch):
    where, results = Places(tmp_path / "cache", tmp_path / "state"), tmp_path / "cni/results"
    (where.state / "containerd/io.containerd.grpc.v1.cri/sandboxes/ab12").mkdir(parents=True)
    results.mkdir(parents=True)
    for name in (f"{CNI_NETWORK}-ab12-eth0", "cni-loopback-ab12-lo", "cni-loopback-cd34-lo", "other-ef-eth0"):
        (results / name).touch()
    monkeypatch.setattr(teardown, "CNI_RESULTS", results)
    monkeypatch.setattr(teardown, "CONTAINER_LOGS", tmp_path / "logs")
    teardown._traces(where)
    assert sorted(entry.name for entry in results.iterdir()) == ["cni-loopback-cd34-lo", "other-ef-eth0"]
