import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import small
from PIL import Image
from torch import nn

from harmofl import run
from harmofl.errors import ConfigError
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.setup import Setup
from harmofl.federated.tensors import num_bytes


def prepared(federation: Path, **changes: object) -> Setup:
    return Setup.prepare(small(federation, **changes), lambda site, done, total: None)


def test_optimizers_are_as_configured(federation: Path) -> None:
    sgd = {"training__optimizer": "sgd", "training__momentum": 0.7, "training__weight_decay": 0.03}
    setup = prepared(federation, training__lr=0.2, **sgd)
    group = setup.training.optimizer(setup.training.model.parameters()).param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.2, 0.7, 0.03)
    setup = prepared(federation, training__lr=0.3, training__optimizer="adam", training__weight_decay=0.04)
    optimizer = setup.training.optimizer(setup.training.model.parameters())
    assert isinstance(optimizer, torch.optim.Adam)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.3, 0.04)


def test_augmentation_epochs_and_batch_size_are_as_configured(federation: Path) -> None:
    assert prepared(federation, training__augment="none").training.augment is None
    training = prepared(federation, training__augment="flips", training__epochs=3, training__batch_size=5).training
    assert training.augment is not None
    assert (training.epochs, training.batch_size) == (3, 5)


def test_every_method_starts_from_the_same_network(federation: Path) -> None:
    """The comparison is fair: initial weights depend on the seed alone."""
    starts = [prepared(federation, method__name=name).start().weights for name in ("fedavg", "harmofl")]
    for name, value in starts[0].items():
        assert torch.equal(value, starts[1][name])


def test_bytes_are_those_of_the_weights(federation: Path, tmp_path: Path) -> None:
    """Two sites; the amplitude, 3 x 32 x 17 floats, two counters and a flag, goes up in round 1 alone."""
    run(small(federation, training__rounds=2), tmp_path / "run")
    weights = RunDir(tmp_path / "run").load_model()[0]
    amplitude = 3 * 32 * 17 * 4 + 2 * 8 + 1
    network = num_bytes({name: value for name, value in weights.items() if name.startswith("network.")})
    first, second = RunDir(tmp_path / "run").records()
    assert first["bytes_up"] == 2 * (network + amplitude)
    assert second["bytes_up"] == 2 * network
    assert second["bytes_down"] == 2 * (network + amplitude)


class Wider(nn.Module):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, num_classes + 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Pair(Wider):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


class Empty(nn.Module):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network__name": "test_setup.Wider", "network__options": {}}, "its output must be"),
        (
            {"network__name": "densenet", "network__options": {}},
            r"its output must be .*, got \(5, 2\); set network.name to one for segmentation, such as unet",
        ),
        (
            {"network__name": "test_setup.Pair", "network__options": {}},
            "its output must be a tensor, got tuple; set network.name to one for segmentation, such as unet",
        ),
        ({"network__name": "test_setup.Empty", "network__options": {}}, "parameter"),
        (
            {"data__size": [16, 16], "training__batch_size": 1},
            "must take a batch of 1x3x16x16 images, but: normalization needs more than one value per channel, "
            "got a single image whose maps have shrunk to one pixel; set data.size, another network.norm or batch size",
        ),
        ({"run__device": "cuda:99"}, "must be one that torch can use here, got cuda:99"),
        ({"run__device": "mps"}, "must be one that torch can use here, got mps"),
        ({"training__precision": "tf32"}, "tf32 needs a CUDA device, got run.device=cpu"),
        ({"training__compile": True, "method__name": "moon"}, "training.compile must be false for moon"),
        ({"method__params_regex": "nothing"}, "params_regex must match a param's name"),
    ],
)
def test_a_misfit_is_said_before_the_run_folder_is_made(
    changes: dict, message: str, federation: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        run(small(federation, **changes), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"run__threads": 1024}, "run.threads is 1024, but this machine has"),
        ({"training__precision": "float16"}, "float16 is slow on a CPU"),
        ({"method__name": "local+median"}, "local: no weights are averaged, so median has no effect; leave it out"),
        ({"method__name": "local:weighting=samples"}, "local: no weights are averaged, so mean:weighting=samples has"),
        ({"method__name": "pooled+trimmed"}, "pooled: no weights are averaged, so trimmed has no effect"),
        ({"method__name": "fedavg+median:weighting=samples"}, "takes no p_i, so weighting=samples does not change"),
        ({"method__name": "fedavg+trimmed"}, "trimmed of the weights of 2 sites is their mean; it takes 3 sites"),
    ],
)
def test_settings_that_do_no_good_are_told_of(changes: dict, remark: str, federation: Path) -> None:
    assert not any(remark in line for line in prepared(federation).remarks())
    assert any(remark in line for line in prepared(federation, **changes).remarks())
    torch.set_num_threads(1)


def test_images_that_fill_the_memory_are_told_of(
    federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not [line for line in prepared(federation).remarks() if "memory" in line]
    monkeypatch.setattr("harmofl.experiment.setup.LARGE", 0.0)
    assert any("GB of memory; data.cache=FOLDER" in line for line in prepared(federation).remarks())
    mapped = prepared(federation, data__cache=str(tmp_path / "cache"))
    assert not [line for line in mapped.remarks() if "memory" in line]


def test_a_published_split_that_parts_patients_is_told_of(federation: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fed"
    shutil.copytree(federation, folder)
    table = (folder / "federation.toml").read_text()
    (folder / "federation.toml").write_text(table.replace('split = "patients"', 'split = "images"'))
    assert any("published split puts images of one patient" in line for line in prepared(folder).remarks())


def test_remarks_on_the_data_are_made_once(tmp_path: Path) -> None:
    """Masks in two colours, and a site without the class; both are warnings when the folder is read."""
    for site, classes in (("a", (0, 9)), ("b", (0,))):
        for kind in ("images", "masks"):
            (tmp_path / site / kind).mkdir(parents=True)
        for k in range(10):
            mask = np.full((16, 16), classes[-1], np.uint8)
            mask[:4] = classes[0]
            Image.fromarray(np.full((16, 16), k, np.uint8)).save(tmp_path / site / "images" / f"{k}.png")
            Image.fromarray(mask).save(tmp_path / site / "masks" / f"{k}.png")
    told: list[str] = []
    experiment = small(tmp_path, network__norm="instance", data__size=[32, 32])
    setup = Setup.prepare(experiment, lambda *done: None, told=told.append)
    data = setup.cautions()[:2]
    assert ["no training image shows class" in line for line in data] == [False, True]
    assert [sum(line in one for one in told) for line in data] == [1, 1]
    assert not set(data) & set(setup.remarks())
