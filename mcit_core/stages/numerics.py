"""What of a machine the last bits of a result depend on, beside code and library versions."""

from __future__ import annotations

import os

import torch

#: variables by which a library chooses other instructions or other sums, so that other bits come out
VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "OPENBLAS_CORETYPE",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
)


def numerics(device: torch.device) -> dict[str, str]:
    """Name -> value: the CPU's instruction set as torch uses it and, on a GPU, its model and how it multiplies; the
    variables above where they are set. Features are made on the same machine, so the CPU counts on a GPU too."""
    found = {"cpu": torch.backends.cpu.get_cpu_capability()}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["matmul"] = torch.get_float32_matmul_precision()
        found["tf32"] = f"matmul {torch.backends.cuda.matmul.allow_tf32}, cudnn {torch.backends.cudnn.allow_tf32}"
    return found | {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
