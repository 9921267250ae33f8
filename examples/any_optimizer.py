"""`perturbed` around any torch optimizer: step with the gradient a little uphill, from the weights as they were.

python examples/any_optimizer.py
"""

from collections.abc import Callable, Iterable

import torch

from harmofl import perturbed

OPTIMIZERS: dict[str, Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=0.01),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=0.003),
    "Adagrad": lambda params: torch.optim.Adagrad(params, lr=0.03),
}


def train(name: str, steps: int = 60, alpha: float = 0.05) -> tuple[float, float]:
    """Train a small network; return the loss before the first step and after the last."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(64, 1, 8, 8, generator=random)
    labels = (images[:, 0, :4].mean((1, 2)) > images[:, 0, 4:].mean((1, 2))).long()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    optimizer = OPTIMIZERS[name](model.parameters())
    loss = torch.nn.functional.cross_entropy
    first = float(loss(model(images), labels).detach())
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(images), labels).backward()  # the gradient, which says where uphill is
        with perturbed(model, alpha=alpha):  # within, the weights are alpha further up, along the gradient
            loss(model(images), labels).backward()  # .grad now holds the gradient there
        optimizer.step()  # from the weights as they were, to the bit
    return first, float(loss(model(images), labels).detach())


if __name__ == "__main__":
    for name in OPTIMIZERS:
        before, after = train(name)
        print(f"{name}: loss {before:.3f} -> {after:.3f}")
