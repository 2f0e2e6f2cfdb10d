"""MinIO and Prometheus under their public images' names, made of what this machine compiled or installed."""

from __future__ import annotations

from pathlib import Path

from dreambooth_local import programs
from dreambooth_local.commands import run
from dreambooth_local.oci import SmallImage
from dreambooth_local.places import Places

MINIO = "docker.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"
PROMETHEUS = "docker.io/prom/prometheus:v2.42.0"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PROMETHEUS_PROGRAM = Path("/usr/bin/prometheus")
PROMETHEUS_PAGES = Path("/usr/share/prometheus/web")
FONTS = (".eot", ".svg", ".ttf", ".woff", ".woff2")


def images(where: Places) -> list[SmallImage]:
    """Those that the chart's own servers run from."""
    return [minio(where), prometheus()]


def minio(where: Places) -> SmallImage:
    program = "/usr/bin/minio"
    files = {program: programs.paths(where)["minio"], str(CERTIFICATES): CERTIFICATES}
    return SmallImage(MINIO, files, [program], ["server", "/data"])


def prometheus() -> SmallImage:
    """Debian's program with the libraries that it is linked to, at the public image's path."""
    program = "/bin/prometheus"
    libraries = {str(path): path for path in linked(run(["ldd", PROMETHEUS_PROGRAM]))}
    files = {program: PROMETHEUS_PROGRAM, str(CERTIFICATES): CERTIFICATES, **libraries, **pages(PROMETHEUS_PAGES)}
    return SmallImage(PROMETHEUS, files, [program], ["--config.file=/etc/prometheus/prometheus.yml"])


def pages(folder: Path) -> dict[str, Path]:
    """Prometheus' pages in `folder`. Their libraries are links to other packages' folders, which are large: of those
    what pages load, minified, and fonts."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    for link in [path for path in folder.rglob("*") if path.is_symlink() and path.is_dir()]:
        found += [path for path in link.rglob("*") if path.is_file() and (".min." in path.name or path.suffix in FONTS)]
    return {str(path): path for path in found}


def linked(ldd: str) -> list[Path]:
    """The absolute paths in what `ldd` prints."""
    words = (line.split() for line in ldd.splitlines())
    return [Path(word) for line in words for word in line if word.startswith("/")]
