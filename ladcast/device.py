"""The device that tensors live on: what `--device` means."""

from __future__ import annotations

import torch


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
