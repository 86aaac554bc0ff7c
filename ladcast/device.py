"""The device that tensors live on, and meters of arithmetic and memory of what runs there."""

from __future__ import annotations

import ctypes
import math
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

LEAST_CAPABILITY = (8, 0)
"""Compute capability (Ampere) from which on Triton compiles every kernel, bfloat16 ones too."""
COUNTED_FOR_REAL = 300_000
"""Elements of weights and inputs up to which a call that is only counted has values: without, it takes seconds."""


def find_device(name: str | None = None, local_rank: int | None = None) -> torch.device:
    """Returns a device that is there: by default a GPU where there is one; `cuda` becomes that of the rank, if any.

    Raises:
        ValueError: the name is none that PyTorch knows, or there is no such GPU.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ValueError(f"Expected a device such as cpu, cuda or cuda:1, got '{name}'.") from None
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise ValueError(
            f"Expected a GPU for device '{device}', found {count or 'none'}. Use --device cpu, or see with "
            f"`nvidia-smi` whether there is one, and whether PyTorch {torch.__version__} is built for it."
        )
    # Ranks of one machine spread over its GPUs; a device that was named by number is taken at its word.
    return device if device.index is not None or local_rank is None else torch.device("cuda", local_rank % count)


@cache
def reuse_memory() -> None:
    """Lets the C library keep what threads free for what they ask for next: chunks, and what they are made of.

    By default each such piece comes new from the system, page by page, for which all threads of a process queue up: 16
    of them compressed no faster than one.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # of <malloc.h>; glibc alone has them
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(m_mmap_threshold, 2**25)
        library.mallopt(m_trim_threshold, 2**30)


@cache
def compiles(device: torch.device) -> bool:
    """Says whether torch.compile works on a device, and warns why it does not, by compiling very little.

    It needs a C++ compiler, and on a GPU Triton, which does not know old ones. What is not compiled gives the same
    results, more slowly.
    """
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(1, device=device))
    except Exception as error:  # those of dynamo, inductor, Triton and the compiler have nothing in common
        reason = str(error).partition("\n\n")[0].replace("\n", " ")
        warnings.warn(f"torch.compile does not work on {device} ({reason}). Nothing is compiled.", stacklevel=2)
        return False
    return True


def uses_kernels(tensor: Tensor) -> bool:
    """Says whether the project's own GPU kernels compute with a tensor: for inference, on a GPU that Triton knows.

    They have no gradients and compute in float32 at most, and torch.compile makes its own of what it is given.
    """
    if not tensor.is_cuda or tensor.dtype == torch.float64 or isinstance(tensor, FakeTensor):
        return False
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling()) and has_kernels(tensor.device)


@cache
def has_kernels(device: torch.device) -> bool:
    """Says whether a device is a GPU that Triton compiles the project's own kernels for."""
    found = device.type == "cuda" and find_spec("triton") is not None
    return found and torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY


def tensors_for_counting(elements: int | None) -> AbstractContextManager[Any]:
    """Returns a context whose new tensors have shapes and no values, unless few elements are all that a call has.

    Random numbers that are drawn within on a CPU, such as weights, do not count for those drawn later.
    """
    is_small = elements is not None and elements <= COUNTED_FOR_REAL
    return torch.random.fork_rng(devices=[]) if is_small else FakeTensorMode(allow_non_fake_inputs=True)


class FlopCounter(TorchDispatchMode):
    """The floating-point operations of matrix products, convolutions and attention within, each counted once.

    PyTorch's own counter follows modules and decompositions, too, which takes most of its time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and adds what it costs, if there is a formula for it."""
        output = func(*args, **(kwargs or {}))
        formula = _formulas().get(func._overloadpacket)
        if formula is not None:
            self.flops += int(formula(*args, **(kwargs or {}), out_val=output))
        return output


@cache
def _formulas() -> dict[Any, Callable[..., int]]:
    """Returns PyTorch's formulas, with others for what it does not know or counts wrongly.

    It has none for the attention of CPUs, and takes the backward pass of a convolution in groups for one without.
    """
    aten = torch.ops.aten

    def attention(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> int:
        return int(sdpa_flop_count(query.shape, key.shape, value.shape))

    def attention_backward(
        gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object
    ) -> int:
        return int(sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape))

    def convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, *rest: Any, **_: object) -> int:
        transposed, wanted = rest[4], rest[7]
        batch, _channels, *cells = (x if transposed else gradient).shape
        return 2 * batch * math.prod(cells) * math.prod(weight.shape) * int(sum(wanted[:2]))

    return {
        **flop_registry,
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
        aten.convolution_backward: convolution_backward,
    }


class PeakMemory(TorchDispatchMode):
    """The most bytes of tensors made within that were alive at the same time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and follows the storages it made; those it was given, such as weights, count nothing."""
        self._follow((args, kwargs), made=False)
        output = func(*args, **(kwargs or {}))
        self._follow(output, made=True)
        return output

    def _follow(self, tree: Any, *, made: bool) -> None:
        for storage in (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)):
            key = storage._cdata
            if key in self._alive:
                continue
            self._alive[key] = storage.nbytes() if made else 0
            self.peak_bytes = max(self.peak_bytes, sum(self._alive.values()))
            weakref.finalize(storage, self._alive.pop, key)


@contextmanager
def kept_for_backward(kept: dict[int, Tensor]) -> Iterator[None]:
    """Collects every tensor that autograd keeps for the backward pass, one for each piece of memory."""

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield


def peak_memory() -> str:
    """Says how much memory this process has used at most, of the machine and of its GPU."""
    import resource

    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gpu = f", GPU {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if torch.cuda.is_available() else ""
    return f"peak memory {host / 2**30:.2f} GiB{gpu}"
