"""`dreambooth run job.yaml --out DIR`: a job on this machine, with no cluster.

The store, MLflow's database and the work folder are below DIR; said again with the same DIR it resumes. The artifact
ends up in DIR/artifact. Exit code: that of a trainer's process (`dreambooth_api.exits`), or 1 below the gate.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

import yaml

from dreambooth_api.exits import ExitCode
from dreambooth_api.job import ArtifactStatus, DreamBoothJob
from dreambooth_api.names import JOB_KIND
from dreambooth_api.parse import parse_job_file
from dreambooth_api.result import TrainResult
from dreambooth_trainer.context import Context, laptop_context
from dreambooth_trainer.faults import SpecFault, guarded
from dreambooth_trainer.figures import duration
from dreambooth_trainer.process import end_on_sigterm, prepare_process, settle_libraries, train_process


def main(argv: list[str] | None = None) -> int:
    """Run a job file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="dreambooth run", description=__doc__)
    parser.add_argument("job", type=Path, help="a file with a DreamBoothJob")
    parser.add_argument("--out", type=Path, required=True, help="where everything goes")
    parser.add_argument("--port", type=int, help="serve /metrics and /progress on this port")
    args = parser.parse_args(argv)
    settle_libraries()
    end_on_sigterm()
    results: list[TrainResult] = []

    def work() -> TrainResult | None:
        job, metadata = read_job(args.job)
        results.append(
            run(
                laptop_context(
                    on_one_process(job), metadata, args.job, args.out, terminal=sys.stderr.isatty(), port=args.port
                ),
                args.out,
            )
        )
        return results[0]

    code = guarded(work)
    if code == ExitCode.OK and results and results[0].below_gate:
        return 1
    return code


def read_job(path: Path) -> tuple[DreamBoothJob, dict]:
    """The one DreamBoothJob in a YAML file, which may hold other documents, and its metadata. Raises SpecFault."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as e:
        raise SpecFault(f"cannot read {path}: {e}") from e
    jobs = [d for d in documents if isinstance(d, dict) and d.get("kind") == JOB_KIND]
    if len(jobs) != 1:
        raise SpecFault(f"{path}: expected one {JOB_KIND}, found {len(jobs)}")
    return parse_job_file(jobs[0]), jobs[0].get("metadata") or {}


def on_one_process(job: DreamBoothJob) -> DreamBoothJob:
    """The same training by one process: what its ranks would take in a step, it takes alone.

    Sample by sample the same stream: on the CPU as a larger batch, on a GPU, whose memory is fixed, by accumulation.
    """
    topology, training = job.spec.topology, job.spec.training
    field = "batch_size" if topology.gpus_per_node == 0 else "gradient_accumulation"
    training = training.model_copy(update={field: getattr(training, field) * topology.world_size})
    topology = topology.model_copy(update={"nodes": 1, "processes_per_node": 1})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"training": training, "topology": topology})})


def run(ctx: Context, out: Path) -> TrainResult:
    """Prepare, train, and copy the artifact to `out`/artifact."""
    began = time.monotonic()
    ctx.work.mkdir(parents=True, exist_ok=True)
    _, got = prepare_process(ctx)
    result = train_process(ctx, got)
    assert result is not None
    if result.artifact is not None:
        copy_artifact(result.artifact, out / "artifact")
        print(f"artifact:  {out / 'artifact'}  ({result.artifact.digest})")
    print(f"store:     {out / 'store'}")
    print(f"MLflow:    mlflow ui --backend-store-uri {ctx.tracking.uri}")
    print(f"took {duration(time.monotonic() - began)}", flush=True)
    return result


def copy_artifact(artifact: ArtifactStatus, target: Path) -> None:
    """The published folder, with its manifest, as `target`; an older one is replaced as a whole."""
    source = Path(artifact.uri.removeprefix("file://"))
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


if __name__ == "__main__":
    sys.exit(main())
