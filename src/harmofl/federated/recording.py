"""Recorded steps: the kernels of a step as one CUDA graph, launched without Python between them.

A step of a network with many short layers waits for Python, not for the GPU. A round's first steps are taken plainly,
then one is recorded and replayed for all further batches of the same shape; other batches are taken plainly. Every
round records anew: nothing outlives it, so resumed runs and runs in processes end with the same bits.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from harmofl.errors import ConfigError
from harmofl.federated.batch import Batch
from harmofl.federated.client_context import ClientContext

WARM_UP = 3
"""Plain calls before a recording, which allocate what persists: moments, caches, workspaces."""
LEAST = 8
"""Fewest calls of one shape that are worth a recording, which takes about as long as a plain call."""


class Recorder(Protocol):
    """Records work on a device."""

    def stream(self) -> AbstractContextManager[None]:
        """Return the context in which plain and recorded calls take place."""

    def record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Record the work of a call without doing it; return its result, filled later, and the function that does it.

        The work reads and writes the memory that the call used, so what changes between replays must change in place.
        """


class CudaRecorder:
    """Records with `torch.cuda.CUDAGraph`, on one stream of its own; draws on the device advance as in plain calls.

    Args:
        device: the CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None

    @contextmanager
    def stream(self) -> Iterator[None]:
        """See `Recorder`."""
        self._stream = self._stream or torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        outer = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(outer)
        with torch.cuda.stream(self._stream):
            yield
        outer.wait_stream(self._stream)

    def record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """See `Recorder`; raise ConfigError if the work cannot be recorded, as it looks at its numbers."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                result = call()
        except RuntimeError as error:
            reason = " ".join(str(error.__context__ or error).split("\n")[0].split())
            raise ConfigError(f"training.graph: a step must be recordable, but: {reason}; set it to off") from None
        return result, graph.replay


class Recorded:
    """A function of tensors that is replayed from a recording for inputs of one shape, and called plainly for others.

    Args:
        function: inputs -> a tensor.
        recorder: records it.
        count: length of the inputs that are recorded, if their other sizes are those of the call that is recorded.
    """

    def __init__(self, function: Callable[..., Tensor], recorder: Recorder, count: int) -> None:
        self._function, self._recorder, self._count = function, recorder, count
        self._left, self._inputs = WARM_UP, list[Tensor]()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the result, in memory of its own."""
        if len(inputs[0]) != self._count or self._left:
            self._left -= len(inputs[0]) == self._count
            return self._function(*inputs)
        if not self._inputs:
            self._inputs = [torch.empty_like(value).copy_(value) for value in inputs]
            self._result, self._replay = self._record(partial(self._function, *self._inputs))
        if any(kept.shape != value.shape for kept, value in zip(self._inputs, inputs, strict=True)):
            return self._function(*inputs)
        for kept, value in zip(self._inputs, inputs, strict=True):
            kept.copy_(value)
        self._replay()
        return self._result.clone()

    def _record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        return self._recorder.record(call)


class RecordedStep(Recorded):
    """The steps of a site's round, with what they change in Python: the number of steps, tensors of the round's state.

    Args:
        client: the round.
        take: takes a step on a batch.
        recorder: records it.
    """

    def __init__(self, client: ClientContext, take: Callable[[Batch], Tensor], recorder: Recorder) -> None:
        super().__init__(lambda images, targets: take(Batch(images, targets)), recorder, client.training.batch_size)
        self._client = client

    def _record(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        client, taken, before = self._client, self._client.taken, dict(self._client.round_state)
        with _capturable(client.optimizer):
            result, replay = super()._record(call)
        steps, client.taken = client.taken - taken, taken
        made = {key: value for key, value in client.round_state.items() if value is not before.get(key)}
        client.round_state.update(before)

        def replayed() -> None:
            replay()
            client.taken += steps
            client.round_state.update(made)

        return result, replayed


@contextmanager
def stepping(
    client: ClientContext, take: Callable[[ClientContext, Batch], Tensor]
) -> Iterator[Callable[[Batch], Tensor]]:
    """Yield the function that takes the round's steps, which records them if there is a recorder and it is worth it."""
    recorder, layer, plain = client.training.recorder, client.normalizer, partial(take, client)
    learns = layer is not None and layer.is_learning
    if recorder is None or learns or client.scale or client.full_batches < LEAST:
        yield plain
        return
    with recorder.stream():
        step = RecordedStep(client, plain, recorder)
        yield lambda batch: step(batch.images, batch.targets)


@contextmanager
def forward_of(
    model: nn.Module, lengths: Sequence[int], count: int, recorder: Recorder | None
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield the function that applies a model to batches of images, recorded if there is a recorder and it is worth it.

    Args:
        model: the model, in evaluation mode.
        lengths: the lengths of all batches.
        count: length of a full batch.
        recorder: records full batches, or None.
    """
    if recorder is None or list(lengths).count(count) < LEAST:
        yield model
        return
    with recorder.stream():
        yield Recorded(model, recorder, count)


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Allow torch's Adam to be recorded; fused optimizers do the same work either way."""
    groups = [group for group in optimizer.param_groups if "capturable" in group]
    before = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, value in zip(groups, before, strict=True):
            group["capturable"] = value
