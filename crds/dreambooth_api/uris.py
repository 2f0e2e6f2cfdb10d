"""URIs of bases, pictures and artifacts, and where a pod finds what one of them names."""

import re
from typing import NamedTuple

BASE_PATTERN = r"^(hf://[\w.-]+/[\w.-]+|s3://[a-z0-9][a-z0-9.-]+/\S+|pvc://[a-z0-9]([a-z0-9-]*[a-z0-9])?/\S+)$"
IMAGES_PATTERN = r"^(s3://[a-z0-9][a-z0-9.-]+/\S+|pvc://[a-z0-9]([a-z0-9-]*[a-z0-9])?(/\S*)?|configMap://[a-z0-9]([a-z0-9.-]*[a-z0-9])?)$"
ARTIFACT_PATTERN = r"^(s3://[a-z0-9][a-z0-9.-]+/\S+|file:///\S+)$"

CLIMBING = "must not climb out of its root with '..'"


def no_climbing(field: str, optional: bool = False) -> tuple[str, str, str]:
    """A CEL rule (rule, message, field path) for an object with a URI in `field`; `parse_uri` refuses the same."""
    rule = f"!(self.{field} + '/').contains('/../')"
    return f"!has(self.{field}) || {rule}" if optional else rule, f"{field} {CLIMBING}", f".{field}"


NO_CLIMBING = no_climbing("uri")

PVC_ROOT = "/mnt/pvc"
CONFIG_MAP_ROOT = "/mnt/configmap"

_URI = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9]*)://(?P<authority>[^/]*)(?:/(?P<path>.*))?$")


class Uri(NamedTuple):
    """`scheme://authority/path`; `path` has no leading or trailing slash."""

    scheme: str
    authority: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}" + (f"/{self.path}" if self.path else "")


def parse_uri(text: str) -> Uri:
    """Take a URI apart. Raises ValueError when it has no scheme, or a path that climbs out with `..`."""
    match = _URI.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a URI: scheme://… is missing")
    path = (match["path"] or "").strip("/")
    if ".." in path.split("/"):
        raise ValueError(f"{text!r} climbs out of its root with '..'")
    return Uri(match["scheme"], match["authority"], path)


def mounted_path(uri: Uri) -> str | None:
    """The folder in a pod where a `pvc://` or `configMap://` URI is mounted; None for what is fetched instead."""
    if uri.scheme == "pvc":
        return f"{PVC_ROOT}/{uri.authority}" + (f"/{uri.path}" if uri.path else "")
    if uri.scheme == "configMap":
        return f"{CONFIG_MAP_ROOT}/{uri.authority}"
    if uri.scheme == "file":
        return f"/{uri.path}"
    return None
