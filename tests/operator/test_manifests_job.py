"""A job's children: restricted pods, the gang's dealings, and one golden manifest."""

import json
import re

import pytest

from dreambooth_api import names
from dreambooth_api.exits import PERMANENT
from dreambooth_api.job import ArtifactStatus
from dreambooth_api.parse import parse_job, parse_model
from dreambooth_operator import job_results, manifests_job


def parsed(body):
    return parse_job(body).spec


def env_of(manifest):
    entries = manifest["spec"]["template"]["spec"]["containers"][0]["env"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


SPECS = {
    "plain": {},
    "gpus": {"topology": {"nodes": 2, "gpusPerNode": 4}},
    "claims": {"baseModel": {"uri": "pvc://models/sd"}, "subject": {"images": {"uri": "pvc://data/robot"}}},
    "one claim": {"baseModel": {"uri": "pvc://all/sd"}, "subject": {"images": {"uri": "pvc://all/robot"}}},
    "config map": {"subject": {"images": {"uri": "configMap://pictures"}}},
    "gated": {"baseModel": {"uri": "hf://org/name", "secretRef": {"name": "hf"}}},
    "scoring": {"scoring": {"clip": "pvc://encoders/clip", "dino": "pvc://encoders/dino"}},
    "overrides": {
        "topology": {
            "template": {
                "labels": {names.LABEL_COMPONENT: "hijacked", "team": "a"},
                "annotations": {"note": "x"},
                "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "HOME", "value": "/x"}],
                "nodeSelector": {"gpu": "a100"},
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "priorityClassName": "high",
                "imagePullSecrets": ["pull"],
                "volumeClaims": {"/cache": "cache", "/cache2": "cache"},
                "resources": {"limits": {"memory": "8Gi", "cpu": 4}},
            }
        }
    },
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_pod_is_admitted_under_restricted(make, settings, admitted, spec):
    body = make.job(spec)
    for manifest in (
        manifests_job.prepare_job(body, parsed(body), settings),
        manifests_job.train_job(body, parsed(body), settings),
    ):
        assert admitted(manifest["spec"]["template"]) == []


def test_the_training_job_is_as_committed(make, settings, check_golden):
    body = make.job()
    check_golden("train-job", manifests_job.train_job(body, parsed(body), settings))


def test_the_prepare_job_is_as_committed(make, settings, check_golden):
    body = make.job()
    check_golden("prepare-job", manifests_job.prepare_job(body, parsed(body), settings))


def test_children_are_owned_and_labelled(make, settings):
    body = make.job()
    for manifest in (
        manifests_job.service(body),
        manifests_job.prepare_job(body, parsed(body), settings),
        manifests_job.train_job(body, parsed(body), settings),
    ):
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("job-uid", True, True)
        assert manifest["metadata"]["labels"][names.LABEL_JOB] == "robot"
        assert manifest["metadata"]["labels"][names.LABEL_MANAGED_BY] == names.MANAGER


@pytest.mark.parametrize("build", [manifests_job.prepare_job, manifests_job.train_job])
def test_the_trainer_reads_the_job_as_it_was_written(make, settings, build):
    body = make.job({"training": {"steps": 7}, "subject": {"prompt": "{identifier} $(HOME) 机器人"}})
    template = build(body, parsed(body), settings)["spec"]["template"]
    (volume,) = (volume for volume in template["spec"]["volumes"] if volume["name"] == "job")
    (item,) = volume["downwardAPI"]["items"]
    key = re.fullmatch(r"metadata\.annotations\['(.+)'\]", item["fieldRef"]["fieldPath"])[1]
    (mount,) = (m for m in template["spec"]["containers"][0]["volumeMounts"] if m["name"] == "job")
    assert f"{mount['mountPath']}/{item['path']}" == names.JOB_FILE
    job = json.loads(template["metadata"]["annotations"][key])
    assert job["metadata"] == {"namespace": "team", "name": "robot", "uid": "job-uid"}
    assert parse_job(job) == parse_job(body)


def test_suspending_a_job_does_not_make_another_job_of_it(make, settings):
    for build in (manifests_job.prepare_job, manifests_job.train_job):
        bodies = (make.job({"suspend": suspended}, generation=1 + suspended) for suspended in (False, True))
        before, after = (build(body, parsed(body), settings) for body in bodies)
        assert not job_results.outdated(before, after)
        body = make.job({"validation": {"everySteps": 7}})
        assert job_results.outdated(before, build(body, parsed(body), settings))


def test_the_gang_finds_each_other(make, settings):
    body = make.job({"topology": {"nodes": 3, "processesPerNode": 2}})
    job, service = manifests_job.train_job(body, parsed(body), settings), manifests_job.service(body)
    env, pod = env_of(job), job["spec"]["template"]
    assert (env["PET_NNODES"], env["PET_NPROC_PER_NODE"]) == ("3", "2")
    assert env["PET_MASTER_ADDR"] == "robot-train-0.robot-train.team.svc"
    assert "job-completion-index" in env["PET_NODE_RANK"]["fieldRef"]["fieldPath"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 3
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in pod["spec"]["containers"][0]["volumeMounts"]


def test_permanent_ends_fail_the_job_and_saved_ones_do_not_count(make, settings):
    body = make.job({"backoffLimit": 3, "activeDeadlineSeconds": 99})
    spec = manifests_job.train_job(body, parsed(body), settings)["spec"]
    fail, saved, disrupted = spec["podFailurePolicy"]["rules"]
    assert fail["action"] == "FailJob"
    assert fail["onExitCodes"]["values"] == sorted(map(int, PERMANENT))
    assert (saved["action"], saved["onExitCodes"]["values"]) == ("Ignore", [77])
    assert disrupted["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["backoffLimit"] == 6  # 3 incidents, 2 pods each
    assert spec["activeDeadlineSeconds"] == 99
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(("incidents", "nodes", "limit"), [(0, 4, 0), (6, 1, 6), (2, 8, 16)])
def test_an_incident_costs_as_many_pods_as_the_gang_has(incidents, nodes, limit):
    assert manifests_job.backoff_limit(incidents, nodes) == limit


@pytest.mark.parametrize(
    ("spec", "pods"),
    [
        ({}, 2),
        ({"topology": {"nodes": 8}}, 2),
        ({"topology": {"nodes": 1}}, 1),
        ({"prior": {"images": 100}}, 1),
        ({"prior": {"images": 3, "pods": 8}}, 3),
        ({"prior": {"pods": 5}}, 5),
        ({"prior": {"weight": 0, "pods": 5}}, 1),
    ],
)
def test_class_images_are_drawn_by_as_many_pods_as_they_are_worth(make, settings, spec, pods):
    body = make.job(spec)
    job = manifests_job.prepare_job(body, parsed(body), settings)["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", pods, pods)
    # They do not hang on each other: one that fails costs one.
    assert job["backoffLimit"] == 6


def test_gpus(make, settings):
    body = make.job({"topology": {"nodes": 1, "gpusPerNode": 4}})
    train, prepare = (f(body, parsed(body), settings) for f in (manifests_job.train_job, manifests_job.prepare_job))
    limits = [m["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] for m in (train, prepare)]
    assert limits == [{"nvidia.com/gpu": 4}, {"nvidia.com/gpu": 1}]
    assert env_of(train)["PET_NPROC_PER_NODE"] == "4"


def test_threads_follow_the_cpu_and_are_shared_by_the_ranks(make, settings):
    body = make.job({"topology": {"processesPerNode": 2, "template": {"resources": {"requests": {"cpu": "8"}}}}})
    train, prepare = (f(body, parsed(body), settings) for f in (manifests_job.train_job, manifests_job.prepare_job))
    assert env_of(train)["OMP_NUM_THREADS"] == "4"
    assert env_of(prepare)["OMP_NUM_THREADS"] == "8"
    assert env_of(train)["OMP_WAIT_POLICY"] == "PASSIVE"


def test_overrides_change_what_they_may_and_nothing_of_ours(make, settings):
    body = make.job(SPECS["overrides"])
    template = manifests_job.train_job(body, parsed(body), settings)["spec"]["template"]
    assert template["metadata"]["labels"][names.LABEL_COMPONENT] == names.COMPONENT_TRAIN
    assert template["metadata"]["labels"]["team"] == "a"
    env = env_of({"spec": {"template": template}})
    assert (env["A"], env["HOME"]) == ("2", "/x")
    assert template["spec"]["priorityClassName"] == "high"
    assert template["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    resources = template["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"memory": "8Gi", "cpu": 4}}  # No default request where a limit says more.


def test_an_override_cannot_change_the_gangs_dealings(make, settings):
    body = make.job({"topology": {"template": {"env": [{"name": "DREAMBOOTH_STORE_DIR", "value": "/x"}]}}})
    assert env_of(manifests_job.train_job(body, parsed(body), settings))["DREAMBOOTH_STORE_DIR"] == names.STORE_DIR


def test_inputs_are_mounted_where_the_trainer_looks(make, settings):
    body = make.job(SPECS["claims"] | {"subject": {"images": {"uri": "configMap://pictures"}}})
    container = manifests_job.prepare_job(body, parsed(body), settings)["spec"]["template"]["spec"]["containers"][0]
    mounts = {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}
    inputs = {"/mnt/pvc/models", "/mnt/configmap/pictures", names.STORE_DIR, names.JOB_DIR}
    assert all(mounts[path] for path in inputs)
    assert not mounts["/work"]
    assert not mounts["/tmp"]


def test_a_gated_base_gets_its_token(make, settings):
    body = make.job(SPECS["gated"])
    token = env_of(manifests_job.train_job(body, parsed(body), settings))["HF_TOKEN"]
    assert token == {"secretKeyRef": {"name": "hf", "key": "token"}}


def test_the_published_model_is_valid_and_outlives_the_job(make):
    body = make.job({"baseModel": {"uri": "pvc://models/sd", "secretRef": {"name": "hf"}}})
    artifact = ArtifactStatus(uri="s3://dreambooth/models/x", digest=make.digest)
    model = manifests_job.personalized_model(body, parsed(body), artifact)
    spec = parse_model(model).spec
    assert "ownerReferences" not in model["metadata"]
    assert model["metadata"]["labels"][names.LABEL_JOB] == "robot"
    assert spec.artifact.digest == make.digest
    # The server needs the base, too.
    assert spec.serving.template.volume_claims == {"/mnt/pvc/models": "models"}
    assert model["metadata"]["annotations"][names.ANNOTATION_BASE_SECRET] == "hf"
