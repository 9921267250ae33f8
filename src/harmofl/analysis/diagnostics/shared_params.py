"""Params that the sites of a method share, and the weights at which each site's loss is computed."""

from collections.abc import Mapping, Sequence

from torch import nn

from harmofl.federated.model import role_of
from harmofl.federated.tensors import Arrays
from harmofl.methods import FedAvg
from harmofl.types import Role


def shared_params(method: FedAvg, model: nn.Module) -> list[str]:
    """Return the names of the params that are trained and sent; empty for a method that sends nothing."""
    trained = [name for name, param in model.named_parameters() if param.requires_grad]
    return [name for name in trained if role_of(method, model, name) is Role.SHARED]


def weights_of(
    shared: Sequence[str], weights: Arrays, own: Mapping[str, Arrays], sites: Sequence[str]
) -> dict[str, Arrays]:
    """Return the weights of each site: the global weights with the site's own values of the params it does not share.

    A site's own values of shared params, such as Ditto's personal model, are ignored.

    Args:
        shared: names of the shared params, see `shared_params`.
        weights: the global weights.
        own: by site, its personal weights; sites may be missing.
        sites: names of the sites.
    """
    common = set(shared)
    return {
        site: {**weights, **{name: value for name, value in own.get(site, {}).items() if name not in common}}
        for site in sites
    }
