"""What a server that was taken over, or a site that was excluded, may not do."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import patience
import pytest
import torch
from deployments import NVFLARE, free_port
from experiments import small

pytest.importorskip("flwr", reason="needs Flower: pip install 'harmofl[flower]'")
from cryptography.hazmat.primitives.asymmetric import ec

from harmofl.backends.answering import Answering
from harmofl.backends.supervision import KeptProcess
from harmofl.deployment.creating import create
from harmofl.deployment.folders import ServerFolder, SiteKit, experiment_of
from harmofl.deployment.server_backend import Server
from harmofl.deployment.site_client import Desk
from harmofl.deployment.update_protection import Cover
from harmofl.errors import StorageError
from harmofl.experiment.config import load_experiment
from harmofl.experiment.setup import Setup
from harmofl.federated.messages import Broadcast
from harmofl.federated.transport import DESCRIBE, Reply
from harmofl.federated.wire import pack, unpack

TAKEN_OVER = """
import runpy, sys, threading, time
from nvflare.fuel.f3.cellnet.core_cell import CoreCell
from nvflare.private.admin_defs import Message
from nvflare.private.defs import CellChannel, new_cell_message

def attack():
    asked = (("sys.shell", "head -n 1 startup/client.key"), ("sys.report_env", ""), ("train.check_status", ""))
    while True:
        time.sleep(1)
        for topic, body in asked:
            try:
                request = new_cell_message({}, Message(topic=topic, body=body))
                cell = CoreCell.ALL_CELLS["server"]
                reply = cell.send_request(CellChannel.CLIENT_MAIN, "admin", "a", request, timeout=5.0)
                code, said = dict(reply.headers).get("cn__return_code"), getattr(reply.payload, "body", None)
                print("REPLY", topic, code, repr(said), flush=True)
            except Exception as error:
                print("NO", topic, repr(error), flush=True)

threading.Thread(target=attack, daemon=True).start()
sys.argv = ["server_train", *sys.argv[1:]]
runpy.run_module("nvflare.private.fed.app.server.server_train", run_name="__main__")
"""


@pytest.mark.parametrize("engine", [NVFLARE])
def test_a_site_takes_no_shell_commands_even_from_its_server(engine: str, tmp_path: Path) -> None:
    from harmofl.backends.nvflare.kits import keep_in

    folder, port = tmp_path / "d", free_port()
    create(folder, load_experiment(None, {"data.folder": "x"}), ["a"], f"localhost:{port}", engine=engine)
    kits = {name: folder / name / "nvflare" for name in ("server", "a")}
    keep_in(kits["server"])
    workspace = ["-m", str(kits["server"]), "-s", "fed_server.json", "--set"]
    settings = ["secure_train=true", "org=harmofl", "config_folder=config"]
    commands = {
        "server": [sys.executable, "-u", "-c", TAKEN_OVER, *workspace, *settings],
        "a": ["bash", str(kits["a"] / "startup" / "sub_start.sh"), "--once"],
    }
    with ExitStack() as stack:
        for name, words in commands.items():
            stack.enter_context(KeptProcess(words, tmp_path / name, kits[name], {}))

        def said() -> str:
            return (tmp_path / "server").read_text() if (tmp_path / "server").exists() else ""

        patience.until(lambda: "REPLY train.check_status ok" in said(), said)
        answers = [line for line in said().splitlines() if line.startswith(("REPLY sys.shell", "REPLY sys.report_env"))]
        assert answers and not [line for line in answers if " ok " in line], answers
        assert "PRIVATE KEY" not in said()
        patience.until(lambda: "refused: the command 'sys.shell' of 'server'" in (tmp_path / "a").read_text(), said)


class Here:
    """A transport to sites that answer at once; keeps who was asked."""

    def __init__(self, *sites: str) -> None:
        self.sites = sites
        self.asked = set[str]()
        self.looks = 99
        """How often one may look before the engine ends."""

    def connected(self) -> Mapping[str, object]:
        self.looks -= 1
        return dict.fromkeys(self.sites, 1) if self.looks >= 0 else {}

    def ask(self, kind: str, content: bytes, sites: Sequence[str], timeout: float | None) -> Iterator[Reply]:
        self.asked |= set(sites)
        about = {"task": "segmentation", "classes": ["background", "nucleus"], "channels": 3, "size": [32, 32]}
        about |= {"images": "photographs", "bits": 8, "num_images": [1, 1, 1]}
        for site in sites:
            yield Reply(site, pack({"site": site, **about} if kind == DESCRIBE else {"dice": 0.5}))


def serving(folder: Path, there: Here) -> Server:
    """The server of a federation of a, b and c, of which two are needed, without the key of c."""
    experiment = load_experiment(None, {"data.folder": "x", "network.name": "unet"})
    place = create(folder, experiment, ["a", "b", "c"], "localhost:1", engine="flower", min_sites=2)[0]
    (place / "sites" / "c.pub").unlink()
    server = Server(ServerFolder.open(place), *experiment_of(place, {"data.folder": "x"}), there)
    server.open_run_dir(server.first_description(None))
    return server


def test_an_excluded_site_gets_nothing(tmp_path: Path) -> None:
    there = Here("a", "b", "c")
    server = serving(tmp_path / "d", there)
    assert server.present() == ["a", "b"]
    assert set(server.evaluate(1, {"w": torch.zeros(3)}, "test")) == {"a", "b"}
    assert there.asked == {"a", "b"}


def test_an_engine_that_ends_after_sites_are_found_there_costs_no_scores(tmp_path: Path) -> None:
    there = Here("a", "b", "c")
    server = serving(tmp_path / "d", there)
    server.counted, there.looks = {"a": 1, "b": 1}, 2
    assert set(server.evaluate(1, {"w": torch.zeros(3)}, "val")) == {"a", "b"}
    assert there.looks < 0


def desk_of(federation: Path, folder: Path) -> Desk:
    setup = Setup.prepare(small(federation, **{"method.name": "fedbn"}), lambda site, done, total: None)
    place = SiteKit(folder, "site-1", "localhost:1", "nvflare", False, b"", {})
    cover = Cover(place, ec.generate_private_key(ec.SECP384R1()), setup.experiment.privacy, 9)
    return Desk(place, "", setup, setup.federation.sites[0], cover)


def test_a_server_cannot_have_a_site_keep_states_without_end(federation: Path, tmp_path: Path) -> None:
    """Neither by a new run with each message, nor by rounds that it says it needs."""
    desk = desk_of(federation, tmp_path)
    weights = dict(desk.setup.training.model.state_dict())
    for number in range(1, 8):
        desk.head = {"run": f"run{number % 4}x{number}", "keep": list(range(20))}
        desk.train(Broadcast(1, weights))
    assert len(list((tmp_path / "state").iterdir())) == 2
    for number in range(1, 9):
        desk.head = {"run": "one", "keep": list(range(20)), "sites": ["site-1"], "counted": [number - 1]}
        desk.train(Broadcast(number, weights))
    assert len(list((tmp_path / "state" / "one").glob("*.safetensors"))) <= 5


def test_no_path_of_a_site_leaves_it() -> None:
    def fails(broadcast: Broadcast) -> None:
        raise StorageError("/home/anna b/data.npz: could not be written; C:\\Users\\anna\\x, '/srv/x' and 1/2 of it")

    content = Answering(fails)("train", pack({"round": 1}, {"weights": {"w": torch.from_numpy(np.zeros(1))}}))
    said = unpack(content)[0]["error"]
    assert "anna" not in said and "srv" not in said and "1/2 of it" in said
