import numpy as np
import pytest
import torch
from torch import nn

from harmofl.data.site import Site, Split
from harmofl.evaluation.scoring import Batching, predict_split, score

CPU = torch.device("cpu")


def site_of(images: np.ndarray, targets: np.ndarray, task: str = "segmentation") -> Site:
    split = Split(images, targets, tuple(map(str, range(len(images)))))
    return Site("a", task, ("no", "yes"), split, split, split)


class Threshold(nn.Module):
    """Foreground where a pixel is bright; in training mode everywhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(x, 0.5), torch.full_like(x, 1.0) if self.training else x], dim=1)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_predictions_come_in_the_order_of_the_split_and_in_evaluation_mode(batch_size: int) -> None:
    images = np.random.default_rng(0).random((10, 1, 4, 5), dtype=np.float32)
    site = site_of(images, (images[:, 0] > 0.5).astype(np.uint8))
    found = predict_split(Threshold().train(), site, "test", batching=Batching(batch_size), device=CPU)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, site.test.targets)
    assert score(found, site, "test")["dice"] == 1


def test_class_probabilities_sum_to_one_in_the_order_of_the_split() -> None:
    images = np.linspace(0, 1, 7, dtype=np.float32).reshape(7, 1, 1, 1)
    site = site_of(images, (np.arange(7) > 3).astype(np.int64), "classification")
    model = nn.Sequential(Threshold(), nn.Flatten())
    found = predict_split(model, site, "val", batching=Batching(2), device=CPU)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert (np.diff(found[:, 1]) > 0).all()
    assert score(found, site, "val")["accuracy"] == 1


def test_batches_are_mixed_the_same_way_every_time() -> None:
    """Where outputs depend on batch mates, test images must not be batched by class, nor differently each time."""
    seen: list[list[float]] = []

    class Record(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.flatten().tolist())
            return x.flatten(1).expand(-1, 2)

    images = np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1)
    site = site_of(images, np.zeros(8, np.int64), "classification")
    for _ in range(2):
        predict_split(Record(), site, "test", batching=Batching(4), device=CPU)
    assert seen[:2] == seen[2:]
    assert sorted(seen[0]) != [0, 1, 2, 3]


def test_a_model_can_be_loaded_and_trained_after_predicting() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1))
    images = np.zeros((2, 1, 3, 3), np.float32)
    predict_split(model, site_of(images, np.zeros((2, 3, 3), np.uint8)), "test", batching=Batching(2), device=CPU)
    model.load_state_dict(model.state_dict())
    model.train()(torch.rand(2, 1, 3, 3)).sum().backward()
    assert model[1].weight.grad is not None
