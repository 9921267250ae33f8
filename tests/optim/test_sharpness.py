import numpy as np
import pytest
import torch
from torch import nn

from harmofl.errors import ConfigError
from harmofl.optim.sharpness import perturbed
from harmofl.spectral.amplitude import AmplitudeNorm

SETTINGS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-4),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=1e-4),
}


@pytest.mark.shared("reference/perturbation_released.npz")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.5])
def test_equals_the_released_optimizer(shared_path, optimizer: str, alpha: float) -> None:
    z = np.load(shared_path / "reference/perturbation_released.npz")
    X, Y = torch.from_numpy(z["X"]), torch.from_numpy(z["Y"])
    model = nn.Linear(4, 1).double()
    model.load_state_dict({"weight": torch.from_numpy(z["w0"]).T, "bias": torch.from_numpy(z["b0"])})
    step = SETTINGS[optimizer](model.parameters())
    for k, expected in enumerate(z[f"{optimizer}_alpha{alpha}"]):
        rows = slice(4 * (k % 3), 4 * (k % 3) + 4)
        nn.functional.mse_loss(model(X[rows]), Y[rows]).backward()
        with perturbed(model, alpha):
            nn.functional.mse_loss(model(X[rows]), Y[rows]).backward()
        step.step()
        step.zero_grad()
        got = torch.cat([model.weight.flatten(), model.bias]).detach().numpy()
        np.testing.assert_allclose(got, expected, atol=1e-12, rtol=0)


def small_model() -> nn.Module:
    torch.manual_seed(0)
    layers = (AmplitudeNorm(), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(60, 2))
    return nn.Sequential(*layers)


def backward(model: nn.Module, x: torch.Tensor) -> None:
    nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 1])).backward()


def test_moves_by_alpha_along_the_gradient_by_one_norm_over_all() -> None:
    """By hand: weights 1 and 2 with gradients 3 and 4, ||g|| = 5, alpha = 0.5: 1 + 0.3 and 2 + 0.4."""
    a, b = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([2.0]))
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    with perturbed([a, b], alpha=0.5):
        assert [a.item(), b.item()] == pytest.approx([1.3, 2.4])
        assert a.grad is None
    assert [a.item(), b.item()] == [1.0, 2.0]


def test_everything_is_restored_to_the_bit_even_when_the_body_raises() -> None:
    model, x = small_model(), torch.rand(3, 2, 7, 6)
    backward(model, x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), perturbed(model, 0.3):
        backward(model, x)
        assert not torch.equal(model[1].weight, before["1.weight"])
        assert int(model[2].num_batches_tracked) == 2  # moved inside, put back after
        raise RuntimeError("stop")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_amplitude_does_not_learn_inside_and_learns_after() -> None:
    model, x = small_model(), torch.rand(3, 2, 7, 6)
    backward(model, x)
    with perturbed(model, 0.05):
        backward(model, x)
    assert int(model[0].count) == 1
    model(x)
    assert int(model[0].count) == 2


def test_alpha_zero_gives_the_plain_gradient_to_the_bit() -> None:
    model, x = small_model(), torch.rand(3, 2, 7, 6)
    backward(model, x)
    plain = [p.grad.clone() for p in model.parameters()]
    with perturbed(model, 0):
        backward(model, x)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), plain, strict=True))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_zero_and_non_finite_gradients_move_nothing(value: float) -> None:
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    p.grad, q.grad = torch.tensor([value, 0.0]), torch.zeros(3)
    with perturbed([p, q], 0.05):
        assert torch.equal(p, torch.ones(2))
        assert torch.equal(q, torch.ones(3))


def test_parameters_without_gradient_stay() -> None:
    p, q = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    p.grad = torch.ones(1)
    with perturbed([p, q], 0.05):
        assert p.item() == pytest.approx(1.05)
        assert q.item() == 1
    with perturbed([q], 0.05):
        pass


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [
        (torch.ones(1000, dtype=torch.bfloat16), 1000**-0.5),
        (torch.full((4,), 6e4, dtype=torch.float16), 0.5),
        (torch.tensor([1e-40]), 0),
    ],
    ids=["bfloat16 norm in float32", "float16 norm does not overflow", "a perturbation that would overflow"],
)
def test_numbers_at_the_ends_of_their_range(gradient: torch.Tensor, expected: float) -> None:
    p = nn.Parameter(torch.zeros_like(gradient))
    p.grad = gradient.clone()
    with perturbed([p], 1.0):
        assert p.tolist() == pytest.approx([expected] * len(p), rel=5e-3)


def test_shared_parameters_count_once() -> None:
    p = nn.Parameter(torch.zeros(1))
    p.grad = torch.ones(1)
    with perturbed([p, p], 0.05):
        assert p.item() == pytest.approx(0.05)


def test_a_buffer_that_the_module_replaces_is_restored() -> None:
    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(1))
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.mean = 0.9 * self.mean + 1
            return x * self.w

    model = Average()
    model(torch.ones(1)).sum().backward()
    with perturbed(model, 0.1):
        model(torch.ones(1)).sum().backward()
    assert model.mean.item() == 1


@pytest.mark.parametrize("target", [nn.Parameter(torch.ones(2)), [("name", nn.Parameter(torch.ones(2)))]])
def test_what_is_neither_model_nor_parameters_is_refused(target) -> None:
    with pytest.raises(ConfigError, match="perturbed needs a model or its parameters"), perturbed(target, 0.1):
        pass


@pytest.mark.parametrize("alpha", ["a", -0.1, float("nan"), float("inf")])
def test_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha must be"), perturbed([], alpha):
        pass
