"""The demo in order: install, apply, train, serve, draw, look."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from dreambooth_api.parse import fill_prompt
from dreambooth_demo import evidence, platform
from dreambooth_demo.access import model_url
from dreambooth_demo.kube import Kube
from dreambooth_demo.pictures import draw
from dreambooth_demo.sheet import contact_sheet, load_pictures
from dreambooth_demo.steps import Steps
from dreambooth_demo.store import open_store, upload_examples
from dreambooth_demo.watch import wait_for_job, wait_for_model

NAMESPACE = "demo"


def tell(steps: Steps, kube: Kube, root: Path, out: Path) -> None:
    """Run the whole demo on `kube`; writes sheet.png and summary.json into `out`."""
    job_file = root / "examples/robot/job.yaml"
    job = yaml.safe_load(job_file.read_text())
    name = job["metadata"]["name"]
    model_name = job["spec"]["publish"]["name"]
    with steps.step("helm install", "installing the platform with Helm"):
        platform.check_not_foreign(kube)
        kube.apply(platform.namespace_manifest(NAMESPACE))
        platform.install(kube, root / "charts/dreambooth", [NAMESPACE])
    with steps.step("inputs", "uploading the example's base and pictures to the store"):
        store, bucket = open_store(kube, NAMESPACE)
        steps.say(f"{upload_examples(store, bucket, root / 'examples') / 1e6:.1f} MB")
    kube.kubectl("delete", "dreamboothjob,personalizedmodel", "-n", NAMESPACE, "--ignore-not-found", name, model_name)
    with steps.step("kubectl apply to Complete", f"kubectl apply -n {NAMESPACE} -f {job_file.relative_to(root)}"):
        kube.kubectl("apply", "-n", NAMESPACE, "-f", str(job_file))
        phases = wait_for_job(kube, NAMESPACE, name, steps.say, seconds=1200)
    with steps.step("endpoint Ready", f"waiting for the endpoint of {model_name}"):
        wait_for_model(kube, NAMESPACE, model_name, steps.say, seconds=600)
    with steps.step("pictures", "asking the endpoint for pictures"):
        endpoint = model_url(kube, NAMESPACE, model_name)
        draw_sheet(endpoint, model_name, job, root, out)
    found = evidence.collect(kube, NAMESPACE, name, model_name, (store, bucket))
    _close(steps, kube, out, endpoint, found, phases)


def draw_sheet(endpoint: str, model: str, job: dict[str, Any], root: Path, out: Path) -> None:
    """Write the sheet: instance pictures, the base's drawings of the prompts, the subject's drawings of the same."""
    subject = job["spec"]["subject"]
    prompts = [
        fill_prompt(p, subject.get("identifier", "sks"), subject["className"])
        for p in job["spec"]["validation"]["prompts"]
    ]
    instances = [(path.stem, picture) for path, picture in load_pictures(root / "examples/robot/images")]
    rows = [("The pictures of the subject", instances)]
    for heading, drawer in (("The base, same prompts and seeds", "base"), ("The personalised model", model)):
        rows.append((heading, [(p, draw(endpoint, drawer, p, seed=i)) for i, p in enumerate(prompts)]))
    contact_sheet(rows).save(out / "sheet.png")


def _close(steps: Steps, kube: Kube, out: Path, endpoint: str, found: evidence.Evidence, phases: dict) -> None:
    seconds = {**steps.seconds, **{f"phase {phase}": spent for phase, spent in phases.items()}}
    urls = {"endpoint": f"{endpoint}/v1", "playground": f"{endpoint}/", **found.urls}
    summary = {
        "kubeconfig": str(kube.kubeconfig),
        "urls": urls,
        "seconds": seconds,
        "fidelity": found.fidelity,
        "scores": found.scores,
        "evidence": found.facts,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print("\n" + kube.kubectl("get", "dreamboothjobs,personalizedmodels", "-n", NAMESPACE))
    print("\n".join(found.lines))
    print(f"\nsubject fidelity (CLIP-I to a held-out picture): base {found.fidelity['base']}, "
          f"personalised {found.fidelity['personalised']}")  # fmt: skip
    print(f"pictures    {out / 'sheet.png'}\nsummary     {out / 'summary.json'}")
    print("\n".join(f"{name:<12}{url}" for name, url in urls.items()))
    print(f"kubectl     KUBECONFIG={kube.kubeconfig} kubectl get dbj,pm -n {NAMESPACE}")
    print(f"\nwhere the time went\n{steps.breakdown()}")
    if shutil.which("make"):
        print("\n`make down` takes the local cluster away again.")
