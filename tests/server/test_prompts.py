"""A person's name for the subject, and the model's."""

import pytest

from dreambooth_server.prompts import Naming, for_base, for_subject

RUSTY = Naming("rusty", "sks", "robot")
ROBOT = Naming("robot", "sks", "robot")
DASHED = Naming("my-cat", "ohwx", "cat")


@pytest.mark.parametrize(
    ("naming", "prompt", "subject", "base"),
    [
        (RUSTY, "a photo of rusty", "a photo of sks robot", "a photo of robot"),
        (RUSTY, "Rusty, at night", "sks robot, at night", "robot, at night"),
        (RUSTY, "a rusty robot on grass", "a sks robot on grass", "a robot on grass"),
        (RUSTY, "a sks robot", "a sks robot", "a sks robot"),
        (RUSTY, "trusty and rusty-red", "trusty and rusty-red", "trusty and rusty-red"),
        (RUSTY, "a photo of {subject}", "a photo of sks robot", "a photo of robot"),
        (RUSTY, "{identifier} {className} {x}", "sks robot {x}", "sks robot {x}"),
        (RUSTY, "rusty and rusty", "sks robot and sks robot", "robot and robot"),
        (ROBOT, "a photo of a robot", "a photo of a sks robot", "a photo of a robot"),
        (ROBOT, "a photo of sks robot", "a photo of sks robot", "a photo of sks robot"),
        (DASHED, "my-cat asleep", "ohwx cat asleep", "cat asleep"),
        (DASHED, "not my-cats", "not my-cats", "not my-cats"),
        (RUSTY, "xyzzy", "xyzzy", "xyzzy"),
        (Naming("a.b", r"\1", "x"), "a.b or aXb", r"\1 x or aXb", "x or aXb"),
    ],
)
def test_names(naming: Naming, prompt: str, subject: str, base: str) -> None:
    assert for_subject(prompt, naming) == subject
    assert for_base(prompt, naming) == base
