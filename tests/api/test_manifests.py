"""The table of manifests, parsed by the models: what the API server refuses, `dreambooth run` refuses too."""

import pytest

from dreambooth_api import names
from dreambooth_api.parse import InvalidResource, fill_prompt, parse_job, parse_job_file, parse_model, parse_pool
from tests.api.manifests import BAD, GOOD, job, model

PARSERS = {names.JOB_KIND: parse_job, names.MODEL_KIND: parse_model, names.POOL_KIND: parse_pool}


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_good_manifests_parse_and_survive_a_round_trip(case):
    parsed = PARSERS[case.kind](case.body)
    assert PARSERS[case.kind](parsed.to_dict()) == parsed


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_bad_manifests_are_refused_by_the_field_s_name(case):
    with pytest.raises(InvalidResource) as refusal:
        PARSERS[case.kind](case.body)
    assert any(line.startswith(case.field) for line in str(refusal.value).splitlines()), refusal.value


def test_all_faults_of_a_manifest_are_told_at_once():
    with pytest.raises(InvalidResource) as refusal:
        parse_job(job(training={"steps": -1, "batchSize": 0}))
    assert len(str(refusal.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (None, "kind"),
        ([], "kind"),
        (model(), "kind"),
        ({"apiVersion": names.API_VERSION, "kind": names.JOB_KIND}, "spec"),
        ({"apiVersion": names.API_VERSION, "kind": names.JOB_KIND, "metadata": None, "spec": None}, "spec"),
        (job(name=7), "metadata.name: 7 must be"),
        (job(training__step=5), "spec.training.step: unknown field"),
        (job(topology__template={"env": [{"name": "A", "valeu": "b"}]}), "spec.topology.template.env.0.valeu: unknown"),
        (job(publish__gate={"clip": 0.5}), "spec.publish.gate.clip: unknown field"),
        # As YAML reads "\ud800" and !!binary.
        (job(subject__className="\ud800"), "there is something in it that JSON cannot hold"),
        (job(subject__className=b"\xff"), "there is something in it that JSON cannot hold"),
    ],
)
def test_a_person_s_file_is_refused_by_what_is_wrong_with_it(body, told):
    with pytest.raises(InvalidResource, match=told.replace(".", r"\.")):
        parse_job_file(body)


def test_a_resource_of_a_newer_release_stays_readable():
    body = job(training__noveltyWeight=0.5)
    body["status"] = {"phase": "Dreaming", "novelty": {}}
    assert parse_job(body).spec.training.seed == 0


def test_the_defaults_of_design_are_there():
    spec = parse_job(job()).spec
    assert (spec.subject.identifier, spec.subject.holdout) == ("sks", 1)
    assert fill_prompt(spec.subject.prompt, "sks", "robot") == "a photo of sks robot"
    assert (spec.prior.weight, spec.prior.images, spec.prior.steps, spec.prior.guidance_scale) == (1.0, 200, 25, 7.5)
    assert (spec.method.type, spec.method.lora.rank, spec.method.lora.alpha) == ("LoRA", 16, 16)
    assert (spec.topology.nodes, spec.topology.world_size, spec.suspend) == (1, 1, False)


@pytest.mark.parametrize(
    ("topology", "ranks"),
    [({}, 1), ({"nodes": 2, "gpusPerNode": 4}, 8), ({"nodes": 2, "gpusPerNode": 0}, 2),
     ({"nodes": 2, "gpusPerNode": 0, "processesPerNode": 3}, 6)],
)  # fmt: skip
def test_the_world_has_a_rank_per_gpu_unless_the_user_says_otherwise(topology, ranks):
    assert parse_job(job(topology=topology)).spec.topology.world_size == ranks


def test_other_braces_in_a_prompt_stay():
    assert fill_prompt("{identifier} {colour} {className}", "sks", "robot") == "sks {colour} robot"
