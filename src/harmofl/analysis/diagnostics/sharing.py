"""Which params the sites of a method share, and the weights that each site's loss is taken at."""

from collections.abc import Mapping, Sequence

from torch import nn

from harmofl.federated.tensors import Arrays
from harmofl.methods import FedAvg
from harmofl.types import Role


def shared_params(method: FedAvg, model: nn.Module) -> list[str]:
    """The names of the params that are trained and sent; none of a method that sends nothing."""
    trained = [name for name, param in model.named_parameters() if param.requires_grad]
    return [name for name in trained if method.role(model, name) is Role.SHARED]


def weights_of(
    shared: Sequence[str], weights: Arrays, own: Mapping[str, Arrays], sites: Sequence[str]
) -> dict[str, Arrays]:
    """By site the global weights, and over them what it has instead: not what it has beside them, as Ditto's models.

    Args:
        shared: see `shared_params`.
        weights: the global ones.
        own: by site, the entries that it keeps for itself; some may be missing.
        sites: their names.
    """
    common = set(shared)
    return {
        site: {**weights, **{name: value for name, value in own.get(site, {}).items() if name not in common}}
        for site in sites
    }
