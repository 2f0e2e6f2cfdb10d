"""A job's life for the tests of its decisions: children appear as they are applied, the status is kept."""

from dataclasses import replace

from dreambooth_api import names
from dreambooth_api.job import ArtifactStatus, Progress, Scores
from dreambooth_api.result import TrainResult
from dreambooth_operator.decide_job import decide_job
from dreambooth_operator.views import ChildRef

TRAINED = TrainResult(
    progress=Progress(step=100, steps=100, percent=100, loss="0.0100"),
    scores=Scores(clip_i="0.900"),
    artifact=ArtifactStatus(uri="s3://dreambooth/models/x", digest="sha256:" + "ab" * 32, bytes=9),
)


def condition(decision, kind):
    return next(c for c in decision.status["conditions"] if c["type"] == kind)


def failed(decision):
    found = condition(decision, "Failed")
    return found["status"], found["reason"]


def kinds(decision):
    return [(m["kind"], m["metadata"]["name"]) for m in decision.apply]


def live(view, manifest, uid="u"):
    """The child as the API server shows it after an apply."""
    return {**manifest, "metadata": {**manifest["metadata"], "uid": uid}, "status": {"startTime": None}}


class Life:
    """A job whose children appear as they are applied and whose status is kept."""

    def __init__(self, make, settings, spec=None):
        self.make, self.settings = make, settings
        self.view = make.view(make.job(spec))
        self.told = []

    def step(self, **fields):
        """Change what is observed, decide, carry it out."""
        self.view = replace(self.view, **fields)
        decision = decide_job(self.view, self.settings)
        children = dict(self.view.children)
        for manifest in decision.apply:
            if manifest["kind"] == names.MODEL_KIND:
                self.view = replace(self.view, model=manifest)
            else:
                children[ChildRef(manifest["kind"], manifest["metadata"]["name"])] = live(self.view, manifest)
        for name, value in decision.suspend:
            ref = ChildRef("Job", name)
            mark = {names.ANNOTATION_SUSPENDED: "true"} if value else {}
            stamps = dict(children[ref]["metadata"].get("annotations", {}))
            stamps.pop(names.ANNOTATION_SUSPENDED, None)
            metadata = {**children[ref]["metadata"], "annotations": stamps | mark}
            children[ref] = {
                **children[ref],
                "metadata": metadata,
                "spec": {**children[ref]["spec"], "suspend": value},
            }
        for ref in decision.delete:
            children.pop(ref)
        body = {**self.view.body, "status": decision.status} if decision.status else self.view.body
        self.view = replace(self.view, body=body, children=children)
        self.told += [told.reason for told in decision.told]
        return decision

    def finish(self, name, kind="Complete", reason="", message=""):
        """Let a child Job come to an end."""
        ref = ChildRef("Job", name)
        conditions = [
            {"type": kind, "status": "True", "reason": reason, "message": message,
             "lastTransitionTime": self.make.ago(60)}
        ]  # fmt: skip
        self.view = replace(
            self.view,
            children={**self.view.children, ref: {**self.view.children[ref], "status": {"conditions": conditions}}},
        )

    @property
    def phase(self):
        return self.view.body["status"]["phase"]
