"""Small downloads of published data sets, exactly as they are published: names, formats, label values, oddities."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from harmofl.ingest.datasets import monusac2020

XML = """<Annotations MicronsPerPixel="0.252000">
 <Annotation Id="1" Name="" ReadOnly="0" Type="4"><Attributes>{attribute}</Attributes>
  <Regions><RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region"/></RegionAttributeHeaders>
  {regions}</Regions><Plots/></Annotation></Annotations>"""


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def region(*corners: tuple[float, float]) -> str:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
    return f'<Region Id="1" Type="0"><Attributes/><Vertices>{vertices}</Vertices></Region>'


def aperio(path: Path, kind: str, *regions: str) -> None:
    attribute = f'<Attribute Name="{kind}" Id="0" Value=""/>' if kind else ""
    path.write_text(XML.format(attribute=attribute, regions="".join(regions)))


def camelyon17(root: Path, patches: int = 4) -> Path:
    """camelyon17_v1.0: an unnamed index column, patients of three digits, RGBA patches, two slides of a patient."""
    root = root / "camelyon17_v1.0"
    rows = []
    for center in range(5):
        for patient in range(center * 20 + 4, center * 20 + 8):
            for node in (1, 4) if patient % 4 == 0 else (2,):
                for k in range(patches):
                    where = f"patient_{patient:03d}_node_{node}"
                    name = f"patch_{where}_x_{k * 32}_y_{patient}.png"
                    save(root / "patches" / where / name, noise(len(rows), 96, 96, 4))
                    rows.append(
                        [len(rows), f"{patient:03d}", node, k * 32, patient, k % 2, center * 10, center, k // 2 % 2]
                    )
    (root / "RELEASE_v1.0.txt").write_text("")
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"])
        writer.writerows(rows)
    return root


def prostate(root: Path, cases: dict[str, range]) -> Path:
    """Processed_data_nii: BMC's masks in another spelling, labels up to 2 at BMC and RUNMC, float masks."""
    for site, numbers in cases.items():
        for number in numbers:
            folder = root / "Processed_data_nii" / site
            folder.mkdir(parents=True, exist_ok=True)
            affine = np.diag([-0.6, -0.6, 3.0, 1.0])
            volume = noise(number, 12, 12, 5).astype(np.float32) * 10
            mask = np.zeros((12, 12, 5), dtype=np.float32)
            mask[3:8, 4:9, 1:4] = 1
            mask[4:6, 5:7, 2] = 2 if site in ("BMC", "RUNMC", "ISBI", "ISBI_1.5") else 1
            word = "Segmentation" if site in ("BMC", "ISBI_1.5") else "segmentation"
            nibabel.save(nibabel.Nifti1Image(volume, affine), folder / f"Case{number:02d}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"Case{number:02d}_{word}.nii.gz")
    return root


WHOLE_PROSTATE = {
    "BIDMC": range(12),
    "ISBI_1.5": range(30),
    "HK": range(38, 50),
    "I2CVB": range(19),
    "ISBI": range(30),
    "UCL": range(26, 39),
}


def monusac(root: Path) -> Path:
    """Both downloads, all 69 patients; a test region that is there as .svs only, an ambiguous region, RGBA."""
    patients = monusac2020._PATIENTS.split()
    for index, patient in enumerate(patients):
        part = "MoNuSAC Testing Data and Annotations" if index % 3 == 0 else "MoNuSAC_images_and_annotations"
        name = f"TCGA-{patient}-01Z-00-DX1"
        folder = root / part / name
        folder.mkdir(parents=True)
        tiff = folder / f"{name}_1.tif"
        Image.fromarray(noise(index, 20 + index % 30, 40, 4)).save(tiff, compression="tiff_lzw")
        if index == 0:
            tiff.rename(tiff.with_suffix(".svs"))
        square = region((2, 3), (10.5, 3), (10.5, 9), (2, 9))
        bad = region((30, 1), (31, 2))
        aperio(folder / f"{name}_1.xml", "Ambiguous" if index == 3 else "Epithelial", square, bad)
    twice = root / "MoNuSAC_images_and_annotations" / f"TCGA-{patients[0]}-01Z-00-DX1"
    twice.mkdir()
    Image.fromarray(noise(99, 20, 40, 3)).save(twice / f"{twice.name}_1.tif")
    aperio(twice / f"{twice.name}_1.xml", "Lymphocyte", region((1, 1), (5, 1), (5, 5)))
    return root


def monuseg(root: Path, train: int = 37, test: int = 14) -> Path:
    """The training download in two folders, the test download flat, with macOS' leavings."""
    for index in range(train + test):
        name = f"TCGA-{18 + index % 9}-{1000 + index}-01Z-00-DX1"
        image = root / "MoNuSeg 2018 Training Data/Tissue Images"
        notes = root / "MoNuSeg 2018 Training Data/Annotations"
        if index >= train:
            image = notes = root / "MoNuSegTestData"
        for folder in (image, notes, root / "__MACOSX"):
            folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(index, 64, 64, 3)).save(image / f"{name}.tif")
        aperio(notes / f"{name}.xml", "", region((1, 1), (20, 1), (20, 20), (1, 20)))
        (root / "__MACOSX" / f"._{name}.tif").write_bytes(b"\x00")
    (root / "MoNuSeg 2018 Training Data/.DS_Store").write_bytes(b"x")
    return root


