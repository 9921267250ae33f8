"""Flower's own FedAvg between its own processes, on loopback: what `deployment.py` compares with."""

import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

BIN = Path(sys.executable).parent
PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "stock"
version = "1.0.0"
description = "FedAvg without training"
license = {file = "LICENSE"}
dependencies = ["flwr>=1.41"]
[tool.flwr.app]
publisher = "harmofl"
[tool.flwr.app.components]
serverapp = "server:app"
clientapp = "client:app"
[tool.flwr.app.config]
num-server-rounds = 3
"""
CLIENT = """
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    metrics = MetricRecord({"num-examples": 4})
    return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)
"""
SERVER = """
import time
from pathlib import Path
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from harmofl.models import build_network

app = ServerApp()


@app.main()
def main(grid, context):
    network = build_network("unet", channels=3, classes=2, norm="batch-stats", seed=0)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)

    def done(number, arrays):
        with Path({times!r}).open("a") as file:
            file.write(f"{{time.time()}}\\n")

    strategy.start(grid, ArrayRecord(network.state_dict()), num_rounds={rounds}, evaluate_fn=done)
"""


def seconds(folder: Path, rounds: int, ports: list[int]) -> float:
    """Median seconds of a round after the first, with three SuperNodes and without TLS.

    Raises:
        RuntimeError: if Flower does not finish in 10 minutes.
    """
    times = folder / "times"
    (folder / "home").mkdir()
    files = {"pyproject.toml": PYPROJECT, "LICENSE": "none", "client.py": CLIENT}
    files |= {"server.py": SERVER.format(times=str(times), rounds=rounds)}
    local = f'[superlink.local]\naddress = "127.0.0.1:{ports[0]}"\ninsecure = true\n'
    files |= {"home/config.toml": f'[superlink]\ndefault = "local"\n{local}'}
    for name, text in files.items():
        (folder / name).write_text(text)
    env = {**os.environ, "FLWR_HOME": str(folder / "home"), "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    env |= {"FLWR_DISABLE_UPDATE_CHECK": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
    commands = [["flower-superlink", "--insecure", "--port", str(ports[0])]]
    for port in ports[1:]:
        link = ["--superlink", f"127.0.0.1:{ports[0]}", "--port", str(port)]
        commands.append(["flower-supernode", "--insecure", *link])
    with (folder / "log").open("w") as log:
        running = [
            subprocess.Popen([BIN / c[0], *c[1:]], env=env, cwd=folder, stdout=log, stderr=log) for c in commands
        ]
        try:
            time.sleep(10)
            subprocess.run([BIN / "flwr", "run", ".", "local"], env=env, cwd=folder, stdout=log, stderr=log, check=True)
            end = time.monotonic() + 600
            while not times.exists() or len(times.read_text().splitlines()) <= rounds:
                if time.monotonic() > end:
                    raise RuntimeError(f"Flower did not finish:\n{(folder / 'log').read_text()[-3000:]}")
                time.sleep(0.5)
        finally:
            for process in running:
                process.terminate()
    stamps = [float(line) for line in times.read_text().splitlines()]  # before the first round, and after each
    return statistics.median(b - a for a, b in pairwise(stamps[1:]))
