"""The text of the node's configuration files and the command lines of its daemons: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from dreambooth_local.places import (
    API_PORT,
    CGROUP,
    CNI_NETWORK,
    DNS_SERVICE,
    ETCD_PORT,
    NODE,
    NODE_ADDRESS,
    NODE_POD_RANGE,
    POD_BRIDGE,
    POD_RANGE,
    SERVICE_RANGE,
    Places,
)

PAUSE_IMAGE = "docker.io/dreambooth/pause:1"
MAX_PODS = 60


def cni(where: Places) -> str:
    """Pods hang on one bridge. No masquerading: a pod reaches this machine and other pods, nothing beyond."""
    addresses = {
        "type": "host-local",
        "dataDir": str(where.state / "cni/addresses"),
        "ranges": [[{"subnet": NODE_POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": POD_BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": CNI_NETWORK, "plugins": [bridge, ports]}, indent=1)


def containerd(where: Places) -> str:
    """restrict_oom_score_adj: without CAP_SYS_RESOURCE runc fails with "can't get final child's PID from pipe: EOF".

    Everything it makes is below state and run, so that `down` finds it.
    """
    return f"""version = 2
root = "{where.state}/containerd"
state = "{where.run}/containerd"
[grpc]
  address = "{where.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{where.state}/cni/conf"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{where.run}/runc"
"""


def kubelet(where: Places) -> str:
    """failCgroupV1 matters from Kubernetes 1.35 on. Eviction is all but off: a full disk is the owner's matter."""
    pki = where.state / "pki"
    return f"""apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /{CGROUP}
containerRuntimeEndpoint: unix://{where.containerd_socket}
authentication: {{anonymous: {{enabled: false}}, x509: {{clientCAFile: {pki}/ca.crt}}, webhook: {{enabled: true}}}}
authorization: {{mode: Webhook}}
clusterDNS: [{DNS_SERVICE}]
clusterDomain: cluster.local
resolvConf: ""
tlsCertFile: {pki}/kubelet.crt
tlsPrivateKeyFile: {pki}/kubelet.key
podLogsDir: {where.state}/log/pods
volumePluginDir: {where.state}/kubelet/volume-plugins
maxPods: {MAX_PODS}
containerLogMaxSize: 10Mi
containerLogMaxFiles: 3
nodeStatusUpdateFrequency: 5s
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}}
imageGCHighThresholdPercent: 100
"""


def control_plane(where: Places, program: Mapping[str, Path]) -> dict[str, list[str]]:
    """Daemon -> command line, in the order of their start: etcd, apiserver, controllers, scheduler."""
    pki, etcd = where.state / "pki", f"http://127.0.0.1:{ETCD_PORT}"
    return {
        "etcd": [
            str(program["etcd"]), f"--data-dir={where.state}/etcd", f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}", f"--listen-peer-urls=http://127.0.0.1:{ETCD_PORT + 1}",
            "--unsafe-no-fsync", "--logger=zap", "--log-level=warn",
        ],
        "apiserver": [
            str(program["kube-apiserver"]), f"--etcd-servers={etcd}", f"--secure-port={API_PORT}",
            f"--service-cluster-ip-range={SERVICE_RANGE}", f"--advertise-address={NODE_ADDRESS}",
            f"--cert-dir={pki}", f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
            "--enable-admission-plugins=NodeRestriction", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/accounts.pub", f"--service-account-signing-key-file={pki}/accounts.key",
            f"--kubelet-client-certificate={pki}/admin.crt", f"--kubelet-client-key={pki}/admin.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",  # no DNS of this machine knows the node's name
            f"--requestheader-client-ca-file={pki}/aggregator-ca.crt", "--requestheader-allowed-names=aggregator",
            "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki}/aggregator.crt", f"--proxy-client-key-file={pki}/aggregator.key",
        ],
        "controllers": [
            str(program["kube-controller-manager"]), f"--kubeconfig={where.state}/controllers.conf",
            f"--authentication-kubeconfig={where.state}/controllers.conf",
            f"--authorization-kubeconfig={where.state}/controllers.conf",
            f"--service-account-private-key-file={pki}/accounts.key", f"--root-ca-file={pki}/ca.crt",
            "--use-service-account-credentials=true", f"--cert-dir={pki}", "--leader-elect=false",
            "--bind-address=127.0.0.1", f"--flex-volume-plugin-dir={where.state}/kubelet/volume-plugins",
            "--horizontal-pod-autoscaler-sync-period=5s",  # a demo should not wait 15 s to see a replica
        ],
        "scheduler": [
            str(program["kube-scheduler"]), f"--kubeconfig={where.state}/scheduler.conf",
            f"--authentication-kubeconfig={where.state}/scheduler.conf",
            f"--authorization-kubeconfig={where.state}/scheduler.conf",
            f"--cert-dir={pki}", "--leader-elect=false", "--bind-address=127.0.0.1",
        ],
    }  # fmt: skip


def node(where: Places, program: Mapping[str, Path]) -> dict[str, list[str]]:
    """Daemon -> command line of the node: containerd, kubelet, proxy."""
    return {
        "containerd": ["containerd", f"--config={where.state}/containerd.toml"],
        "kubelet": [
            str(program["kubelet"]), f"--config={where.state}/kubelet.yaml", f"--kubeconfig={where.state}/kubelet.conf",
            f"--hostname-override={NODE}", f"--node-ip={NODE_ADDRESS}", f"--root-dir={where.state}/kubelet",
            f"--cert-dir={where.state}/pki",
        ],
        "proxy": [
            str(program["kube-proxy"]), f"--kubeconfig={where.state}/proxy.conf", f"--hostname-override={NODE}",
            "--proxy-mode=iptables", f"--cluster-cidr={POD_RANGE}", "--healthz-bind-address=127.0.0.1:10256",
            "--metrics-bind-address=127.0.0.1:10249", "--nodeport-addresses=127.0.0.0/8,10.95.0.0/24",
            "--iptables-min-sync-period=200ms", "--conntrack-max-per-core=0",
        ],
    }  # fmt: skip


DAEMONS = ("etcd", "apiserver", "controllers", "scheduler", "containerd", "kubelet", "proxy")
