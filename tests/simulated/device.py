"""A simulated CUDA device in place of ``torch.cuda``: unmodified code runs, with real numbers.

It is as unhelpful as a real one may be. Results of asynchronous copies arrive only when the host
has waited for them; capturing computes nothing; a replay knows no Python value and overwrites
what graphs of its pool left behind; two streams, or a stream and the host, that touch the same
memory without an order between them are an error, whichever came first.

Not simulated: the allocator, the time anything takes, work that libraries do behind torch's back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from simulated.fake import allow_cuda_tensors, with_tensors
from simulated.graph import Graph, Recorded, Recording
from simulated.guard import CaptureUnsafe, culprit, in_each, refuse_unsafe, tensors_of
from simulated.streams import Event, Stream
from simulated.tensors import Clock, DeviceTensor, Memory, RaceFound, address, merge, poison

aten = torch.ops.aten
CROSSING = {aten._to_copy.default, aten.copy_.default}


class SimulatedDevice(TorchDispatchMode):
    """One card. Enter it, and ``torch.cuda`` is this."""

    def __init__(self) -> None:
        super().__init__()
        self.host_clock: Clock = {"the host": 0}
        self.default_stream = Stream(self, "the default stream")
        self.current: list[Stream] = [self.default_stream]
        self.streams: list[Stream] = [self.default_stream]
        self.pinned: dict[int, tuple[Tensor, Memory]] = {}
        self.capturing: Recording | None = None
        self.capture_modes: list[str] = []
        self.replays = 0
        self.stalls: list[str] = []
        """Where the host waited for the whole device or a whole stream, or spun."""
        self.bodies: dict[Any, Callable[..., Any]] = {}
        """What stands for the CUDA body of our own operations; given the contents."""

    def __enter__(self) -> SimulatedDevice:
        allow_cuda_tensors()
        self._patches = contextlib.ExitStack()
        self._patches.enter_context(mock.patch.multiple("torch.cuda", **self._replacements()))
        # torch.tensor(..., device="cuda") becomes a host tensor and a copy, as on a real device.
        was = torch._C._only_lift_cpu_tensors()
        self._patches.callback(torch._C._set_only_lift_cpu_tensors, was)
        torch._C._set_only_lift_cpu_tensors(True)
        # Module.to() would otherwise put a device tensor's fields into the old CPU parameter.
        overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
        overwrite = torch.__future__.set_overwrite_module_params_on_conversion
        self._patches.callback(overwrite, overwrites)
        overwrite(True)
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._patches.close()

    def _replacements(self) -> dict[str, Any]:
        return {
            "_lazy_init": lambda: None,
            "CUDAGraph": lambda **_: Graph(self),
            "Event": lambda **options: Event(self, **options),
            "Stream": lambda *_, **__: self.new_stream(),
            "current_device": lambda: 0,
            "current_stream": lambda *_: self.current[-1],
            "default_stream": lambda *_: self.default_stream,
            "device_count": lambda: 1,
            "empty_cache": lambda: None,
            "get_device_capability": lambda *_: (9, 0),
            "get_device_name": lambda *_: "a simulated card",
            "graph": self.capture,
            "graph_pool_handle": list,
            "is_available": lambda: True,
            "is_current_stream_capturing": lambda: self.capturing is not None,
            "max_memory_reserved": lambda *_: 0,
            "mem_get_info": lambda *_: (1 << 34, 1 << 34),
            "stream": self.on_stream,
            "synchronize": self.synchronize,
        }

    def put(self, tensor: Tensor) -> DeviceTensor:
        """Place a copy of a CPU tensor on the device, with nothing pending."""
        contents = tensor.detach().clone()
        return DeviceTensor(contents, Memory(contents))

    def module(self, module: nn.Module) -> nn.Module:
        """Copy a module onto the device."""
        return with_tensors(module, self.put)

    def new_stream(self) -> Stream:
        """Make a stream that is in order with no other."""
        self.streams.append(Stream(self, f"stream {len(self.streams)}"))
        return self.streams[-1]

    @contextlib.contextmanager
    def on_stream(self, stream: Stream) -> Iterator[None]:
        """Send work to ``stream``."""
        self.current.append(stream)
        try:
            yield
        finally:
            self.current.pop()

    def synchronize(self, device: Any = None) -> None:
        """Let the host wait for everything."""
        self.refuse_in_capture("torch.cuda.synchronize()")
        self.stalls.append(f"torch.cuda.synchronize() at {culprit()}")
        for stream in self.streams:
            self.host_learns(stream.clock)

    def host_learns(self, clock: Clock) -> None:
        """Note that the host has waited; deliver what it may now see."""
        merge(self.host_clock, clock)
        for stream in self.streams:
            seen = self.host_clock.get(stream, 0)
            due = [arrive for tick, arrive in stream.pending if tick <= seen]
            stream.pending = [entry for entry in stream.pending if entry[0] > seen]
            for arrive in due:
                arrive()

    def refuse_in_capture(self, what: str) -> None:
        if self.capturing is not None:
            raise CaptureUnsafe(f"{what} during a capture, at {culprit()}")

    @contextlib.contextmanager
    def capture(
        self,
        graph: Graph,
        pool: list[Recording] | None = None,
        stream: Stream | None = None,
        capture_error_mode: str = "global",
    ) -> Iterator[None]:
        """Record into ``graph`` what is sent to ``stream``, as ``torch.cuda.graph`` does."""
        if stream is None or not stream.clock[stream]:
            raise CaptureUnsafe("a capture needs a stream of its own on which the step has run")
        for other in self.streams:
            self.host_learns(other.clock)
        self.capture_modes.append(capture_error_mode)
        self.capturing = graph.recording = Recording([] if pool is None else pool)
        try:
            with self.on_stream(stream):
                yield
        finally:
            recording, self.capturing = self.capturing, None
            recording.finish()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if self.capturing is not None:
            refuse_unsafe(func, args, kwargs)
        if kwargs.get("pin_memory"):
            return self._allocate_pinned(func, args, kwargs)
        if func is aten.is_pinned.default:
            return address(args[0]) in self.pinned
        target = torch.device(kwargs.get("device") or "cpu")
        on_device = [t for t in tensors_of(args, kwargs) if isinstance(t, DeviceTensor)]
        if func in CROSSING and self._crosses(func, args, kwargs):
            return self._copy_across(func, args, kwargs)
        if not on_device and target.type != "cuda":
            self._note_host_access(func, args, kwargs)
            return func(*args, **kwargs)
        return self._run(func, args, kwargs)

    def _allocate_pinned(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        tensor: Tensor = func(*args, **{**kwargs, "pin_memory": False})
        self.pinned[address(tensor)] = (tensor, Memory(tensor, "pinned memory"))
        return tensor

    def _crosses(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        if func is aten.copy_.default:
            return isinstance(args[0], DeviceTensor) != isinstance(args[1], DeviceTensor)
        target = kwargs.get("device")
        from_device = isinstance(args[0], DeviceTensor)
        return target is not None and (torch.device(target).type == "cuda") != from_device

    def _copy_across(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        if func is aten._to_copy.default:
            self._stall(f"{func} across devices")
            source = args[0].contents if isinstance(args[0], DeviceTensor) else args[0]
            moved: Tensor = func(source, **{**kwargs, "device": "cpu"}).clone()
            return moved if isinstance(args[0], DeviceTensor) else self.put(moved)
        destination, source = args[0], args[1]
        asynchronous = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if isinstance(source, DeviceTensor):
            self._copy_to_host(destination, source, asynchronous)
        else:
            self._copy_to_device(destination, source, asynchronous)
        return destination  # type: ignore[no-any-return]

    def _copy_to_host(self, destination: Tensor, source: DeviceTensor, asynchronous: bool) -> None:
        pinned = self.pinned.get(address(destination))
        stream = self.current[-1]
        stream.enqueue([source.memory], [pinned[1]] if pinned else [])
        if not pinned or not asynchronous or needs_conversion(destination, source.contents):
            self._stall("a copy to the host that is not asynchronous into pinned memory")
            destination.copy_(source.contents)
            return
        arrived = source.contents.clone()
        poison(destination)
        stream.pending.append((stream.clock[stream], lambda: copy_quietly(destination, arrived)))

    def _copy_to_device(
        self, destination: DeviceTensor, source: Tensor, asynchronous: bool
    ) -> None:
        pinned = self.pinned.get(address(source))
        stream = self.current[-1]
        if not pinned or not asynchronous or needs_conversion(destination.contents, source):
            self._stall("a copy to the device that is not asynchronous from pinned memory")
        stream.enqueue([pinned[1]] if pinned else [], [destination.memory])
        destination.contents.copy_(source)
        taken = source.clone()

        def unchanged() -> None:
            if source.numpy().tobytes() != taken.numpy().tobytes():
                raise RaceFound("pinned memory was changed while it may have been copied from")

        if pinned:
            stream.pending.append((stream.clock[stream], unchanged))

    def _stall(self, what: str) -> None:
        self.stalls.append(f"{what} at {culprit()}")
        self.host_learns(self.current[-1].clock)

    def _note_host_access(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        mutated = mutated_tensors(func, args, kwargs)
        for tensor in tensors_of(args, kwargs):
            entry = self.pinned.get(address(tensor)) if tensor.device.type == "cpu" else None
            if entry and not is_view(func):
                self.host_clock["the host"] += 1
                is_written = any(tensor is other for other in mutated)
                access = entry[1].write if is_written else entry[1].read
                access("the host", self.host_clock)

    def _run(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        inputs = [t for t in tensors_of(args, kwargs) if isinstance(t, DeviceTensor)]
        refuse_mixed_devices(func, args, kwargs, inputs)
        if func is aten._local_scalar_dense.default:
            self._stall(str(func))
        mutated = [t for t in mutated_tensors(func, args, kwargs) if isinstance(t, DeviceTensor)]
        if self.capturing is not None:
            for tensor in mutated:
                self.capturing.keep(tensor.contents)
        plain_args, plain_kwargs = in_each(contents_of, args), in_each(contents_of, kwargs)
        if "device" in plain_kwargs:
            plain_kwargs["device"] = torch.device("cpu")
        result = self.bodies.get(func, func)(*plain_args, **plain_kwargs)
        known = {address(tensor.contents): tensor.memory for tensor in inputs}
        same = {id(tensor.contents): tensor for tensor in inputs}
        outputs = tensors_of(result)
        fresh = {address(t): Memory(t) for t in outputs if address(t) not in known}
        reads = [t.memory for t in inputs if not any(t is other for other in mutated)]
        writes = [*(t.memory for t in mutated), *fresh.values()]
        if mutated or fresh or not outputs:
            kernel = Recorded(func, plain_args, plain_kwargs, outputs, bool(mutated))
            kernel.func = self.bodies.get(func, func)
            self._account(kernel, reads, writes)

        def wrap(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if id(value) in same:
                return same[id(value)]
            return DeviceTensor(value, {**known, **fresh}[address(value)])

        return in_each(wrap, result)

    def _account(self, kernel: Recorded, reads: list[Memory], writes: list[Memory]) -> None:
        if self.capturing is None:
            self.current[-1].enqueue(reads, writes)
        else:
            self.capturing.add(kernel, reads, writes)


def is_view(func: Any) -> bool:
    """Tell whether an operation only looks at its input in another way."""
    returns = func._schema.returns
    return not func._schema.is_mutable and bool(returns) and returns[0].alias_info is not None


def mutated_tensors(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the arguments that an operation writes to, by its schema."""
    mutated = []
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[at] if at < len(args) else kwargs.get(argument.name)
            mutated.extend(tensors_of(value))
    return mutated


def refuse_mixed_devices(func: Any, args: Any, kwargs: Any, inputs: list[DeviceTensor]) -> None:
    """Refuse host tensors beside device tensors, but for scalars and indices, as torch does."""
    if not inputs or func in (aten.index.Tensor, aten.index_put_.default):
        return
    for tensor in tensors_of(args, kwargs):
        if not isinstance(tensor, DeviceTensor) and tensor.dim():
            raise RuntimeError(f"{func}: expected all tensors on one device, found cuda:0 and cpu")


def needs_conversion(destination: Tensor, source: Tensor) -> bool:
    """Tell whether a copy across devices goes through other, pageable memory on the host."""
    layouts = (destination.is_contiguous(), source.is_contiguous())
    return destination.dtype != source.dtype or layouts != (True, True)


def contents_of(value: Any) -> Any:
    """Return the numbers behind a device tensor; anything else as it is."""
    return value.contents if isinstance(value, DeviceTensor) else value


def copy_quietly(destination: Tensor, source: Tensor) -> None:
    """Copy without the device noticing: the copy itself was accounted for before."""
    with torch.utils._python_dispatch._disable_current_modes():
        destination.copy_(source)
