"""Every example runs, does what it says, and is short."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import patience
import pytest
import torch
from safetensors.torch import load_file
from toys import assert_same

from harmofl.backends.sequential import run_round

EXAMPLES = Path(__file__).parent.parent / "examples"


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.name)
def test_an_example_is_under_60_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60


def test_monai_network_behind_amplitude_normalization() -> None:
    pytest.importorskip("monai", reason="needs MONAI: pip install 'harmofl[monai]'")
    losses = module(EXAMPLES / "monai_unet.py").main()
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "Adagrad"])
def test_any_optimizer_steps_with_the_perturbed_gradient(name: str) -> None:
    example = module(EXAMPLES / "any_optimizer.py")
    assert name in example.OPTIMIZERS
    before, after = example.train(name)
    assert after < 0.7 * before
    assert example.train(name, alpha=0.0)[1] != after


@pytest.fixture
def hospitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The app's package can be imported, and makes its images in a folder of its own."""
    pytest.importorskip("flwr", reason="needs Flower: pip install 'harmofl[flower]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES / "flower_app"))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "hospitals"]:
        del sys.modules[name]


def test_own_flower_app_gives_the_same_bits_as_the_simulation(hospitals: None) -> None:
    from flwr.app import Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid
    from flwr.supercore.task_identity import TaskIdentity
    from hospitals import client, server, task

    torch.set_num_threads(1)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1

    class InProcess(Grid):
        """Two nodes in this process, each with a context that lasts."""

        def __init__(self, app: ClientApp) -> None:
            self.app = app
            self.contexts = {
                100 + k: Context(
                    run_id=1, node_id=100 + k, node_config={"partition-id": k}, state=RecordDict(), run_config={}
                )
                for k in range(2)
            }

        def get_node_ids(self) -> Iterable[int]:
            return list(self.contexts)

        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            return [self._answer(message) for message in reversed(list(messages))]

        def _answer(self, message: Message) -> Message:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            return self.app(message, self.contexts[message.metadata.dst_node_id])

        def set_run(self, run: Any) -> None:
            raise NotImplementedError

        run = property(lambda self: None)
        create_message = get_nodes = push_messages = pull_messages = set_run

    found = server.federate(InProcess(client.app), rounds=3)
    training = task.training()
    sites = [task.site(k) for k in range(2)]
    expected, states = task.METHOD.start(training.model), {}
    for _ in range(3):
        expected, states, _ = run_round(task.METHOD, expected, sites, states, training)
    assert_same(found.weights, expected.weights)
    assert found.round == 3


def test_nvflare_job_gives_the_same_bits_as_the_simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In NVFlare's own simulator, a process a site."""
    pytest.importorskip("nvflare", reason="needs NVFlare: pip install nvflare")
    job = EXAMPLES / "nvflare_job"
    words = [sys.executable, "job.py", str(tmp_path / "job")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, cwd=job, env=env, capture_output=True, text=True, timeout=patience.seconds(120), check=False
    )
    assert (tmp_path / "job" / "model.safetensors").exists(), done.stdout[-2000:] + done.stderr[-2000:]
    monkeypatch.chdir(tmp_path)
    task = module(job / "task.py")
    torch.set_num_threads(1)
    training = task.training()
    expected, states = task.METHOD.start(training.model), {}
    for _ in range(task.ROUNDS):
        expected, states, _ = run_round(task.METHOD, expected, [task.site(k) for k in range(2)], states, training)
    assert_same(load_file(tmp_path / "job" / "model.safetensors"), expected.weights)
