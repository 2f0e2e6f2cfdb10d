"""What `benchmarks/control_plane.py` measures: this operator, and its peer, Kubeflow Trainer v2 with JobSet.

The peer is no part of this repository: FOLDER holds checkouts of both projects and the programs built from them.

    git clone -b v2.3.0 https://github.com/kubeflow/trainer FOLDER/trainer
    git clone -b v0.12.0 https://github.com/kubernetes-sigs/jobset FOLDER/jobset
    go build -C FOLDER/trainer -o ../trainer-controller-manager ./cmd/trainer-controller-manager
    go build -C FOLDER/jobset -o ../jobset-controller-manager .

CRDs, webhooks, the runtime `torch-distributed` and Trainer's configuration are those of the checkouts' own manifests.
What differs from an installation: both run outside of a cluster, so their webhooks are called at an address of the
loopback network, with a certificate made here; nobody else is there, so they do not elect a leader (nor does the
operator here); and they log errors only (the operator: warnings).
"""

import asyncio
import base64
import os
import re
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dreambooth_api import names
from tests.operator.stage import apiserver, world
from tests.operator.stage.api import Api, ApiError

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
RUNTIME = "torch-distributed"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PROGRAMS = {"trainer": "trainer-controller-manager", "jobset": "jobset-controller-manager"}


class Controllers(ABC):
    """The processes that make a job's children, before one API server."""

    # Where jobs are created, and what the name of a job's last child has after the job's.
    group, plural, suffix = "", "", ""
    # Names of metrics: requests to the API server; histograms of a reconcile's time and of how long it waited.
    requests, reconciles, delays = "", "", ""
    # The labels of the reconciles that look at each job.
    looks: tuple[tuple[str, str], ...] = ()

    def __init__(self, server: apiserver.ApiServer, api: Api, folder: Path) -> None:
        self.server, self.api, self.folder = server, api, folder
        self.processes: list[asyncio.subprocess.Process] = []

    async def install(self) -> None:
        """What the API server must know, and the first start."""
        await self.start()

    @abstractmethod
    async def start(self) -> None:
        """Processes, until their caches are warm."""

    @abstractmethod
    def job(self, name: str) -> dict[str, Any]:
        """A job whose first pod is one."""

    @abstractmethod
    async def metrics(self) -> list[str]:
        """What each process tells Prometheus."""

    def path(self, namespace: str) -> str:
        """Where jobs of a namespace are created."""
        return f"/apis/{self.group}/namespaces/{namespace}/{self.plural}"

    async def stop(self) -> None:
        """SIGTERM."""
        for process in self.processes:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self.processes))
        self.processes = []

    def usage(self) -> dict[str, float]:
        """Of all processes together."""
        found = [psutil.Process(process.pid) for process in self.processes]
        cpu = [process.cpu_times() for process in found]
        return {
            "cpuSeconds": sum(times.user + times.system for times in cpu),
            "rssMiB": sum(process.memory_info().rss for process in found) / 2**20,
            "rssPeakMiB": sum(map(_peak, found)),
            "files": sum(process.num_fds() for process in found),
        }

    async def samples(self) -> Samples:
        """The metrics of all processes, summed where their labels are the same."""
        found: Samples = {}
        for text in await self.metrics():
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    key = (sample.name, tuple(sorted(sample.labels.items())))
                    found[key] = found.get(key, 0.0) + sample.value
        return found

    def looked_at(self, samples: Samples) -> float:
        """How many reconciles of jobs there were, by the controller that had the fewest."""
        counts = [(labels, value) for (name, labels), value in samples.items() if name == f"{self.reconciles}_count"]
        return min(sum(value for labels, value in counts if look in labels) for look in self.looks)


