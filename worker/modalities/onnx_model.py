"""Networks as ONNX files, computed by onnxruntime."""

import importlib
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class OnnxModel:
    """A network of one output. It computes on the CPU whatever the device is, in as many threads as torch has; several
    threads may call it at once.
    """

    def __init__(self, data: bytes, threads: int | None = None) -> None:
        # Only workers with an extra have it, and importing it takes a while.
        onnxruntime = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self._session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def __deepcopy__(self, _: object) -> Self:
        """Itself: nobody can change it."""
        return self

    def __call__(self, **inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self._session.run(None, inputs)[0]
        return found


def as_tensor(data: bytes) -> Tensor:
    """A file as safetensors can hold it: (bytes,) uint8."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def as_bytes(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()
