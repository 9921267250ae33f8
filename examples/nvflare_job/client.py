"""A site of an NVFlare job: one round of HarmoFL on the site's own images for every model that comes."""

import nvflare.client as flare
from nvflare.app_common.abstract.fl_model import FLModel
from task import METHOD, numbered, site, to_arrays, to_torch, training

from harmofl import Broadcast, run_client


def main() -> None:
    """Answer until the server has had enough; what the site keeps stays in this process."""
    flare.init()
    own = site(numbered(flare.get_site_name()))
    training_here, kept = training(), {}
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        broadcast = Broadcast(model.current_round + 1, to_torch(model.params))
        update, kept = run_client(METHOD, own, broadcast, kept, training_here)
        about = {"samples": update.num_samples, "steps": update.num_steps, "loss": update.loss}
        flare.send(FLModel(params=to_arrays(update.weights), meta=about))


main()
