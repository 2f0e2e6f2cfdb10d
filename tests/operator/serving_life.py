"""A model's or a pool's life for the tests of its decisions: Deployments start their pods, the status is kept."""

from dataclasses import replace
from datetime import timedelta

from dreambooth_api import names
from dreambooth_api.model import PersonalizedModelStatus
from dreambooth_operator import status as statuses
from dreambooth_operator.traffic import Demand
from dreambooth_operator.views import ChildRef, ModelView

A, B, C = ("sha256:" + letter * 64 for letter in "abc")
IDLE = Demand(known=True, idle=1e6)


def artifact(digest):
    return {"uri": f"s3://models/{digest[7]}", "digest": digest}


class Serving:
    """`decide` over a view that follows from what was decided before."""

    def __init__(self, decide, view, settings, works=True):
        self._decide, self.view, self._settings, self.works = decide, view, settings, works
        self.told = []

    def set(self, **spec):
        """Edit the spec."""
        metadata = {**self.view.body["metadata"], "generation": self.view.generation + 1}
        self.view = replace(
            self.view, body={**self.view.body, "metadata": metadata, "spec": {**self.view.body["spec"], **spec}}
        )

    def step(self, seconds=0.0, **fields):
        """Time passes, something is observed; decide, and carry it out."""
        self.view = replace(self.view, now=self.view.now + timedelta(seconds=seconds), **fields)
        decision = self._decide(self.view, self._settings)
        children = dict(self.view.children)
        for manifest in decision.apply:
            ref = ChildRef(manifest["kind"], manifest["metadata"]["name"])
            children[ref] = self._live(manifest, children.get(ref))
        for name, count in decision.scale:
            ref = ChildRef("Deployment", name)
            children[ref] = {**children[ref], "spec": {**children[ref]["spec"], "replicas": count}}
        for ref in decision.delete:
            del children[ref]
        body = {**self.view.body, "status": decision.status} if decision.status else self.view.body
        self.told += [told.reason for told in decision.told]
        parsed = {"status": statuses.read(PersonalizedModelStatus, body)} if isinstance(self.view, ModelView) else {}
        self.view = replace(self.view, body=body, children=children, **parsed)
        return decision

    def run(self, seconds=0.0, **fields):
        """The same, and the pods follow; again until nothing more is to be written."""
        decisions = [self.step(seconds, **fields)]
        for _ in range(8):
            self._pods()
            decisions.append(self.step())
            last = decisions[-1]
            if not (last.status or last.apply or last.scale or last.delete):
                return decisions
        raise AssertionError(f"it does not come to rest: {decisions[-1]}")

    def _live(self, manifest, old):
        generation = old["metadata"]["generation"] + 1 if old else 1
        spec = {"replicas": old["spec"].get("replicas", 1) if old else 1, **manifest["spec"]}
        metadata = {**manifest["metadata"], "uid": f"{manifest['metadata']['name']}-uid", "generation": generation}
        return {**manifest, "metadata": metadata, "spec": spec, "status": (old or {}).get("status", {})}

    def _pods(self):
        """What controllers and kubelets do at once, where it works."""
        children, pods = dict(self.view.children), []
        for ref, live in children.items():
            if ref.kind != "Deployment":
                continue
            count = live["spec"]["replicas"]
            up = count if self.works else 0
            counts = {"replicas": count, "updatedReplicas": count, "readyReplicas": up, "availableReplicas": up}
            children[ref] = {**live, "status": {"observedGeneration": live["metadata"]["generation"], **counts}}
            pods += [self._pod(f"{ref.name}-{i}", live["spec"]["template"]["metadata"], i) for i in range(up)]
        self.view = replace(self.view, children=children, pods=tuple(pods))

    def _pod(self, name, metadata, index):
        return {
            "metadata": {**metadata, "name": name, "namespace": "team", "uid": f"{name}-uid"},
            "status": {"phase": "Running", "podIP": f"10.0.0.{index}",
                       "conditions": [{"type": "Ready", "status": "True"}],
                       "containerStatuses": [{"state": {"running": {}}}]},
        }  # fmt: skip

    def deployment(self, name):
        return self.view.children.get(ChildRef("Deployment", name))

    def replicas(self, name):
        found = self.deployment(name)
        return None if found is None else found["spec"]["replicas"]

    def serves(self, name):
        """The artifact of a Deployment."""
        found = self.deployment(name)
        return found and found["spec"]["template"]["metadata"]["annotations"][names.ANNOTATION_ARTIFACT]

    @property
    def status(self):
        return self.view.body["status"]

    @property
    def weights(self):
        return {r["digest"]: r["weight"] for r in self.status["revisions"] if r["weight"]}

    def condition(self, kind):
        found = next(c for c in self.status["conditions"] if c["type"] == kind)
        return found["status"], found["reason"]

    @property
    def rollout(self):
        return self.view.status.rollout
