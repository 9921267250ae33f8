import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harmofl.analysis.landscape.plane import Plane, plane
from harmofl.analysis.landscape.surface import losses_at
from harmofl.federated.batch import Batch

CPU = torch.device("cpu")


def center() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(4, 3, 2, 2, generator=generator), torch.randn(4, generator=generator)]


def test_filters_have_the_norms_of_the_weights_and_biases_stay() -> None:
    w = center()
    found = plane("filters", w, [], 0)
    for direction in found.directions:
        assert torch.allclose(direction[0].flatten(1).norm(dim=1), w[0].flatten(1).norm(dim=1))
        assert not direction[1].any()
    assert not torch.equal(found.directions[0][0], found.directions[1][0])


def test_directions_are_of_the_seed() -> None:
    one, again, other = (plane("filters", center(), [], seed).directions[0][0] for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("kind", ["filters", "solutions"])
def test_places_are_where_points_of_the_plane_were_made(kind: str) -> None:
    w = center()
    through = plane("filters", w, [], 0)
    first, second = through.directions
    others = [[x + 2 * a - 3 * b for x, a, b in zip(w, first, second, strict=True)]]
    others += [[x + 1 * a + 1 * b for x, a, b in zip(w, first, second, strict=True)]]
    found = plane(kind, w, others, 0)  # type: ignore[arg-type]
    assert found.captured == pytest.approx([1, 1], abs=1e-5)
    if kind == "filters":
        assert found.places == pytest.approx(np.array([[2, -3], [1, 1]]), abs=1e-4)
    else:  # directions of length 1, orthogonal
        assert np.hypot(*found.places.T) == pytest.approx(found.distances, rel=1e-4)
        flat = [torch.cat([part.reshape(-1) for part in direction]) for direction in found.directions]
        assert float(flat[0] @ flat[1]) == pytest.approx(0, abs=1e-5)
        assert [float(part.norm()) for part in flat] == pytest.approx([1, 1], rel=1e-5)


def test_principal_directions_are_those_of_the_svd() -> None:
    generator = torch.Generator().manual_seed(0)
    moves = torch.randn(5, 30, generator=generator)
    found = plane("solutions", [torch.zeros(30)], [[move] for move in moves], 0)
    _, values, vectors = torch.linalg.svd(moves.double(), full_matrices=False)
    for k in (0, 1):
        assert abs(float(found.directions[k][0].double() @ vectors[k])) == pytest.approx(1, abs=1e-5)
    assert np.square(found.places).sum() == pytest.approx(float(values[:2].square().sum()), rel=1e-5)
    assert (found.captured < 1).all()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_solutions_than_directions_get_random_ones(count: int) -> None:
    others = [[torch.ones(6)]] * count
    found = plane("solutions", [torch.zeros(6)], others, 0)
    basis = torch.stack([direction[0] for direction in found.directions]).double()
    assert torch.allclose(basis @ basis.T, torch.eye(2).double(), atol=1e-5)
    assert found.captured == pytest.approx([1] * count)


def test_a_solution_equal_to_the_center_is_the_center() -> None:
    w = center()
    found = plane("solutions", w, [w], 0)
    assert found.places == pytest.approx(np.zeros((1, 2)))
    assert found.captured[0] == 1


class Bowl(nn.Module):
    """Gives w, whatever the image."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.w


def test_surface_of_a_quadratic() -> None:
    """(w - t)^2 / 2 with t = 1 for two images and 4 for one: the mean weighs batches by their images."""
    model, names = Bowl(), ["w"]
    batches = [Batch(torch.zeros(2, 1), torch.tensor([1, 1])), Batch(torch.zeros(1, 1), torch.tensor([4]))]
    directions = ((torch.tensor([1.0, 0.0]),), (torch.tensor([0.0, 2.0]),))
    through = Plane((torch.tensor([1.0, 0.0]),), directions, np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    points = np.array([[0, 0], [1, 0], [0, -1], [0.5, 2]])
    told: list[None] = []
    found = losses_at(
        model,
        lambda w, t: ((w - t.float().mean()) ** 2).sum() / 2,
        model.state_dict(),
        names,
        through,
        points,
        batches,
        workers=3,
        device=CPU,
        done=lambda: told.append(None),
    )
    w = np.array([1.0, 0.0]) + points * [1, 2]
    expected = [sum(share * ((v - t) ** 2).sum() / 2 for share, t in ((2 / 3, 1), (1 / 3, 4))) for v in w]
    assert found == pytest.approx(np.array(expected), rel=1e-6)
    assert len(told) == 4
    assert not model.w.any()
    assert torch.get_num_threads() == 1
