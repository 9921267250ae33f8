"""Run folders as training writes them, made without training, and a strict reader of pages."""

import json
from html.parser import HTMLParser

import numpy as np

from harmofl.report import write_report

SITES = ("A", "B", "C", "D")
PAIR = ("A", "B")
VOID = {"meta", "link", "img", "br", "hr"}
CONFIG = """\
[run]
name = "demo-{method}"
seed = 3
[method]
name = "{method}"
band = [1, 2]
[training]
rounds = 5
learning_rate = 0.001
[training.decay]
factor = 0.5
[versions]
torch = "2.6.0"
harmofl = "1.0"
"""


class Page(HTMLParser):
    """Reads a page strictly: every element that opens must close, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.images, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.note(tag, dict(attrs))

    def handle_startendtag(self, tag, attrs):
        self.note(tag, dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def note(self, tag, attrs):
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs[name] for name in ("src", "href", "xlink:href") if name in attrs]
        self.images += [attrs] if tag == "img" else []


def write_run(folder, method="harmofl", sites=PAIR, *, rounds=5, base=0.8, metric="dice", finished=True):
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG.format(method=method), encoding="utf-8")
    lines = [round_line(number, sites, metric, base) for number in range(1, rounds + 1)]
    (folder / "rounds.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if finished:
        write_result(folder, method, sites, metric, base)
    return folder


def round_line(number, sites, metric, base):
    val = {site: {metric: base - 0.1 / number} for site in sites}
    loss = {site: 1 / number for site in sites}
    numbers = {"round": number, "seconds": 2.0, "bytes_up": 31_000_000, "bytes_down": 30_000_000}
    return json.dumps({**numbers, "train_loss": loss, "val": val, "best": number == 4})


def write_result(folder, method, sites, metric, base):
    masks = metric == "dice"
    scores = {site: {metric: base - 0.05 * place, "iou": 0.5} for place, site in enumerate(sites)}
    result = {
        "name": f"demo-{method}",
        "method": method,
        "task": "segmentation" if masks else "classification",
        "classes": ["background", "nucleus"] if masks else ["nevus", "melanoma"],
        "main_metric": metric,
        "chosen_round": 4,
        "rounds": 5,
        "num_images": {site: {"train": 61, "val": 9, "test": 17} for site in sites},
        "val": scores,
        "test": scores,
        "seconds_per_round": 2.1,
        "num_params": 123456,
    }
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def write_samples(folder, sites=PAIR, *, masks=True, size=24, count=2, channels=3, normalized=True):
    rng = np.random.default_rng(0)
    arrays = {}
    for site in sites:
        images = rng.random((count, channels, size, size), dtype=np.float32)
        labels = np.zeros((count, size, size), np.uint8)
        labels[:, 6:14, 6:14] = 1
        arrays[f"{site}/images"] = images
        arrays[f"{site}/targets"] = labels if masks else np.arange(count)
        arrays[f"{site}/predictions"] = np.roll(labels, 2, axis=1) if masks else np.ones(count, np.int64)
        arrays[f"{site}/cases"] = np.array([f"case {index}" for index in range(count)])
        if normalized:
            arrays[f"{site}/normalized"] = images * 2 - 0.5
    np.savez_compressed(folder / "samples.npz", **arrays)


def page_of(out, *folders):
    text = write_report(folders, out / "report.html").read_text(encoding="utf-8")
    return Page(text)


def edit_result(folder, **changes):
    path = folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
