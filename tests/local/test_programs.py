"""What is compiled, how, and that a program appears in the cache whole or not at all."""

import os
import shutil
from pathlib import Path

import pytest

from dreambooth_local import programs
from dreambooth_local.commands import CommandFailed
from dreambooth_local.places import Places
from dreambooth_local.programs import Program

TINY = Program("tiny", "1.0", "./pause")  # the smallest of our own


@pytest.fixture
def where(tmp_path):
    return Places(tmp_path / "cache", tmp_path / "state")


def test_programs_of_our_module_are_one_build():
    line = programs.build_command(programs.CLUSTER, Path("/out"))
    assert line[:2] == ["go", "build"]
    assert line[line.index("-o") + 1] == "/out/"
    assert "k8s.io/kubernetes/cmd/kubelet" in line
    assert f"gitVersion=v{programs.KUBERNETES}" in " ".join(line)


def test_a_program_is_called_like_its_folder_and_never_like_a_version():
    assert {program.name: program.built for program in programs.CLUSTER if program.built != program.name} == {
        "etcd": "server"
    }


def test_a_program_with_its_own_module_is_installed_at_its_version():
    line = programs.build_command([programs.STORE], Path("/out"))
    assert line[:2] == ["go", "install"]
    assert line[-1] == f"github.com/minio/minio@{programs.MINIO_MODULE}"


def test_programs_are_static_and_the_users_go_settings_do_not_matter():
    env = programs.build_environment({"GOFLAGS": "-mod=vendor", "HOME": "/h"}, Path("/out"))
    assert (env["CGO_ENABLED"], env["GOBIN"], env["HOME"]) == ("0", "/out", "/h")
    assert "vendor" not in env["GOFLAGS"]


def test_the_compiler_may_use_memory_unless_the_user_said_otherwise():
    assert programs.build_environment({}, Path("/out"))["GOGC"] == "400"
    assert programs.build_environment({"GOGC": "50"}, Path("/out"))["GOGC"] == "50"


def test_every_file_of_the_cache_carries_its_version(where):
    known = programs.paths(where)
    assert known["helm"].name == f"helm-{programs.HELM}"
    assert len(set(known.values())) == len(known)


def test_kubectl_is_compiled_only_where_the_machine_has_none():
    assert programs.KUBECTL not in programs.cluster_builds(has_kubectl=True)[0]
    assert programs.KUBECTL in programs.cluster_builds(has_kubectl=False)[0]


def test_what_cannot_be_built_with_the_others_is_a_build_of_its_own_and_is_missed_too(where):
    assert programs.cluster_builds(has_kubectl=True)[1:] == ((programs.VOLUMES,),)
    assert {programs.VOLUMES, programs.STORE, *programs.CLUSTER} <= set(programs.missing(where))
    assert programs.OTHER_STORE not in programs.missing(where)


def test_what_the_cache_holds_is_not_missing(where):
    where.programs.mkdir(parents=True)
    (where.programs / TINY.file).touch()
    other = Program("other", "1", "./other")
    assert programs.absent(where, [TINY, other]) == [other]


def test_a_program_in_the_cache_is_not_built_and_its_plain_name_points_to_it(where):
    where.programs.mkdir(parents=True)
    (where.programs / TINY.file).write_text("there")
    (where.programs / "tiny").symlink_to("tiny-0.9")
    assert programs.ensure(where, [TINY], where.logs / "compile.log") == "cached"
    assert (where.programs / "tiny").read_text() == "there"


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go on this machine")
def test_a_program_that_does_not_compile_leaves_nothing_and_says_why(where):
    with pytest.raises(CommandFailed, match="no-such-folder"):
        programs.ensure(where, [Program("broken", "1", "./no-such-folder")], where.logs / "compile.log")
    assert list(where.programs.iterdir()) == []


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go on this machine")
def test_a_program_is_compiled_and_starts(where):
    assert programs.ensure(where, [TINY], where.logs / "compile.log") == "compiled tiny"
    assert sorted(entry.name for entry in where.programs.iterdir()) == ["tiny", TINY.file]
    assert os.access(where.programs / TINY.file, os.X_OK)
    assert programs.ensure(where, [TINY], where.logs / "compile.log") == "cached"
