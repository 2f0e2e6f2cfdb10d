"""Which Debian packages are missing."""

from dreambooth_local.packages import missing

STATUS = "containerd installed\nrunc config-files\niproute2 installed\netcd-server half-installed\n"


def test_only_installed_packages_count():
    assert missing(["containerd", "runc", "etcd-server", "buildah"], STATUS) == ["runc", "etcd-server", "buildah"]


def test_nothing_is_missing_when_all_are_installed():
    assert missing(["containerd", "iproute2"], STATUS) == []


def test_a_name_that_begins_like_an_installed_one_is_missing():
    assert missing(["container"], STATUS) == ["container"]
