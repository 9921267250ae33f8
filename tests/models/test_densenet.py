import pytest
import torch

from harmofl.models import NORMALIZATIONS, DenseNet, densenet

SMALL = {"growth": 4, "blocks": (3, 2, 2, 2), "initial": 8}


def gradients(network: DenseNet, images: torch.Tensor) -> list[torch.Tensor]:
    network.zero_grad()
    network(images).logsumexp(dim=1).sum().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


def test_initial_weights() -> None:
    torch.manual_seed(0)
    network = DenseNet()
    weight = network.first.weight
    assert weight.std().item() == pytest.approx((2 / (3 * 49)) ** 0.5, rel=0.05)
    assert not network.classifier.bias.any()


@pytest.mark.parametrize("size", [64, 97])
def test_normalizing_once_changes_nothing(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    torch.manual_seed(0)
    network, images = DenseNet(**SMALL), torch.rand(4, 3, size, size)
    calls: list[bool] = []
    once = densenet._DenseBlock._normalize_once
    monkeypatch.setattr(
        densenet._DenseBlock, "_normalize_once", lambda *arguments: calls.append(True) or once(*arguments)
    )
    logits, found = network(images), gradients(network, images)
    assert len(calls) == 8
    monkeypatch.setattr(densenet, "holds_nothing", lambda layer: False)
    torch.testing.assert_close(logits, network(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, gradients(network, images), rtol=1e-4, atol=1e-5)
    assert len(calls) == 8


@pytest.mark.parametrize("norm", NORMALIZATIONS)
def test_pooling_first_changes_nothing(norm: str) -> None:
    torch.manual_seed(0)
    transition, x = densenet._Transition(8, 4, norm), torch.randn(2, 8, 7, 9)
    later = torch.nn.functional.avg_pool2d(transition.conv(transition.norm(x).relu()), 2)
    torch.testing.assert_close(transition(x), later, rtol=1e-5, atol=1e-6)


def test_zeros_surround_the_first_block() -> None:
    """32 pixels: 16 and 8 behind the first layers, 8 + 2 + 2 = 12, then 6, 3 and 1."""
    network, shapes = DenseNet(**SMALL), []
    for stage in network.stages:
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[-1]))
    network(torch.rand(2, 3, 32, 32))
    assert shapes == [8, 12, 6, 6, 3, 3, 1, 1]


def test_batch_statistics_in_evaluation() -> None:
    torch.manual_seed(0)
    network, images = DenseNet(**SMALL), torch.rand(4, 3, 40, 40)
    assert torch.equal(network.eval()(images), network.train()(images))
    assert not torch.allclose(network.eval()(images)[:2], network(images[:2]), atol=1e-4)
    tracked = DenseNet(norm="batch", **SMALL).eval()
    torch.testing.assert_close(tracked(images)[:2], tracked(images[:2]), rtol=1e-5, atol=1e-5)