class Operator(Controllers):
    """This operator."""

    group, plural, suffix = names.API_VERSION, names.JOB_PLURAL, names.prepare_job("")
    requests, reconciles = "dreambooth_api_requests_total", "dreambooth_reconcile_duration_seconds"
    delays = "dreambooth_reconcile_queue_delay_seconds"
    looks = (("kind", names.JOB_KIND),)

    async def start(self) -> None:
        """One process."""
        self._health, self._metrics = apiserver.free_port(), apiserver.free_port()
        ports = {"DREAMBOOTH_HEALTH_PORT": str(self._health), "DREAMBOOTH_METRICS_PORT": str(self._metrics)}
        log = self.folder / "operator.log"
        self.processes = [await world.spawn(self.server.kubeconfig(), log, DREAMBOOTH_LOG_LEVEL="WARNING", **ports)]
        await world.ready(self.api, self._health, 300)

    def job(self, name: str) -> dict[str, Any]:
        """Without a prior its input is checked by one pod."""
        return world.job(name, prior={"weight": 0})

    async def metrics(self) -> list[str]:
        """Of the one."""
        async with self.api.session.get(f"http://127.0.0.1:{self._metrics}/metrics") as answer:
            return [await answer.text()]

    async def tasks(self) -> int:
        """Its asyncio tasks."""
        async with self.api.session.get(f"http://127.0.0.1:{self._health}/healthz") as answer:
            return (await answer.json())["tasks"]


