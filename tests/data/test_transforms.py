import numpy as np
import pytest
import torch

from harmofl.data.transforms import Moves, apply_moves, augment, draw_moves
from harmofl.federated.batch import Batch


def numbered(count=32, height=6, width=6):
    maps = torch.arange(count * height * width).reshape(count, height, width)
    return Batch(torch.stack([maps, maps + 0.5], dim=1).float(), maps)


def test_label_maps_follow_their_images():
    moved = augment(numbered(), np.random.default_rng(0))
    torch.testing.assert_close(moved.images[:, 0].long(), moved.targets)
    torch.testing.assert_close(moved.images[:, 1], moved.images[:, 0] + 0.5)
    assert not torch.equal(moved.targets, numbered().targets)


def test_replay_by_drawing_first():
    batch = numbered()
    moves = draw_moves(len(batch), np.random.default_rng(7), turn=True)
    moved = augment(batch, np.random.default_rng(7))
    assert torch.equal(apply_moves(batch, moves).images, moved.images)
    for i in range(len(batch)):
        image = batch.targets[i].numpy()
        image = image[:, ::-1] if moves.across[i] else image
        image = image[::-1] if moves.down[i] else image
        np.testing.assert_array_equal(np.rot90(image, moves.turns[i]), moved.targets[i].numpy())


def test_all_eight_positions_occur():
    batch = numbered(1)
    repeated = Batch(batch.images.repeat(400, 1, 1, 1), batch.targets.repeat(400, 1, 1))
    moved = augment(repeated, np.random.default_rng(0))
    _, counts = torch.unique(moved.targets.flatten(1), dim=0, return_counts=True)
    assert len(counts) == 8
    assert counts.min() > 25


def test_oblong_images_are_not_turned():
    batch = numbered(height=4, width=6)
    moved = augment(batch, np.random.default_rng(0))
    assert moved.images.shape == batch.images.shape
    assert torch.equal(moved.targets.flatten(1).sort().values, batch.targets.flatten(1))
    assert not draw_moves(50, np.random.default_rng(0), turn=False).turns.any()


def test_classes_stay_and_the_batch_is_left_as_it_is():
    images = numbered().images
    batch = Batch(images.clone(), torch.arange(32))
    moved = augment(batch, np.random.default_rng(0))
    assert torch.equal(moved.targets, batch.targets)
    assert torch.equal(batch.images, images)


@pytest.mark.parametrize("seed", range(3))
def test_same_generator_same_batch(seed):
    moved = [augment(numbered(), np.random.default_rng(seed)).images for _ in range(2)]
    assert torch.equal(*moved)


def test_no_moves_copy():
    batch = numbered(2)
    still = apply_moves(batch, Moves(np.zeros(2, bool), np.zeros(2, bool), np.zeros(2, int)))
    assert torch.equal(still.images, batch.images)
    assert still.images.data_ptr() != batch.images.data_ptr()
