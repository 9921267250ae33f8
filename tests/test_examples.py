"""Every example runs, does what it says, and is short."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import patience
import pytest
from deployments import FLOWER_LONG, NVFLARE, free_port

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


@pytest.mark.parametrize("engine", [NVFLARE, FLOWER_LONG])
def test_three_hospitals_train_on_one_machine(engine: str, tmp_path: Path) -> None:
    words = ["sh", str(EXAMPLES / "three_hospitals" / "run.sh"), engine, str(tmp_path / "out")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words,
        env=env,
        capture_output=True,
        text=True,
        timeout=patience.seconds(120),
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "round 5 of 5: 3 sites" in done.stderr
    assert "site-3: last in round 5" in done.stdout
