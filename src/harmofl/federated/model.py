"""The trained model: an optional normalizer and the network, with the role of each tensor."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from harmofl.errors import ConfigError
from harmofl.spectral.image_norm import ImageNorm
from harmofl.types import Role

if TYPE_CHECKING:
    from harmofl.federated.method import Method

NORMALIZER = "amplitude_norm"
AMPLITUDE, FROZEN, WIDTH, OWN_PROFILE = (f"{NORMALIZER}.{name}" for name in ("amplitude", "frozen", "width", "own"))
"""State dict entries of a model with a normalizer, see `ImageNorm`."""


class FederatedModel(nn.Module):
    """f(Psi(x)): images (N, C, H, W) -> logits.

    Args:
        network: f.
        normalizer: Psi, or None. It declares the roles of its tensors; those of the network are shared.
    """

    network: nn.Module

    def __init__(self, network: nn.Module, normalizer: ImageNorm | None = None) -> None:
        super().__init__()
        if normalizer is not None:
            self.add_module(NORMALIZER, normalizer)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images (N, C, H, W)."""
        layer = self._modules.get(NORMALIZER)
        logits: Tensor = self.network(x if layer is None else layer(x))
        return logits


def normalizer_of(model: nn.Module) -> ImageNorm | None:
    """Return the normalizer of a model, or None."""
    layer = getattr(model, NORMALIZER, None)
    return layer if isinstance(layer, ImageNorm) else None


def declared_role(model: nn.Module, name: str) -> Role:
    """Return the role of an entry as its module declares it in `roles`; shared if the module declares none."""
    owner, _, leaf = name.rpartition(".")
    roles = getattr(model.get_submodule(owner), "roles", {})
    role: Role = roles.get(leaf, Role.SHARED)
    return role


def role_of(method: "Method", model: nn.Module, name: str) -> Role:
    """Return the role of an entry; raise ConfigError unless the method gives it one."""
    role: object = method.role(model, name)
    if isinstance(role, Role):
        return role
    roles = ", ".join(f"Role.{one.name}" for one in Role)
    raise ConfigError(f"{method}: role() must return one of {roles}, got {role!r} for {name}")


def is_sent(method: "Method", model: nn.Module, name: str, round_number: int) -> bool:
    """Return True if sites send the entry in this round: shared ones in every round, collected ones in round 1."""
    role = role_of(method, model, name)
    return role is Role.SHARED or (role is Role.COLLECTED and round_number == 1)


def trained_names(model: nn.Module) -> tuple[str, ...]:
    """Return the state dict entries of trained params; a shared param has several."""
    return tuple(name for name, param in model.named_parameters(remove_duplicate=False) if param.requires_grad)


def of_network(names: Iterable[str]) -> list[str]:
    """Return the names outside the normalizer."""
    return [name for name in names if not name.startswith(f"{NORMALIZER}.")]
