import torch

from dreambooth_trainer.device import Usage, usage


def test_a_process_on_a_cpu_reports_its_peak() -> None:
    before = usage("cpu")
    held = torch.ones(64 * 2**20 // 4)
    after = usage("cpu")
    assert held.sum() == held.numel()
    assert not after.on_gpu
    assert after.busy is None
    assert 2**26 < before.memory_bytes <= after.memory_bytes < 2**40


def test_a_gpu_reports_its_own(monkeypatch) -> None:
    """No machine of the tests has one: torch's two questions are answered for it."""
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2**33)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 95)
    assert usage("cuda") == Usage(2**33, True, 0.95)

    def lacking() -> int:
        raise ModuleNotFoundError("nvidia-ml-py is not installed")

    monkeypatch.setattr(torch.cuda, "utilization", lacking)
    assert usage("cuda") == Usage(2**33, True, None)
