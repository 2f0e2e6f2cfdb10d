"""Stand-ins for public images."""

from pathlib import Path

from dreambooth_local import programs, stand_ins
from dreambooth_local.places import Places

LDD = """\tlinux-vdso.so.1 (0x00007ffd)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)
"""


def test_libraries_are_the_absolute_paths_of_ldd():
    assert stand_ins.linked(LDD) == [Path("/lib/x86_64-linux-gnu/libc.so.6"), Path("/lib64/ld-linux-x86-64.so.2")]


def test_a_static_program_has_none():
    assert stand_ins.linked("\tnot a dynamic executable\n") == []


def test_pages_come_with_what_they_load_of_linked_libraries(tmp_path):
    static, library = tmp_path / "web" / "static", tmp_path / "javascript" / "jquery"
    (library / "data").mkdir(parents=True)
    static.mkdir(parents=True)
    for path in (static / "graph.js", library / "jquery.js", library / "jquery.min.js", library / "data" / "a.woff2"):
        path.write_text("x")
    (static / "jquery").symlink_to(library)
    found = stand_ins.pages(tmp_path / "web")
    names = sorted(Path(name).relative_to(static).as_posix() for name in found)
    assert names == ["graph.js", "jquery/data/a.woff2", "jquery/jquery.min.js"]
    assert stand_ins.pages(tmp_path / "absent") == {}


def test_minio_starts_as_the_public_image_does():
    image = stand_ins.minio(Places(Path("/cache"), Path("/state")))
    assert list(image.entrypoint) == ["/usr/bin/minio"]
    assert image.files["/usr/bin/minio"] == Path(f"/cache/bin/minio-{programs.MINIO}")
    assert "/etc/ssl/certs/ca-certificates.crt" in image.files
