"""The endpoint of a personalised subject: OpenAI's image API, its metrics and a playground page.

The law of this package: it imports `dreambooth_api` and never the operator or the trainer; what it knows of a subject
it reads from the artifact. From the outside in: `serve` and `__main__` start a `process`; `app` speaks HTTP; `queue`
holds what waits; `engine` draws. Only `studio` and `sampler` import torch and diffusers, when weights are loaded, so
that everything else starts at once and is tested without them. Nothing is read that was not verified, and no pickle.
"""
