"""Where files come from: what a source of files offers, and the plainest one, a folder of this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dreambooth_api.uris import mounted_path, parse_uri


class SourceError(Exception):
    """The store did not answer, or not usefully; retrying later may help."""


class SourceDenied(SourceError):
    """The store refuses these keys, or there are none; retrying at once does not help."""


class NotThere(Exception):
    """The file, or the bucket, does not exist."""


@dataclass(frozen=True)
class Listed:
    """A file that a source has."""

    bytes: int
    version: str
    """Differs when the content does: an ETag, or a time of change."""


class Source(Protocol):
    """A folder of files, named by relative paths with `/`."""

    @property
    def folder(self) -> Path | None:
        """The files' folder on this machine; None when they must be fetched first."""

    def files(self) -> dict[str, Listed]:
        """All files below, by name. Raises SourceError, NotThere."""

    def read(self, name: str) -> bytes:
        """One small file. Raises SourceError, NotThere."""

    def fetch(self, name: str, target: Path) -> None:
        """Copy one file to `target`, whose parent exists. Raises SourceError, NotThere."""


@dataclass(frozen=True)
class FolderSource:
    """Files of this machine, used where they lie."""

    folder: Path

    def files(self) -> dict[str, Listed]:
        found = ((name, (self.folder / name).stat()) for name in self.names())
        return {name: Listed(stat.st_size, str(stat.st_mtime_ns)) for name, stat in found}

    def names(self) -> list[str]:
        """The files' names, sorted. Raises NotThere."""
        if not self.folder.is_dir():
            raise NotThere(f"there is no folder {self.folder}")
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())

    def read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
            raise NotThere(f"there is no file {self.folder / name}") from e
        except OSError as e:
            raise SourceError(f"{self.folder / name} cannot be read: {e.strerror}") from e

    def fetch(self, name: str, target: Path) -> None:
        target.write_bytes(self.read(name))


def open_source(uri: str, store: Path, attempts: int = 6) -> Source:
    """The source that `uri` names: `s3://…` with the keys in the folder `store`, `file://…`, `pvc://…` or a plain path.

    A store is tried `attempts` times. Raises ValueError for a URI that is none of these, SourceDenied when there are no
    keys.
    """
    if "://" not in uri:
        return FolderSource(Path(uri).expanduser().absolute())
    parsed = parse_uri(uri)
    if parsed.scheme == "s3":
        # Imported here: a server that reads a folder needs no S3 client.
        from dreambooth_server.bucket import BucketSource, StoreKeys

        return BucketSource(StoreKeys.read(store), parsed.authority, parsed.path, attempts)
    if (path := mounted_path(parsed)) is None:
        raise ValueError(f"{uri!r}: the scheme {parsed.scheme}:// cannot be read here")
    return FolderSource(Path(path))
