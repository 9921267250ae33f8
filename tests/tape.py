"""A recorder for tests on the CPU that behaves as a CUDA graph does."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ON_CPU = {("kernels.py", "_replaced"), ("image_norm.py", "forward"), ("amplitude.py", "_check_size")}
"""Functions that look at numbers on the CPU alone, or at flags that always are on the CPU."""
LOOKS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class Tape(TorchDispatchMode):
    """Notes each operation with its tensors, and undoes what it changed; replays them on the same memory.

    As in a CUDA graph, no Python runs in a replay, and a recorded call that looks at a number is an error.

    Attributes:
        recorded: number of recordings.
        replayed: number of replays.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recorded = self.replayed = 0
        self._done: list[tuple[Any, Any, Any, Any]] = []
        self._before = dict[int, tuple[Tensor, Tensor]]()
        self._made = set[int]()

    @contextmanager
    def stream(self) -> Iterator[None]:
        yield

    def record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        self._done, self._before, self._made = [], {}, set()
        state = torch.get_rng_state()
        with self:
            result = call()
        done, self.recorded = self._done, self.recorded + 1
        torch.set_rng_state(state)
        with torch.no_grad():
            for tensor, value in self._before.values():
                tensor.copy_(value)

        @torch.no_grad()
        def replay() -> None:
            self.replayed += 1
            for function, words, options, found in done:
                again = function(*words, **options)
                for kept, new in zip(tree_leaves(found), tree_leaves(again), strict=True):
                    if isinstance(kept, Tensor) and kept.numel() and kept.data_ptr() != new.data_ptr():
                        kept.copy_(new)

        return result, replay

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in LOOKS and next(_callers(), None) not in ON_CPU:
            raise RuntimeError("a recorded call looked at a number")
        for given, declared in zip(args, function._schema.arguments, strict=False):
            if declared.alias_info is not None and declared.alias_info.is_write:
                self._keep(given)
        for declared in function._schema.arguments:
            if declared.alias_info is not None and declared.alias_info.is_write and declared.name in kwargs:
                self._keep(kwargs[declared.name])
        if function is torch.ops.aten.native_batch_norm.default:  # whose schema does not tell
            self._keep(args[3:5])
        found = function(*args, **kwargs)
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        new = {t.untyped_storage().data_ptr() for t in tree_leaves(found) if isinstance(t, Tensor)}
        self._made |= new - known
        self._done.append((function, args, kwargs, found))
        return found

    def _keep(self, given: Any) -> None:
        """Copy tensors from before the recording that an operation will change."""
        for tensor in tree_leaves(given):
            place = tensor.untyped_storage().data_ptr() if isinstance(tensor, Tensor) else None
            if place is not None and place not in self._made and tensor.data_ptr() not in self._before:
                self._before[tensor.data_ptr()] = tensor, tensor.clone()


def _callers() -> Iterator[tuple[str, str]]:
    """The files and functions of the package that called."""
    frame = sys._getframe().f_back
    while frame:
        if "/harmofl/" in frame.f_code.co_filename:
            yield frame.f_code.co_filename.rpartition("/")[2], frame.f_code.co_name
        frame = frame.f_back
