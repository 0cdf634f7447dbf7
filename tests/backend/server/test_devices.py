from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest
from motionbooth.server.devices import cpu_devices, local_devices, nvidia_gpus, visible
from motionbooth_protocol.errors import InvalidInput
from refused import refused

GPUS = [
    ("GPU-aaaa-1", "NVIDIA A100-SXM4-80GB", 81920),
    ("GPU-bbbb-2", "NVIDIA GB10", None),  # it shares the machine's memory
    ("GPU-cccc-3", "NVIDIA L4", 23034),
]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that lists three GPUs."""

    def memory(index: int) -> SimpleNamespace:
        mebibytes = GPUS[index][2]
        if mebibytes is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=mebibytes * 2**20)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(GPUS),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda index: GPUS[index][0],
        "nvmlDeviceGetName": lambda index: GPUS[index][1],
        "nvmlDeviceGetMemoryInfo": memory,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)


@pytest.mark.usefixtures("driver")
def test_there_is_a_worker_for_each_gpu_which_sees_no_other() -> None:
    devices = local_devices(environment={})
    assert [device.description for device in devices] == [
        "GPU 0: NVIDIA A100-SXM4-80GB, 80 GB", "GPU 1: NVIDIA GB10", "GPU 2: NVIDIA L4, 22 GB",
    ]  # fmt: skip
    assert [device.environment["CUDA_VISIBLE_DEVICES"] for device in devices] == [
        "GPU-aaaa-1",
        "GPU-bbbb-2",
        "GPU-cccc-3",
    ]
    assert [device.name for device in local_devices(2, environment={})] == ["gpu-0", "gpu-1"]


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("choice", "indices"),
    [(None, "012"), ("1", "1"), ("2,0", "20"), ("GPU-cccc", "2"), ("", ""), ("-1", ""), ("0,7,1", "0"), ("GPU", "")],
)
def test_gpus_that_are_hidden_from_the_server_are_hidden_from_its_workers(choice: str | None, indices: str) -> None:
    assert "".join(gpu[0] for gpu in visible(nvidia_gpus(), choice)) == indices


@pytest.mark.usefixtures("driver")
def test_more_workers_than_gpus_are_refused() -> None:
    with refused(InvalidInput, workers=4, gpus=3):
        local_devices(4, environment={})


def test_workers_on_the_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [device.environment for device in cpu_devices(2)] == [{"OMP_NUM_THREADS": "4"}] * 2
    assert cpu_devices(1)[0].environment == {}
    assert cpu_devices(16)[0].environment == {"OMP_NUM_THREADS": "1"}


def test_without_a_driver_there_is_one_worker_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(pynvml, "CDLL", missing)
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    assert [device.name for device in local_devices(environment={})] == ["cpu-1"]