class Peer(Controllers):
    """Kubeflow Trainer v2, which makes a JobSet of a TrainJob, and JobSet, which makes a Service and a Job of that."""

    group, plural, suffix = "trainer.kubeflow.org/v1alpha1", "trainjobs", "-node-0"
    requests, reconciles = "rest_client_requests_total", "controller_runtime_reconcile_time_seconds"
    delays = "workqueue_queue_duration_seconds"
    looks = (("controller", "trainjob_controller"), ("controller", "jobset"))

    def __init__(
        self, server: apiserver.ApiServer, api: Api, folder: Path, checkouts: Path, limit: int | None = None
    ) -> None:
        """`limit`: requests a second that each may make; None: as they are shipped."""
        super().__init__(server, api, folder)
        self._checkouts, self._limit = checkouts, limit
        self._ports = {
            name: {use: apiserver.free_port() for use in ("health", "metrics", "webhook")} for name in PROGRAMS
        }

    async def install(self) -> None:
        """CRDs, a certificate, the processes, their webhooks, and the runtime that jobs name."""
        found = {"trainer": self._manifests("trainer/manifests/base/crds", "trainer/manifests/base/webhook"),
                 "jobset": self._manifests("jobset/config/default")}  # fmt: skip
        authority = base64.b64encode(_certificate(self._certificates)).decode()
        for name, bodies in found.items():
            address = f"https://127.0.0.1:{self._ports[name]['webhook']}"
            for body in bodies:
                _reach(body, address, authority)
        every = [body for bodies in found.values() for body in bodies]
        await asyncio.gather(*(self._define(body) for body in every if body["kind"] == "CustomResourceDefinition"))
        await self.start()
        for body in (body for body in every if "Webhook" in body["kind"]):
            kind = f"{body['kind'].lower()}s"
            await self.api.create(f"/apis/admissionregistration.k8s.io/v1/{kind}", body)
        runtime = self._checkouts / "trainer/manifests/base/runtimes/torch_distributed.yaml"
        await self._accepted(f"/apis/{self.group}/clustertrainingruntimes", yaml.safe_load(runtime.read_text()))
        await self._accepted(self.path("default") + "?dryRun=All", self.job("trial"))

    async def start(self) -> None:
        """Two processes."""
        environment = {
            **os.environ, "KUBECONFIG": str(self.server.kubeconfig()), "TMPDIR": str(self.folder),
        }  # fmt: skip
        for name, configuration in {"trainer": self._trainer(), "jobset": self._jobset()}.items():
            path = self.folder / f"{name}.yaml"
            path.write_text(yaml.safe_dump(configuration))
            with (self.folder / f"{name}.log").open("ab") as log:
                command = [self._checkouts / PROGRAMS[name], f"--config={path}", "--zap-log-level=error"]
                process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
            self.processes.append(process)
        for process, (name, ports) in zip(self.processes, self._ports.items(), strict=True):
            ready = asyncio.create_task(world.ready(self.api, ports["health"], 300))
            ended = asyncio.create_task(process.wait())
            await asyncio.wait([ready, ended], return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if not ready.done():
                ready.cancel()
                raise RuntimeError(f"{name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}")
            await ready

    def job(self, name: str) -> dict[str, Any]:
        """On one node."""
        body = {"metadata": {"name": name}, "spec": {"runtimeRef": {"name": RUNTIME}}}
        return {"apiVersion": self.group, "kind": "TrainJob", **body}

    async def metrics(self) -> list[str]:
        """Of both; JobSet's only by TLS."""
        texts = []
        for name, scheme in (("trainer", "http"), ("jobset", "https")):
            address = f"{scheme}://127.0.0.1:{self._ports[name]['metrics']}/metrics"
            async with self.api.session.get(address) as answer:
                answer.raise_for_status()
                texts.append(await answer.text())
        return texts

    @property
    def _certificates(self) -> Path:
        # controller-runtime's own default, below TMPDIR; Trainer has no setting for it.
        return self.folder / "k8s-webhook-server/serving-certs"

    def _manifests(self, *folders: str) -> list[dict[str, Any]]:
        """CRDs and webhooks, as kustomize makes them."""
        kubectl, bodies = apiserver.program("kubectl"), []
        for folder in folders:
            command = [kubectl, "kustomize", str(self._checkouts / folder)]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            bodies += [body for body in yaml.safe_load_all(text) if body]
        return [body for body in bodies if re.search("Webhook|CustomResource", body["kind"])]

    def _trainer(self) -> dict[str, Any]:
        path, ports = "trainer/manifests/base/manager/controller_manager_config.yaml", self._ports["trainer"]
        return {
            **yaml.safe_load((self._checkouts / path).read_text()),
            "health": {"healthProbeBindAddress": f"127.0.0.1:{ports['health']}"},
            "metrics": {"bindAddress": f"127.0.0.1:{ports['metrics']}", "secureServing": False},
            "webhook": {"port": ports["webhook"], "host": "127.0.0.1"},
            "leaderElection": {"leaderElect": False},
            "certManagement": {"enable": False},
            **self._connection(),
        }

    def _jobset(self) -> dict[str, Any]:
        ports, certificates = self._ports["jobset"], str(self._certificates)
        return {
            "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
            "kind": "Configuration",
            "health": {"healthProbeBindAddress": f"127.0.0.1:{ports['health']}"},
            "metrics": {"bindAddress": f"127.0.0.1:{ports['metrics']}", "certDir": certificates},
            "webhook": {"port": ports["webhook"], "host": "127.0.0.1", "certDir": certificates},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            **self._connection(),
        }

    def _connection(self) -> dict[str, Any]:
        return {"clientConnection": {"qps": self._limit, "burst": self._limit}} if self._limit else {}

    async def _define(self, crd: dict[str, Any]) -> None:
        """A kind, until clients can discover it: Trainer ends when it does not. Raises TimeoutError."""
        await self.api.create(CRDS, crd)
        group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        path = f"/apis/{group}/{crd['spec']['versions'][0]['name']}"
        async with asyncio.timeout(60):
            while plural not in await self._discovered(path):
                await asyncio.sleep(0.1)

    async def _discovered(self, path: str) -> set[str]:
        try:
            return {resource["name"] for resource in (await self.api.call("GET", path))["resources"]}
        except ApiError:
            return set()

    async def _accepted(self, path: str, body: dict[str, Any]) -> None:
        """Created, as soon as webhooks and caches know all that they must. Raises the last ApiError."""
        for attempt in range(100):
            try:
                await self.api.create(path, body)
                return
            except ApiError:
                if attempt == 99:
                    raise
                await asyncio.sleep(0.1)


def lacking(checkouts: Path) -> list[str]:
    """What a folder lacks to run the peer."""
    return [name for name in (*PROGRAMS.values(), *PROGRAMS) if not (checkouts / name).exists()]


def versions(checkouts: Path) -> dict[str, str]:
    """What git calls the checkouts."""
    command = ["git", "describe", "--tags", "--exact-match"]
    return {
        name: subprocess.run(command, cwd=checkouts / name, check=True, capture_output=True, text=True).stdout.strip()
        for name in PROGRAMS
    }


def _peak(process: psutil.Process) -> float:
    """The most memory that was resident at any time, MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) / 2**10 if found else 0.0


def _certificate(folder: Path) -> bytes:
    """A certificate for the loopback address in `folder`, signed by itself; PEM."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.crt"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (folder / "tls.crt").read_bytes()


def _reach(node: Any, address: str, authority: str) -> None:
    """Have what a manifest calls at a Service be called at an address."""
    if isinstance(node, list):
        for item in node:
            _reach(item, address, authority)
    elif isinstance(node, dict):
        if service := (node.get("clientConfig") or {}).get("service"):
            node["clientConfig"] = {"url": address + service["path"], "caBundle": authority}
        for item in node.values():
            _reach(item, address, authority)
