"""Who this process works for and with what: the job, the store, the folders, MLflow. Built once, at the door."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from dreambooth_api import layout, names
from dreambooth_api.job import DreamBoothJob, DreamBoothJobSpec
from dreambooth_api.parse import parse_job
from dreambooth_trainer.faults import SpecFault
from dreambooth_trainer.store import FolderStore, Store, s3_store


@dataclass(frozen=True)
class Mirror:
    """URIs that begin with `prefix` are read from `folder`."""

    prefix: str
    folder: Path

    def find(self, uri: str) -> Path | None:
        """The folder or file that `uri` means; None when it is not mirrored."""
        if uri != self.prefix and not uri.startswith(self.prefix.rstrip("/") + "/"):
            return None
        return self.folder / uri[len(self.prefix) :].strip("/")


@dataclass(frozen=True)
class Tracking:
    """Where MLflow is; no `uri`: nothing is tracked."""

    uri: str | None = None
    token: str | None = None
    artifact_location: str | None = None


@dataclass(frozen=True)
class Context:
    """Everything that is not in the spec."""

    namespace: str
    name: str
    uid: str
    spec: DreamBoothJobSpec
    store: Store
    work: Path
    tracking: Tracking = field(default_factory=Tracking)
    mirror: Mirror | None = None
    image: str = ""
    # Port of /metrics and /progress; 0: any free one; None: no server.
    port: int | None = None
    # A terminal shows a progress bar, a log lines.
    terminal: bool = False

    def read_from(self, uri: str) -> str:
        """`uri` as it is really read: a mirrored one is a `file://` of this machine."""
        found = self.mirror.find(uri) if self.mirror else None
        return uri if found is None else f"file://{found}"

    @property
    def job_store(self) -> Store:
        """What belongs to this job alone."""
        return self.store.at(layout.job_prefix(self.namespace, self.name, self.uid))

    @property
    def checkpoints(self) -> Store:
        """The job's checkpoints."""
        return self.store.at(layout.checkpoints_prefix(self.namespace, self.name, self.uid))


def pod_context(job_file: Path, port: int | None) -> Context:
    """The context of a pod: job.json and the mounted store Secret. Raises SpecFault, InvalidResource."""
    try:
        body = json.loads(job_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise SpecFault(f"cannot read {job_file}: {e}") from e
    meta = body.get("metadata", {})
    store, tracking = read_store_secret(Path(os.environ.get(names.ENV_STORE_DIR, names.STORE_DIR)))
    return Context(
        namespace=meta.get("namespace", "default"),
        name=meta.get("name", ""),
        uid=meta.get("uid", ""),
        spec=parse_job(body).spec,
        store=store,
        work=Path(os.environ.get(names.ENV_WORK_DIR, names.WORK_DIR)),
        tracking=tracking,
        image=os.environ.get(names.ENV_IMAGE, ""),
        port=port,
    )


def read_store_secret(folder: Path) -> tuple[Store, Tracking]:
    """Store and MLflow as the namespace's Secret says; an endpoint file:///path is a folder. Raises SpecFault."""

    def key(name: str) -> str:
        path = folder / name
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""

    tracking = Tracking(key("mlflowUri") or None, key("mlflowToken") or None)
    endpoint = key("endpoint")
    if not endpoint:
        raise SpecFault(f"Secret {names.STORE_SECRET}: key endpoint is missing (looked in {folder})")
    if endpoint.startswith("file://"):
        return FolderStore(Path(endpoint.removeprefix("file://"))), tracking
    if missing := [name for name in ("bucket", "accessKey", "secretKey") if not key(name)]:
        raise SpecFault(f"Secret {names.STORE_SECRET}: key {missing[0]} is missing")
    ca = folder / "ca.crt"
    store = s3_store(
        endpoint,
        key("bucket"),
        key("accessKey"),
        key("secretKey"),
        prefix=key("prefix"),
        region=key("region"),
        ca=ca if ca.is_file() and ca.stat().st_size else None,
    )
    return store, tracking


def laptop_context(
    job: DreamBoothJob, metadata: dict, job_file: Path, out: Path, *, terminal: bool, port: int | None = None
) -> Context:
    """The context of `dreambooth run`: everything below `out`. Raises SpecFault."""
    mirror = None
    if text := (metadata.get("annotations") or {}).get(names.ANNOTATION_LOCAL_MIRROR):
        prefix, separator, folder = text.partition("=")
        if not separator:
            raise SpecFault(f"annotation {names.ANNOTATION_LOCAL_MIRROR}: write PREFIX=FOLDER")
        mirror = Mirror(prefix, (job_file.parent / folder).resolve())
    out = out.absolute()
    # What is trained makes the run: another subject or setting in the same folder begins anew.
    parts = [getattr(job.spec, part).choices() for part in ("base_model", "subject", "prior", "method", "training")]
    uid = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    return Context(
        namespace=metadata.get("namespace") or "local",
        name=metadata.get("name") or job_file.stem,
        uid=f"local-{uid}",
        spec=job.spec,
        store=FolderStore(out / "store"),
        work=out / "work",
        tracking=Tracking(f"sqlite:///{out}/mlflow.db", artifact_location=f"file://{out}/mlartifacts"),
        mirror=mirror,
        terminal=terminal,
        port=port,
    )
