"""Numerical precision of the forward pass."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from supcon_pipeline.core.messages import InputError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Precision:
    """Automatic mixed precision on a device; `float32` means none.

    Args:
        name: `float32`, `bfloat16` or `float16`.
        device: device of the model.
        scaler: keeps float16 gradients from vanishing; does nothing otherwise.
    """

    name: str
    device: torch.device
    scaler: torch.amp.GradScaler

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The context for a forward pass."""
        is_mixed = self.name != "float32"
        dtype = getattr(torch, self.name) if is_mixed else None
        is_guarded = is_mixed and self.device.type == "cpu"
        with (
            torch.autocast(self.device.type, dtype, enabled=is_mixed),
            _SmallMapsInFloat32() if is_guarded else nullcontext(),
        ):
            yield


class _SmallMapsInFloat32(TorchFunctionMode):
    """Computes convolutions in float32 where maps are smaller than the stride or what the kernel reaches.

    There, in bfloat16 on a CPU, oneDNN takes a part of the gradient of the weights from memory that was never
    written: it is wrong by any amount, or NaN, and differs between runs.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        compute = _conv2d if func is torch.conv2d else func
        return compute(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,  # noqa: A002 (its name in torch.conv2d)
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: Any = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    reach = _largest(dilation) * (max(weight.shape[2:]) - 1) // 2
    if min(input.shape[2:]) >= max(_largest(stride), reach + 1):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    with torch.autocast("cpu", enabled=False):
        bias = None if bias is None else bias.float()
        maps = torch.conv2d(input.float(), weight.float(), bias, stride, padding, dilation, groups)
    return maps.to(torch.get_autocast_dtype("cpu"))


def _largest(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else max(size)


def choose_precision(name: str, device: torch.device, parameter: str = "precision") -> Precision:
    """The precision with this name; `auto` takes the fastest.

    On CUDA, `auto` is bfloat16 where the device supports it, else float16. On a CPU it is bfloat16 only where
    a timed convolution is faster in it: without the instructions, bfloat16 is slower by orders of magnitude.

    Args:
        name: one of `PRECISIONS`.
        device: device of the model.
        parameter: dotted name of the parameter that chose it, for messages.

    Raises:
        InputError: where the name is unknown or the device does not support it.
    """
    if name not in PRECISIONS:
        raise InputError(f"{parameter} must be one of {', '.join(PRECISIONS)}, got {name!r}")
    if name == "auto":
        name = _best_on_cuda() if device.type == "cuda" else _best_on_cpu()
    if name == "float16" and device.type == "cpu":
        raise InputError(
            f"{parameter} must be float32 or bfloat16 on a CPU, got 'float16'; add --params {parameter}=auto"
        )
    return Precision(name, device, torch.amp.GradScaler(device.type, enabled=name == "float16"))


def _best_on_cuda() -> str:
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def _best_on_cpu() -> str:
    dtypes = (torch.float32, torch.bfloat16)
    num_threads = torch.get_num_threads()
    # On one thread, as several wait for one another on a busy machine; in turns, so that load slows both.
    torch.set_num_threads(1)
    try:
        rounds = [{dtype: _convolution_seconds(dtype) for dtype in dtypes} for _ in range(5)]
    finally:
        torch.set_num_threads(num_threads)
    # The first round is a warm-up.
    least = {dtype: min(seconds[dtype] for seconds in rounds[1:]) for dtype in dtypes}
    return "bfloat16" if least[torch.bfloat16] < 0.8 * least[torch.float32] else "float32"


def _convolution_seconds(dtype: torch.dtype) -> float:
    """Time of a small convolution, forward and backward."""
    images = torch.ones(8, 64, 16, 16, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.ones(64, 64, 3, 3, dtype=dtype)
    start = time.perf_counter()
    with torch.enable_grad():
        output = torch.nn.functional.conv2d(images.requires_grad_(), weight.requires_grad_(), padding=1)
        output.backward(torch.ones_like(output))
    return time.perf_counter() - start
