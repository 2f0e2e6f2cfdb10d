"""The operator: makes a cluster look as DreamBoothJobs, PersonalizedModels and ServingPools say.

The law of this package: one reconcile per kind, and it is always the same four steps: *observe* (`observe`: the
informers' caches, nothing else), *decide* (`decide_job`, `decide_model`, `decide_pool` and what they call: pure
functions, no I/O, no clock), *apply* and *report* (`reconcile`, through `cluster`, the one file that talks to the API
server). Events, timers, gateways' reports and restarts only ever put an object's key into the queue. What is as it
should be is not written again.
"""
