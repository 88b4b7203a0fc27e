"""A pretended GPU: it computes on the CPU, and behaves like ``cuda:0`` when data is exchanged."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import pytest
import torch
import torchvision  # noqa: F401  its operations
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_CUDA = torch.device("cuda:0")
_ROOT = Path(__file__).resolve().parents[1]
_GIB = 1024**3


class _Allocation:
    """Memory of the device, which is given back when the storage that it belongs to is deleted."""

    def __init__(self, device: PretendedDevice, n_bytes: int) -> None:
        self._device = device
        self._bytes = n_bytes
        device.allocate(n_bytes)

    def __del__(self) -> None:
        self._device.allocated -= self._bytes


class PretendedTensor(Tensor):
    """A tensor of the device; `host` is a CPU tensor with its numbers and its gradient."""

    host: Tensor
    owner: PretendedDevice
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor, device: PretendedDevice) -> PretendedTensor:
        inside = torch.is_inference_mode_enabled()  # what it forbids is the host's to say
        with torch.inference_mode(False) if inside else contextlib.nullcontext():
            tensor = torch.Tensor._make_wrapper_subclass(
                cls,
                host.size(),
                strides=host.stride(),
                storage_offset=host.storage_offset(),
                dtype=host.dtype,
                device=_CUDA,
            )
        tensor.host = host
        tensor.owner = device
        storage = host.untyped_storage()
        if not hasattr(storage, "allocation"):  # it lives as long as the storage
            storage.allocation = _Allocation(device, storage.nbytes())  # type: ignore[attr-defined]
        return tensor

    def __init__(self, *_: Any) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = next(t for t in _flat(args, kwargs) if isinstance(t, cls)).owner
        return device.run(func, args, kwargs)

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse the conversion as a CUDA tensor does, unless it is forced."""
        if force:
            return self.cpu().detach().numpy()
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
            "to host memory first."
        )

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        """Return a copy on the host as lists."""
        return self.detach().cpu().tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.host.untyped_storage()

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def __repr__(self, **_: Any) -> str:
        return f"{self.host!r} on cuda:0"

    def __deepcopy__(self, memo: dict[int, Any]) -> PretendedTensor:
        copied = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the tensor as its host tensor; the loader must name the device."""
        return self.detach().cpu().__reduce_ex__(protocol)

    @property
    def requires_grad(self) -> bool:
        return self.host.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.host.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> PretendedTensor:
        self.host.requires_grad_(requires_grad)
        return self

    is_leaf = property(lambda self: self.host.is_leaf)
    grad_fn = property(lambda self: self.host.grad_fn)

    @property
    def grad(self) -> PretendedTensor | None:
        return None if self.host.grad is None else PretendedTensor(self.host.grad, self.owner)

    @grad.setter
    def grad(self, value: PretendedTensor | None) -> None:
        self.host.grad = None if value is None else value.host

    def backward(self, gradient: Any = None, *args: Any, **kwargs: Any) -> None:
        """Compute gradients by the graph of the host tensors."""
        self.host.backward(None if gradient is None else gradient.host, *args, **kwargs)


@dataclass
class PretendedDevice:
    """Memory of the device, and counts of the exchanges between host and device.

    Attributes:
        total_memory: Size of the memory, bytes; an allocation beyond it fails.
        capability: Compute capability: 9.0 is an H100, 7.5 a T4.
        allocated: Allocated memory, bytes.
        peak: Greatest allocated memory so far, bytes.
        waits: Number of times that the host waited for the device, by operation and line.
        constants: Number of times that a tensor from unlocked memory was sent to the device, by
            line and content.
        late_reads: Number of values that were copied to the host without a wait, by line.
        operations: Number of operations, by name.
        pinned: Tensors in page-locked memory, by address.
    """

    total_memory: int = 8 * _GIB
    name: str = "Pretended GPU"
    capability: tuple[int, int] = (9, 0)
    allocated: int = 0
    peak: int = 0
    waits: Counter[str] = field(default_factory=Counter)
    constants: Counter[tuple[str, int]] = field(default_factory=Counter)
    late_reads: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    pinned: WeakValueDictionary[int, Tensor] = field(default_factory=WeakValueDictionary)

    def forget_counts(self) -> None:
        """Set all counts to zero."""
        for counts in (self.waits, self.constants, self.late_reads, self.operations):
            counts.clear()

    def allocate(self, n_bytes: int) -> None:
        """Allocate memory, or fail as CUDA does."""
        if self.allocated + n_bytes > self.total_memory:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {n_bytes} bytes.")
        self.allocated += n_bytes
        self.peak = max(self.peak, self.allocated)

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Compute an operation of torch on the host, as the device would do it.

        The result is on the device that torch would choose.
        """
        flat = _flat(args, kwargs)
        here = [t for t in flat if isinstance(t, PretendedTensor)]
        asked = kwargs.get("device")
        if not here and (asked is None or torch.device(asked).type != "cuda"):
            positional = [t for t in flat if isinstance(t, torch.device)]
            if all(place.type != "cuda" for place in positional):
                return func(*args, **kwargs)
        if _is_made_of_others(func):  # in inference mode such operations arrive whole
            with _Mode(self):
                return func.decompose(*args, **kwargs)
        self.operations[func.__name__] += 1
        if func in _COPIES:
            return self._copy(func, args, kwargs)
        self._require_one_device(func, flat, here)
        self._count_waits(func, args, kwargs)
        hosts = {id(t.host): t for t in here}
        there = asked is None or torch.device(asked).type == "cuda"
        host_kwargs = {name: _host(value) for name, value in kwargs.items()}
        if asked is not None:
            host_kwargs["device"] = "cpu"
        with _recording():
            found = _INSTEAD.get(func, func)(*map(_host, args), **host_kwargs)
        return self._out(found, hosts) if there else found

    def _out(self, value: Any, hosts: dict[int, PretendedTensor]) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(self._out(part, hosts) for part in value)
        if not isinstance(value, Tensor):
            return value
        known = hosts.get(id(value))
        if known is None:
            return PretendedTensor(value, self)
        assert known.shape == value.shape, "a pretended tensor cannot change its shape in place"
        return known

    def _copy(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run `_to_copy` or `copy_`, the two operations that copy between host and device."""
        if func is aten.copy_.default:
            into, source = args[:2]
            non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            self._count_copy(source, isinstance(into, PretendedTensor), non_blocking)
            with _recording():
                _host(into).copy_(_host(source))
            return into
        source = args[0]
        asked = kwargs.get("device")
        there = (
            isinstance(source, PretendedTensor)
            if asked is None
            else (torch.device(asked).type == "cuda")
        )
        self._count_copy(source, there, kwargs.get("non_blocking", False))
        inside = {**kwargs, "device": "cpu", "non_blocking": False}
        with _recording():
            host = func(_host(source), **inside)
        return PretendedTensor(host, self) if there else host

    def _count_copy(self, source: Tensor, there: bool, non_blocking: bool) -> None:
        if isinstance(source, PretendedTensor) == there:
            return
        if there:
            if not (non_blocking and self.is_pinned(source)):
                content = source.detach().float().numpy().tobytes()
                self.constants[_line(), zlib.crc32(content)] += 1
            if not non_blocking:
                self.wait("copy to the device")
        elif non_blocking:
            self.late_reads[_line()] += 1
        else:
            self.wait("copy to the host")

    def wait(self, why: str) -> None:
        """Count a wait of the host."""
        self.waits[f"{why}: {_line()}"] += 1

    def is_pinned(self, tensor: Tensor) -> bool:
        """Return True if a tensor is in page-locked memory."""
        return tensor.untyped_storage().data_ptr() in self.pinned

    def pin(self, tensor: Tensor) -> Tensor:
        """Return a copy in page-locked memory."""
        locked = tensor.clone()
        self.pinned[locked.untyped_storage().data_ptr()] = locked
        return locked

    def _require_one_device(self, func: Any, flat: list[Any], here: list[PretendedTensor]) -> None:
        others = [t for t in flat if isinstance(t, Tensor) and not isinstance(t, PretendedTensor)]
        if here and any(t.ndim for t in others) and func not in _INDEXING:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"cuda:0 and cpu! (in {func})"
            )

    def _count_waits(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        name = func.overloadpacket
        if name in _WAITING:
            for _ in range(_WAITING[name]):
                self.wait(str(name).removeprefix("aten."))
        if name is aten.repeat_interleave and kwargs.get("output_size") is None:
            self.wait("repeat_interleave")
        if name is aten.where:  # numbers of the host are sent, where kernels of others take them
            for number in args[1:]:
                self._count_copy(number, there=True, non_blocking=False)
        if func in _INDEXING and not _is_masked_fill(func, args):
            for index in args[1]:
                if index is None:
                    continue
                if index.dtype in (torch.bool, torch.uint8):
                    self.wait("boolean indexing")
                if not isinstance(index, PretendedTensor):
                    self._count_copy(index, there=True, non_blocking=False)
            if func is not aten.index.Tensor:
                self._count_copy(args[2], there=True, non_blocking=False)  # a number of the host


def _is_masked_fill(func: Any, args: Any) -> bool:
    """Return True if torch sets values by one mask to one number, which needs no positions."""
    if func in (aten.index.Tensor,):
        return False
    masks = [index for index in args[1] if index is not None]
    number = not isinstance(args[2], PretendedTensor) and args[2].numel() == 1
    return number and len(masks) == 1 and masks[0].dtype in (torch.bool, torch.uint8)


_RECORDING = torch._C.DispatchKeySet.from_raw_repr(0)
for _key in ("AutogradCPU", "AutogradOther", "AutogradFunctionality", "ADInplaceOrView"):
    _RECORDING = _RECORDING.add(getattr(torch._C.DispatchKey, _key))


def _recording() -> Any:
    """Return a context in which host tensors record their graph; below autograd they would not."""
    if torch.is_inference_mode_enabled():
        return contextlib.nullcontext()
    excluded = torch._C._dispatch_tls_local_exclude_set() - _RECORDING
    return torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded)


def _flat(args: Any, kwargs: dict[str, Any]) -> list[Any]:
    """Yield the arguments of an operation and the elements of its lists, which are not nested."""
    flat: list[Any] = []
    for value in (*args, *kwargs.values()):
        flat.extend(value if isinstance(value, tuple | list) else (value,))
    return flat


def _host(value: Any) -> Any:
    """Replace tensors of the device by their hosts, also in lists."""
    if isinstance(value, tuple | list):
        return type(value)(map(_host, value))
    return value.host if isinstance(value, PretendedTensor) else value


@functools.cache
def _is_made_of_others(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), torch._C.DispatchKey.CompositeImplicitAutograd
    )


def _line() -> str:
    """Return the innermost running function of this project, or of code that it called."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if place := _place(frame.f_code.co_filename):
            return f"{place}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "the autograd engine"


@functools.cache
def _place(file: str) -> str | None:
    """Return a file's name for the counts; None for torch and for this file."""
    if file == __file__ or "/torch/" in file:
        return None
    return file.split("site-packages/")[-1].removeprefix(f"{_ROOT}/").removeprefix("cxr_compare/")


def _cudnn_batch_norm(
    maps: Tensor,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, ...]:
    found = torch.native_batch_norm(maps, weight, bias, mean, var, training, momentum, eps)
    return (*found, torch.empty(0, dtype=torch.uint8))


def _cudnn_batch_norm_backward(
    maps: Tensor,
    grad: Tensor,
    weight: Any,
    mean: Any,
    var: Any,
    save_mean: Any,
    save_var: Any,
    eps: float,
    _: Tensor,
) -> Any:
    return aten.native_batch_norm_backward(
        grad, maps, weight, mean, var, save_mean, save_var, True, eps, [True] * 3
    )


_INSTEAD = {
    aten.cudnn_batch_norm.default: _cudnn_batch_norm,
    aten.cudnn_batch_norm_backward.default: _cudnn_batch_norm_backward,
}
_COPIES = (aten._to_copy.default, aten.copy_.default)
_INDEXING = (
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
)
# Operations for which the host waits, since it needs a number to go on, and how often.
_WAITING = {
    aten._local_scalar_dense: 1,
    aten.nonzero: 1,
    aten.masked_select: 1,
    aten._unique2: 1,
    aten.unique_dim: 1,
    aten.unique_consecutive: 1,
    aten.bincount: 2,  # the least and the largest
    aten.equal: 1,
    aten.multinomial: 1,
    torch.ops.torchvision.nms: 1,
}


class _Mode(TorchDispatchMode):
    """Mode in which tensors that are requested on the device are made there.

    Its dispatch key is that of fake tensors; with this key torch does not start CUDA.
    """

    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __init__(self, device: PretendedDevice) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._device.run(func, args, kwargs or {})

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would cost a tenth of each operation, and nothing is compiled


class _Stream:
    """Stream that runs everything at once."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def wait_stream(self, *_: Any) -> None:
        """Do nothing."""

    record_event = wait_event = wait_stream


class _Event(_Stream):
    record = wait = synchronize = _Stream.wait_stream

    def query(self) -> bool:
        return True


@contextlib.contextmanager
def pretended_cuda(device: PretendedDevice | None = None) -> Iterator[PretendedDevice]:
    """Let torch find the pretended GPU, in this thread and all threads that start meanwhile."""
    device = device or PretendedDevice()
    torch._C._ensureCUDADeviceGuardSet()
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    overwritten = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with pytest.MonkeyPatch.context() as patch, _Mode(device):
        _patch(patch, device)
        try:
            yield device
        finally:
            torch._C._set_only_lift_cpu_tensors(lifted)
            torch.__future__.set_overwrite_module_params_on_conversion(overwritten)


def _patch(patch: pytest.MonkeyPatch, device: PretendedDevice) -> None:
    def properties(*_: Any) -> SimpleNamespace:
        major, minor = device.capability
        return SimpleNamespace(
            name=device.name,
            total_memory=device.total_memory,
            major=major,
            minor=minor,
            multi_processor_count=1,
        )

    nothing: Callable[..., None] = lambda *_, **__: None  # noqa: E731

    def forget_peak(*_: Any) -> None:
        device.peak = device.allocated

    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda *_: device.name,
        "get_device_properties": properties,
        "get_device_capability": lambda *_: device.capability,
        "is_current_stream_capturing": lambda: False,
        "memory_allocated": lambda *_: device.allocated,
        "memory_reserved": lambda *_: device.allocated,
        "max_memory_allocated": lambda *_: device.peak,
        "max_memory_reserved": lambda *_: device.peak,
        "reset_peak_memory_stats": forget_peak,
        "synchronize": lambda *_: device.wait("synchronize"),
        "get_rng_state": lambda *_: torch.random.get_rng_state(),
        "set_rng_state": lambda state, *_: torch.random.set_rng_state(state),
        "current_stream": _Stream,
        "Stream": _Stream,
        "stream": lambda stream: stream,
        "Event": _Event,
        **dict.fromkeys(
            ("set_device", "empty_cache", "manual_seed", "manual_seed_all", "_lazy_init"), nothing
        ),
    }
    for name, answer in answers.items():
        patch.setattr(torch.cuda, name, answer)
    patch.setattr(torch._C, "_cuda_clearCublasWorkspaces", nothing)
    optimizer = sys.modules["torch.optim.optimizer"]  # `torch.optim` hides it
    kinds = [*optimizer._foreach_supported_types, PretendedTensor]  # by their exact type
    patch.setattr(optimizer, "_foreach_supported_types", kinds)
    patch.setattr(torch.accelerator, "is_available", lambda: True)
    patch.setattr(torch.accelerator, "current_accelerator", lambda *_, **__: torch.device("cuda"))
    patch.setattr(Tensor, "pin_memory", lambda tensor, *_: device.pin(tensor))
    patch.setattr(Tensor, "is_pinned", lambda tensor, *_: device.is_pinned(tensor))
    load = torch.load
    run = threading.Thread.run
    grad = torch.autograd.grad

    def load_somewhere(*args: Any, map_location: Any = None, **kwargs: Any) -> Any:
        assert map_location is not None, "a machine without a GPU could not load this file"
        return load(*args, map_location=map_location, **kwargs)

    def grad_of_hosts(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        device_has_them = any(isinstance(t, PretendedTensor) for t in _flat((inputs,), {}))
        found = grad(_host(outputs), _host(inputs), *args, **kwargs)
        return tuple(PretendedTensor(t, device) for t in found) if device_has_them else found

    def run_with_device(thread: threading.Thread) -> None:
        with _Mode(device):
            run(thread)

    patch.setattr(torch, "load", load_somewhere)
    patch.setattr(torch.autograd, "grad", grad_of_hosts)
    patch.setattr(threading.Thread, "run", run_with_device)
