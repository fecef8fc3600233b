"""A device that is none: it counts what the host would wait for, and refuses to mix its tensors with the host's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
DEVICE = torch.device("meta")
_WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "bincount",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "equal",
    "nms",
}
"""Operations whose result's shape or value the host has to know."""


class OnDevice(Tensor):
    """A tensor of the device; its values are in ``inner``."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=DEVICE
        )
        assert isinstance(made, OnDevice)
        made.inner = inner
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.tolist:
            return args[0].cpu().tolist()
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside CountedDevice")


class CountedDevice(TorchDispatchMode):
    """Runs what is asked of the device, on the CPU.

    Attributes:
        waits: Names of the operations for which the host waited.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        leaves = tree_leaves((args, kwargs))
        own = [each for each in leaves if isinstance(each, OnDevice)]
        asked = kwargs.get("device")
        on_device = bool(own) if asked is None else torch.device(asked) == DEVICE
        if name == "_to_copy":
            if bool(own) != on_device:
                self.waits.append("copy")
        elif own:
            strangers = [each for each in leaves if isinstance(each, Tensor) and not isinstance(each, OnDevice)]
            assert not any(each.ndim for each in strangers), f"{name} mixes tensors of the device and of the host"
            if name in _WAITING or self._selects(name, args, kwargs):
                self.waits.append(name)
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        wrappers = {id(each.inner): each for each in own}
        args, kwargs = tree_map_only(OnDevice, lambda each: each.inner, (args, kwargs))
        result = func(*args, **kwargs)
        if not on_device:
            return result
        return tree_map_only(
            Tensor, lambda each: wrappers[id(each)] if id(each) in wrappers else OnDevice(each), result
        )

    @staticmethod
    def _selects(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
        """Return whether the operation picks what a mask says, or repeats by numbers on the device."""
        if name == "repeat_interleave":
            return kwargs.get("output_size") is None
        if name in ("index", "index_put", "index_put_"):
            return any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in args[1])
        return False
