"""Where things lie."""

from pathlib import Path

from dreambooth_local.places import places


def test_defaults():
    where = places({"HOME": "/home/ada"})
    assert where.cache == Path("/home/ada/.cache/dreambooth")
    assert where.state == Path("/var/lib/dreambooth")


def test_the_environment_says_otherwise():
    where = places({"DREAMBOOTH_CACHE": "/c", "DREAMBOOTH_STATE": "/s"})
    assert (where.programs, where.kubeconfig) == (Path("/c/bin"), Path("/s/admin.conf"))


def test_an_empty_value_is_none():
    assert places({"HOME": "/h", "DREAMBOOTH_CACHE": "", "DREAMBOOTH_STATE": ""}) == places({"HOME": "/h"})