def tnbc(root: Path) -> Path:
    """RGBA images and 0/255 masks of 11 patients; a later release's twelfth folder is left to the test."""
    for number, count in enumerate((7, 3, 5, 8, 4, 3, 3, 4, 6, 4, 3), start=1):
        for k in range(1, count + 1):
            base = root / "TNBC_NucleiSegmentation"
            save(base / f"Slide_{number:02d}" / f"{number:02d}_{k}.png", noise(number * 10 + k, 32, 32, 4))
            save(base / f"GT_{number:02d}" / f"{number:02d}_{k}.png", (noise(k, 32, 32) > 127).astype(np.uint8) * 255)
    return root


def dsb2018(root: Path) -> Path:
    """RGBA images of several sizes and stains, a mask a nucleus, and a test image without masks."""
    looks = {  # size, contrast, brightness of red, green and blue, and number of images
        "fluo": ((16, 16), 8, (0, 0, 0), 12),
        "wide": ((16, 24), 8, (0, 0, 0), 11),
        "bright": ((30, 30), 4, (180, 180, 180), 4),
        "purple": ((16, 16), 4, (100, 0, 90), 10),
        "white": ((16, 16), 8, (220, 180, 220), 10),
    }
    for look, (size, contrast, colour, count) in looks.items():
        for k in range(count):
            pixels = noise(k, *size, 1) // contrast + np.array(colour, np.uint8)
            alpha = np.full((*pixels.shape[:2], 1), 255, dtype=np.uint8)
            folder = root / "stage1_train" / f"{look}{k:02d}"
            save(folder / "images" / f"{look}{k:02d}.png", np.concatenate([pixels, alpha], axis=2).astype(np.uint8))
            for nucleus in range(3):
                mask = np.zeros(pixels.shape[:2], dtype=np.uint8)
                mask[4 * nucleus : 4 * nucleus + 2, 2:5] = 255
                save(folder / "masks" / f"{nucleus}.png", mask)
    save(root / "stage1_test/unknown/images/unknown.png", noise(0, 16, 16, 4))
    return root


def midog(root: Path, numbers: tuple[int, ...] = (1, 2, 3, 51, 52, 53, 101, 102, 103, 151)) -> Path:
    """Boxes are corners, with halves, one of them over the border; the fourth scanner's image has none."""
    images, notes = [], []
    for number in numbers:
        Image.fromarray(noise(number, 90, 120, 3)).save(root / f"{number:03d}.tiff")
        images.append({"license": 1, "file_name": f"{number:03d}.tiff", "id": number, "width": 120, "height": 90})
        for k in range(4 if number < 151 else 0):
            x, y = (-13, 20.5) if k == 0 else (30 + 10 * k, 40)
            box = [x, y, x + 50, y + 50]
            notes.append({"bbox": box, "category_id": 1 + k % 2, "image_id": number, "id": len(notes)})
    table = {"info": {}, "licenses": [], "images": images, "annotations": notes, "categories": []}
    (root / "MIDOG.json").write_text(json.dumps(table))
    return root


def medmnist(root: Path, names: tuple[str, ...] = ("organamnist", "organcmnist"), colour: bool = False) -> Path:
    for seed, name in enumerate(names):
        arrays = {}
        for split, count in (("train", 30), ("val", 11), ("test", 12)):
            arrays[f"{split}_images"] = noise(seed, count, 28, 28, *([3] if colour else []))
            arrays[f"{split}_labels"] = (np.arange(count) % 11).astype(np.uint8)[:, None]
        np.savez_compressed(root / f"{name}.npz", **arrays)
    return root


def fundus(root: Path) -> Path:
    """RGB masks in one domain, both eyes of a patient in RIM-ONE, resampled mask edges."""
    for index in range(1, 5):
        for split, count in (("train", 12), ("test", 5)):
            for k in range(count):
                stem = f"{'GN'[split == 'test']}-{k // 2}-{'LR'[k % 2]}" if index == 2 else f"V{k:04d}"
                mask = np.full((16, 16), 255, dtype=np.uint8)
                mask[4:12, 4:12] = 128
                mask[6:9, 6:9] = 0
                mask[3, 4:12] = 190
                base = root / f"Domain{index}" / split / "ROIs"
                save(base / "image" / f"{stem}.png", noise(k, 16, 16, 3))
                save(base / "mask" / f"{stem}.png", np.stack([mask] * 3, axis=2) if index == 3 else mask)
    return root
