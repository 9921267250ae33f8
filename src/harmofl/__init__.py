"""HarmoFL: federated learning on heterogeneous medical images.

For an own PyTorch program take `AmplitudeNorm` and `perturbed`; to run experiments, `load_experiment` and `run`, or
the command `harmofl`.
"""

from harmofl.amplitude import AmplitudeNorm, amplitude, with_amplitude
from harmofl.config import Experiment, load_experiment
from harmofl.data.site import open_federation
from harmofl.errors import HarmoFLError
from harmofl.exchange import Broadcast, ClientUpdate, ServerState
from harmofl.experiment import resume, run
from harmofl.local import Training, run_client
from harmofl.methods import METHODS, FedAvg, FedSAM, HarmoFL
from harmofl.profile import ProfileNorm
from harmofl.sharpness import perturbed

__all__ = [
    "METHODS",
    "AmplitudeNorm",
    "Broadcast",
    "ClientUpdate",
    "Experiment",
    "FedAvg",
    "FedSAM",
    "HarmoFL",
    "HarmoFLError",
    "ProfileNorm",
    "ServerState",
    "Training",
    "amplitude",
    "load_experiment",
    "open_federation",
    "perturbed",
    "resume",
    "run",
    "run_client",
    "with_amplitude",
]
