"""The gateway: one stable URL for each subject, whichever replicas draw it, and however many there are.

The law of this package: it imports neither torch nor what loads or draws, so that it starts at once and is small. What
it knows of the cluster it has from the operator (`dreambooth_api.routes`); it never talks to Kubernetes. From the
outside in: `app` speaks HTTP to clients, `admission` says who may ask, `dispatch` holds requests and chooses replicas
by the pure rules of `choice`, `relay` talks to the replica, `operator` to the operator.
"""
