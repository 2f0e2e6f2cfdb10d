import pytest

from dreambooth_trainer.device import Usage
from dreambooth_trainer.figures import Figures, duration, line


def test_a_line_on_a_cpu() -> None:
    figures = Figures(0.12345, 1e-4, 27.44, 83, 0.2, 0.01, Usage(3 * 2**29), 12)
    assert line(figures) == (
        "loss 0.1235  lr 1.0e-04  27.4 images/s  data wait 5%  memory 1.5 GiB  checkpoint 0:12 ago  ETA 1:23"
    )


def test_a_line_on_a_gpu_after_a_resume() -> None:
    figures = Figures(0.1, 1e-4, 27.44, 83, 0.2, 0.4, Usage(2**34, True, 0.97), 65, resumes=2)
    assert "data wait 100%  GPU 16.0 GiB  busy 97%  checkpoint 1:05 ago  resumed 2×  ETA" in line(figures)


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65.9, "1:05"), (3723, "1:02:03")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
