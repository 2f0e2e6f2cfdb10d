"""The demo on a machine that can have no cluster: the same job with `dreambooth run`, then `dreambooth serve`."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import yaml

from dreambooth_demo.kube import KubeError
from dreambooth_demo.steps import Steps

JOB = "examples/robot/job.yaml"


def run(steps: Steps, root: Path, out: Path, reasons: list[str]) -> int:
    """Train and serve without a cluster; writes the same sheet.png and summary.json."""
    # Only this way needs the whole trainer beside it, and it draws its sheet through the same HTTP interface.
    from dreambooth_demo.story import draw_sheet

    steps.say("no local cluster on this machine: " + "; ".join(reasons))
    steps.say(
        "for a real cluster try kind (kind.sigs.k8s.io) and set KUBECONFIG; now: `dreambooth run` on this machine"
    )
    job = yaml.safe_load((root / JOB).read_text())
    model = job["spec"]["publish"]["name"]
    dreambooth = str(Path(sys.executable).parent / "dreambooth")
    with steps.step("dreambooth run", f"dreambooth run {JOB} --out {out / 'run'}"):
        if code := subprocess.run(
            [dreambooth, "run", str(root / JOB), "--out", str(out / "run")], check=False
        ).returncode:
            return code
    with steps.step("dreambooth serve", "starting the endpoint"):
        endpoint = _serve(dreambooth, out)
    with steps.step("pictures", "asking the endpoint for pictures"):
        draw_sheet(endpoint, model, job, root, out)
    card = json.loads((out / "run/artifact/model.json").read_text())
    summary = {
        "kubeconfig": None,
        "urls": {"endpoint": f"{endpoint}/v1", "playground": f"{endpoint}/", "mlflow": None, "prometheus": None},
        "seconds": steps.seconds,
        "fidelity": {"base": card["scores"]["baseClipI"], "personalised": card["scores"]["clipI"]},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"\npictures    {out / 'sheet.png'}\nplayground  {endpoint}/\n\nwhere the time went\n{steps.breakdown()}")
    return 0


def _serve(dreambooth: str, out: Path) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (out / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [dreambooth, "serve", str(out / "run"), "--port", str(port)],
            stdout=log, stderr=log, start_new_session=True, env=dict(os.environ),
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    for _ in range(240):
        if server.poll() is not None:
            raise KubeError(f"dreambooth serve ended: see {out / 'serve.log'}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1):
                return url
        except OSError:
            time.sleep(0.5)
    raise KubeError(f"dreambooth serve did not become ready: see {out / 'serve.log'}")
