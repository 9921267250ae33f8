"""Results of many runs as a few small files: what tables need, without the names of single images."""

import argparse
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harmofl.comparison.plan import Job

STORE = Path(__file__).parent / "results"
FILES = ("result.json", "cases.json", "rounds.jsonl")


def arguments(study: str, about: str | None, actions: Sequence[str]) -> argparse.Namespace:
    """What the command line of a study asks for; what `pack` kept of it is put back first."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=actions)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds the data sets")
    parser.add_argument("--out", type=Path, default=Path("runs") / study, help="where the run folders go")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--afresh", action="store_true", help="do not begin from benchmarks/results")
    asked = parser.parse_args()
    if not asked.afresh:
        unpack(study, asked.out)
    return asked


def is_done(folder: Path) -> bool:
    """Whether the run came to its end."""
    return all((folder / name).exists() for name in FILES)


def pack(study: str, jobs: Sequence[Job], out: Path) -> None:
    """Keep every finished run of a study, a file for each folder right under `out`."""
    by_folder: dict[str, dict[str, dict[str, str]]] = {}
    for job in jobs:
        found = by_folder.setdefault(job.folder.relative_to(out).parts[0], {})
        if is_done(job.folder):
            found[str(job.folder.relative_to(out))] = _kept(job.folder)
    STORE.mkdir(exist_ok=True)
    for name, done in by_folder.items():
        if not done:
            continue
        path = STORE / f"{study}-{name}.json.gz"
        with gzip.GzipFile(path, "wb", mtime=0) as file:
            file.write(json.dumps(done, sort_keys=True).encode())
        print(f"{name}: {len(done)} of {sum(job.folder.is_relative_to(out / name) for job in jobs)} runs in {path}")


def _kept(folder: Path) -> dict[str, str]:
    texts = {name: (folder / name).read_text() for name in FILES}
    cases = json.loads(texts["cases.json"])
    for table in cases.values():
        table["cases"] = list(map(str, range(len(table["cases"]))))
        table["scores"] = [round(score, 4) for score in table["scores"]]
    metric = json.loads(texts["result.json"])["main_metric"]
    records = "".join(
        f"{json.dumps(_record(json.loads(line), metric))}\n" for line in texts["rounds.jsonl"].splitlines()
    )
    return {**texts, "cases.json": json.dumps(cases), "rounds.jsonl": records}


def _record(record: dict[str, Any], metric: str) -> dict[str, Any]:
    """What tables need of a round."""
    costs = {key: record[key] for key in ("round", "seconds", "bytes_up", "bytes_down", "bytes_kept", "bytes_held")}
    val = {
        site: {metric: scores[metric] and round(scores[metric], 4)} for site, scores in record.get("val", {}).items()
    }
    return {**costs, "val": val}


def unpack(study: str, out: Path) -> None:
    """Put back what `pack` kept, where it is not there."""
    for path in STORE.glob(f"{study}-*.json.gz"):
        for folder, texts in json.loads(gzip.decompress(path.read_bytes())).items():
            if not (out / folder).exists():
                (out / folder).mkdir(parents=True)
                for name, text in texts.items():
                    (out / folder / name).write_text(text)
