"""Which Debian packages are missing, and what is said where they cannot be installed."""

import pytest

from dreambooth_local.packages import CannotInstall, check_installable, install, missing

STATUS = "containerd installed\nrunc config-files\niproute2 installed\netcd-server half-installed\n"


def test_only_installed_packages_count():
    assert missing(["containerd", "runc", "etcd-server", "buildah"], STATUS) == ["runc", "etcd-server", "buildah"]


def test_nothing_is_missing_when_all_are_installed():
    assert missing(["containerd", "iproute2"], STATUS) == []


def test_a_name_that_begins_like_an_installed_one_is_missing():
    assert missing(["container"], STATUS) == ["container"]


@pytest.mark.parametrize(("apt", "root", "said"), [(True, False, "as root"), (False, True, "no apt-get")])
def test_where_nothing_can_be_installed_what_is_missing_is_named(apt: bool, root: bool, said: str):
    with pytest.raises(CannotInstall, match=rf"missing Debian packages: g\+\+ python3-dev; .*{said}"):
        check_installable(["g++", "python3-dev"], apt, root)
    check_installable(["g++", "python3-dev"], apt=True, root=True)


def test_a_machine_without_dpkg_lacks_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotInstall, match=r"g\+\+; there is no apt-get here"):
        install(tmp_path / "log", ["g++"])
