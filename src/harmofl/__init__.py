"""HarmoFL: federated learning on heterogeneous medical images.

For an own PyTorch program take `AmplitudeNorm` and `perturbed`; to run experiments, `load_experiment` and `run`, or
the command `harmofl`. Importing the package imports nothing else; each name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from harmofl.lazily import lazily as _lazily

if TYPE_CHECKING:
    from harmofl.config import Experiment, load_experiment
    from harmofl.data.site import open_federation
    from harmofl.errors import HarmoFLError
    from harmofl.exchange import Broadcast, ClientUpdate, ServerState
    from harmofl.experiment import resume, run
    from harmofl.local import Training, run_client
    from harmofl.methods import METHODS, FedAvg, FedSAM, HarmoFL
    from harmofl.sharpness import perturbed
    from harmofl.spectral.amplitude import AmplitudeNorm, amplitude, with_amplitude
    from harmofl.spectral.profile import ProfileNorm

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

_HOMES = {
    **dict.fromkeys(("METHODS", "FedAvg", "FedSAM", "HarmoFL"), "methods"),
    **dict.fromkeys(("AmplitudeNorm", "amplitude", "with_amplitude"), "spectral.amplitude"),
    **dict.fromkeys(("Broadcast", "ClientUpdate", "ServerState"), "exchange"),
    **dict.fromkeys(("Experiment", "load_experiment"), "config"),
    **dict.fromkeys(("Training", "run_client"), "local"),
    **dict.fromkeys(("resume", "run"), "experiment"),
    "HarmoFLError": "errors",
    "ProfileNorm": "spectral.profile",
    "open_federation": "data.site",
    "perturbed": "sharpness",
}
__getattr__ = _lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
