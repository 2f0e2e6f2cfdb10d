"""Whole weights on rank 0, to draw from and to publish: the average of what is trained, if there is one."""

import contextlib
from collections.abc import Iterator

from torch import Tensor

from dreambooth_trainer import trainee
from dreambooth_trainer.family import open_family
from dreambooth_trainer.session import Session
from dreambooth_trainer.trainee import Trainee


@contextlib.contextmanager
def displayed(session: Session) -> Iterator[Trainee]:
    """While it lasts, a model with the weights that are shown; where weights are sharded, those last collected."""
    if session.whole is not None:
        with _second(session, session.whole) as model:
            yield model
        return
    parameters = session.trainee.trainable()
    if session.ema:
        session.ema.swap(parameters)
    try:
        yield session.trainee
    finally:
        if session.ema:
            session.ema.swap(parameters)


@contextlib.contextmanager
def _second(session: Session, weights: dict[str, Tensor]) -> Iterator[Trainee]:
    """A model of its own, which no other rank has to help with; off the device while it is not needed."""
    device = session.family.device
    if session.display is None:
        session.display = trainee.build(open_family(session.family.folder, device), session.plan)
    model = session.display.to(device)
    for name, parameter in model.trainable().items():
        parameter.data.copy_(weights[name])
    try:
        yield model
    finally:
        model.to("cpu")
