"""How much of the accelerator's memory this worker holds, where it has one."""

import torch

from app.core import telemetry
from worker.service import Service


def watch_accelerator(service: Service, worker: str) -> None:
    """Report it once a second from now on. Call in the process that computes: it wakes CUDA."""
    if torch.cuda.is_available():
        service.numbers.watch(telemetry.GPU_MEMORY, worker, lambda: float(torch.cuda.memory_reserved()))
