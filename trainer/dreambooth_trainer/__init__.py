"""The trainer: from 3-5 pictures and a base model to a published, measured artifact.

The law of this package: it reads the very spec the user wrote and speaks `dreambooth_api`'s words; it knows no
Kubernetes. What decides (config, stream, loss, manifests) is pure; the network is touched in `store`, `inputs` and
`tracking` only; torch is imported where it is used, so that bad input is refused in a second.
"""
