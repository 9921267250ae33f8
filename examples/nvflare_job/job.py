"""An NVFlare job with HarmoFL's aggregation, in NVFlare's simulator. Needs: pip install nvflare.

cd examples/nvflare_job && python job.py /tmp/harmofl-job
"""

import sys
from pathlib import Path

from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController
from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import FrameworkType, ScriptRunner
from safetensors.torch import save_file
from task import METHOD, ROUNDS, numbered, to_arrays, to_torch, training

from harmofl import ClientUpdate


class Rounds(ModelController):
    """Broadcast, wait for all sites, aggregate."""

    def __init__(self, model_file: str) -> None:
        super().__init__()
        self.model_file = model_file

    def run(self) -> None:
        """All rounds; the global model goes into a file."""
        sites = self.sample_clients()
        server = METHOD.start(training().model, len(sites))
        for number in range(ROUNDS):
            model = FLModel(params=to_arrays(METHOD.broadcast(server).weights), current_round=number)
            answers = self.send_model_and_wait(targets=sites, data=model)
            server = METHOD.aggregate(server, sorted(map(self.update, answers), key=lambda update: update.site))
        save_file({name: value.clone() for name, value in server.weights.items()}, self.model_file)

    @staticmethod
    def update(answer: FLModel) -> ClientUpdate:
        """What a site sent."""
        about, name = answer.meta, answer.meta["client_name"]
        site = f"site-{numbered(name) + 1}"
        return ClientUpdate(site, to_torch(answer.params), about["samples"], about["steps"], about["loss"])


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "nvflare-run").resolve()
    job = FedJob(name="harmofl", min_clients=2)
    job.to_server(Rounds(str(out / "model.safetensors")))
    job.to_clients(ScriptRunner(script="client.py", framework=FrameworkType.NUMPY))
    for one in (job.to_server, job.to_clients):
        one("task.py")
    job.simulator_run(str(out), n_clients=2, threads=2)
