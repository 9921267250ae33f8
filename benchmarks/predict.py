"""How many images a second `harmofl predict` answers for, against a plain loop and MONAI's inferer, interleaved.

    python benchmarks/predict.py --data FOLDER/nuclei --model runs/nuclei --repeats 5 --device cpu --threads 2

Every way reads the same files, gives the same network the same images and writes the same masks; the ways take turns.
`forward` is the network alone on images in memory.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from harmofl.data.layout.site_files import files_below
from harmofl.experiment.model_build import device_of
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.prediction.predict import predict_files
from harmofl.inference.prediction.predictor import Options


def plain(trained: TrainedModel, paths: list[Path], out: Path, device: str) -> None:
    """What a user would write: Pillow, one image at a time."""
    network = trained.network().to(device)
    height, width = trained.card["size"]
    out.mkdir()
    with torch.no_grad():
        for path in paths:
            image = Image.open(path).convert("RGB" if trained.card["channels"] == 3 else "L")
            pixels = np.atleast_3d(np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)))
            batch = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float().to(device) / 255
            logits = torch.nn.functional.interpolate(network(batch), size=(image.height, image.width), mode="bilinear")
            Image.fromarray(logits.argmax(1)[0].to(torch.uint8).cpu().numpy() * 255).save(out / f"{path.stem}.png")


def monai_way(trained: TrainedModel, paths: list[Path], out: Path, device: str) -> None:
    """MONAI's transforms, loader and inferer, in batches."""
    from monai.data import DataLoader, Dataset, PILReader
    from monai.inferers import SimpleInferer
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, ScaleIntensityRange

    network = trained.network().to(device)
    height, width = trained.card["size"]
    mode = "RGB" if trained.card["channels"] == 3 else "L"
    reader = PILReader(
        converter=lambda image: image.convert(mode).resize((width, height), Image.Resampling.BILINEAR),
        reverse_indexing=False,
    )
    steps = Compose(
        [LoadImage(reader=reader, image_only=True), EnsureChannelFirst(), ScaleIntensityRange(0, 255, 0, 1)]
    )
    out.mkdir()
    done = 0
    with torch.no_grad():
        for batch in DataLoader(Dataset([str(path) for path in paths], steps), batch_size=16):
            for logits in SimpleInferer()(batch.as_tensor().float().to(device), network):
                path = paths[done]
                with Image.open(path) as image:
                    size = (image.height, image.width)
                whole = torch.nn.functional.interpolate(logits[None], size=size, mode="bilinear")
                Image.fromarray(whole.argmax(1)[0].to(torch.uint8).cpu().numpy() * 255).save(out / f"{path.stem}.png")
                done += 1


def forward(trained: TrainedModel, count: int, device: str) -> float:
    """Images a second of the network alone."""
    network = trained.network().to(device)
    images = torch.rand(16, trained.card["channels"], *trained.card["size"], device=device)
    with torch.no_grad():
        network(images)
        begin = time.perf_counter()
        for _ in range(-(-count // 16)):
            found = network(images)
        found.sum().item()
    return 16 * -(-count // 16) / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = str(device_of(given.device))
    trained = TrainedModel.open(given.model)
    paths = [path for path in files_below(given.data) if "images" in path.parts]
    ways: dict[str, Callable[[Path], object]] = {
        "predict": lambda out: predict_files(trained, paths, out, Options(device=device)),
        "plain loop": lambda out: plain(trained, paths, out, device),
    }
    if find_spec("monai"):
        ways["MONAI"] = lambda out: monai_way(trained, paths, out, device)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    alone = []
    folder = Path(tempfile.mkdtemp())
    for repeat in range(given.repeats + 1):
        for name, way in ways.items():
            out = folder / f"{name}-{repeat}"
            begin = time.perf_counter()
            way(out)
            if repeat:  # the first warms up
                seconds[name].append(time.perf_counter() - begin)
        alone.append(forward(trained, len(paths), device))
    first, second = (folder / f"{name}-0" for name in ("predict", "plain loop"))
    same = [
        np.mean(
            np.asarray(Image.open(first / f"{path.stem}.png")) == np.asarray(Image.open(second / f"{path.stem}.png"))
        )
        for path in paths
    ]
    shutil.rmtree(folder)
    where = torch.cuda.get_device_name() if device == "cuda" else f"{given.threads} CPU threads"
    print(f"{len(paths)} images, {where}; predict and plain loop agree in {np.mean(same):.6f} of the pixels")
    print("| way | images a second (median) | against plain loop |\n|---|---|---|")
    base = statistics.median(seconds["plain loop"])
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"| {name} | {len(paths) / median:.0f} | x {base / median:.2f} |")
    print(f"| forward alone | {statistics.median(alone):.0f} | |")


if __name__ == "__main__":
    main()
