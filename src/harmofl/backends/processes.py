"""Process backend: train sites in parallel, in processes that last from round to round, each with its own model.

A site is trained by the same `run_client` from the same message, so the weights equal those of the sequential backend
bit for bit if a process computes with as many threads. Sites with the most images start first, and each free process
takes the next one, so that the processes finish together.
"""

import io
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from harmofl.backends.runner import KeepState, Results, RoundResult, Score, first_state
from harmofl.data.site import Site
from harmofl.errors import HarmoFLError, RunError
from harmofl.federated.client import Training, run_client
from harmofl.federated.messages import ClientState, ServerState
from harmofl.federated.method import Method
from harmofl.federated.tensors import Arrays, total_bytes
from harmofl.utils.child_processes import end_with_parent, without_interrupts
from harmofl.utils.spool import Spool


@dataclass(frozen=True)
class Equipment:
    """Objects that a process needs to train and to score any of the sites."""

    method: Method
    training: Training
    sites: Mapping[str, Site]
    score: Score


_COMMON, _TRAIN, _SCORE = "common", "train", "score"
"""Kinds of messages to a process."""


class Workers:
    """Processes that train sites; a context manager, which ends them on exit.

    Args:
        equip: called in each process with its number, from 0; must be picklable.
        count: number of processes.

    Raises:
        HarmoFLError: if `equip` raises it.
        RunError: if a process ends by itself.
    """

    def __init__(self, equip: Callable[[int], Equipment], count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._processes, self._lines = [], list[Connection]()
        try:
            for number in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, equip, number), daemon=True)
                with without_interrupts():
                    process.start()
                theirs.close()
                self._processes.append(process)
                self._lines.append(ours)
            for line in self._lines:
                self._answer(line)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for line, process in zip(self._lines, self._processes, strict=True):
            line.close()
            process.terminate()
            process.join()

    def run_round(
        self,
        method: Method,
        server: ServerState,
        sites: Sequence[Site],
        states: Mapping[str, ClientState],
        training: Training,
        on_site: Callable[[str], None] = lambda site: None,
        keep: KeepState | None = None,
    ) -> RoundResult:
        """Run a round, see `RunRound`; each process uses its own `training`.

        Results that are there before those of a site with an earlier name wait, in memory up to 1 GB and beyond it on
        disk.

        Raises:
            HarmoFLError: the first error of a site.
            RunError: if a process ends by itself.
        """
        broadcast = method.broadcast(server)
        results = Results(method, server, sites, keep)
        first = first_state(method, broadcast, sites, states)
        names = sorted(site.name for site in sites)
        images = {site.name: len(site.train) for site in sites}
        order = sorted(reversed(names), key=images.__getitem__)  # the last one starts first

        def state(name: str) -> ClientState:
            return states.get(name, first)

        with Spool() as early:
            for name, (update, own) in self._share(_TRAIN, broadcast, order, state, on_site):
                early.put(name, (update, own), update.num_bytes() + total_bytes(own))
                while names and names[0] in early:
                    results.add(*early.pop(names.pop(0)))
        return results.round()

    def scores(self, weights: Arrays, own: Mapping[str, Arrays], split: str) -> dict[str, dict[str, float]]:
        """Score the sites side by side, see `Runner`; errors as of `run_round`."""
        done = dict(self._share(_SCORE, dict(weights), list(own), lambda name: (split, own[name])))
        return {name: done[name] for name in own}

    def _share(
        self,
        kind: str,
        common: object,
        names: Sequence[str],
        needs: Callable[[str], object],
        on_site: Callable[[str], None] = lambda site: None,
    ) -> Iterator[tuple[str, Any]]:
        """Give each free process the next site, from the last on, and `common` before its first; yield the answers.

        Args:
            kind: `_TRAIN` or `_SCORE`.
            common: sent to each process once.
            names: the sites.
            needs: returns what else a site needs.
            on_site: called with each site's name when it is done.
        """
        waiting, idle, busy = list(names), list(self._lines), dict[Connection, str]()
        told = set[Connection]()
        while waiting or busy:
            while waiting and idle:
                line, name = idle.pop(), waiting.pop()
                if line not in told:
                    self._send(line, (_COMMON, "", common))
                    told.add(line)
                self._send(line, (kind, name, needs(name)))
                busy[line] = name
            ready = wait(list(busy))
            for line in [line for line in busy if line in ready]:
                name = busy.pop(line)
                answer = self._answer(line)
                idle.append(line)
                on_site(name)
                yield name, answer

    def _send(self, line: Connection, message: object) -> None:
        try:
            send(line, message)
        except OSError:
            raise _ended() from None

    def _answer(self, line: Connection) -> Any:
        try:
            answer = receive(line)
        except (EOFError, OSError):
            raise _ended() from None
        if isinstance(answer, HarmoFLError):
            raise answer
        return answer


def _ended() -> RunError:
    return RunError("a process that trains sites must go on, but has ended; it may lack memory: set run.workers lower")


def _serve(line: Connection, equip: Callable[[int], Equipment], number: int) -> None:
    """Train the requested sites in a child process until the connection is closed."""
    end_with_parent()
    try:
        equipment = equip(number)
        send(line, None)
        common: Any = None
        while True:
            kind, name, given = receive(line)
            if kind == _COMMON:
                common = given
            elif kind == _TRAIN:
                send(line, run_client(equipment.method, equipment.sites[name], common, given, equipment.training))
            else:
                split, own = given
                send(line, equipment.score(name, split, {**common, **own}))
    except HarmoFLError as error:
        send(line, error)
    except (EOFError, OSError):
        return
    except Exception as error:  # out of GPU memory, or any error of a network
        reason = " ".join(str(error).split()) or type(error).__name__
        send(line, RunError(f"a site must be trained, but: {reason}"))


def send(line: Connection, message: object) -> None:
    """Send an object, with its tensors as plain bytes."""
    buffers: list[pickle.PickleBuffer] = []
    body = io.BytesIO()
    _Pickler(body, protocol=5, buffer_callback=buffers.append).dump(message)
    line.send((len(buffers), body.getvalue()))
    for buffer in buffers:
        line.send_bytes(buffer.raw())


def receive(line: Connection) -> Any:
    """Receive an object sent by `send`."""
    count, body = line.recv()
    return pickle.loads(body, buffers=[bytearray(line.recv_bytes()) for _ in range(count)])


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        """Reduce a CPU tensor to its bytes, dtype and shape, and any other object as usual."""
        if not isinstance(obj, Tensor):
            return NotImplemented
        flat = obj.detach().contiguous().reshape(-1).view(torch.uint8)
        return _tensor, (pickle.PickleBuffer(flat.numpy().data), obj.dtype, tuple(obj.shape))


def _tensor(data: bytearray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(shape)
