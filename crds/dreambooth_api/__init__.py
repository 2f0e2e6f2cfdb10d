"""The vocabulary of DreamBooth on Kubernetes: what crosses between user, operator, trainer and server.

The law of this package: pydantic models, names and pure functions only. No I/O, no environment, no clients; it imports
nothing of ours and no framework, so that every other part can import it. Exceptions are `cli` and `generate`, programs
that read and write files when they are run, and `imports`, which decides what is imported of a library.
"""
