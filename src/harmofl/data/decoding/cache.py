"""A cache folder of decoded sites, which are memory-mapped instead of decoded when a site is opened again."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harmofl.data.decoding.assembly import Arrays, Built
from harmofl.data.decoding.growing_arrays import FileRows
from harmofl.data.layout.site_files import SiteFiles
from harmofl.data.manifest import SPLITS, FederationInfo
from harmofl.errors import StorageError
from harmofl.utils.mapped_files import mapped_array

_VERSION = 4  # increase it when decoding changes


def cached(
    cache: Path,
    site: SiteFiles,
    info: FederationInfo,
    build: Callable[[Callable[[str], FileRows]], Built],
) -> Built:
    """Return the site's arrays, memory-mapped read-only, from the cache or else from `build`.

    The key of an entry is a hash of the records, the sizes and times of the files, and the settings of decoding. A new
    entry is written to a temporary folder and renamed, so that an interruption leaves no incomplete entry.

    Raises:
        StorageError: if the cache folder cannot be written, or its files cannot be mapped.
    """
    entry = cache / _key(site, info)
    kinds = ("images", "targets", "shapes") if info.volumes else ("images", "targets")
    if (arrays := _load(entry, kinds)) is not None:
        return arrays, []
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="partial-", ignore_cleanup_errors=True) as name:
            partial = Path(name)
            arrays, problems = build(lambda rows: FileRows(partial / f"{rows}.npy"))
            if not problems:
                _publish(partial, entry, arrays, kinds)
            return arrays, problems
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(
            f"{cache}: cannot keep decoded images ({reason}); free space or go without a cache"
        ) from error


def _publish(partial: Path, entry: Path, arrays: dict[str, Arrays], kinds: Sequence[str]) -> None:
    """Complete the entry and rename it, unless another process was first; the mapped files stay valid."""
    cases = {split: parts[2] for split, parts in arrays.items()}
    (partial / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    if _load(entry, kinds) is None:
        shutil.rmtree(entry, ignore_errors=True)
        partial.replace(entry)


def _load(entry: Path, kinds: Sequence[str]) -> dict[str, Arrays] | None:
    """Map an entry with arrays of these kinds into memory, or return None if it is missing or damaged.

    Raises:
        StorageError: if the system cannot map it.
    """
    try:
        cases = json.loads((entry / "cases.json").read_text(encoding="utf-8"))
        found = {name: [mapped_array(entry / f"{name}-{kind}.npy") for kind in kinds] for name in SPLITS}
        return {name: (parts[0], parts[1], tuple(cases[name]), *parts[2:]) for name, parts in found.items()}
    except StorageError:
        raise
    except (OSError, EOFError, ValueError, KeyError):  # EOFError: numpy's, for an empty .npy
        return None


def _key(site: SiteFiles, info: FederationInfo) -> str:
    """Return a hash of all inputs of the decoded arrays."""
    names = {record.image for record in site.records}
    if info.task == "segmentation":
        names |= {record.target for record in site.records}
    folder = str(site.folder)
    stats = [(name, os.stat(f"{folder}/{name}")) for name in sorted(names)]  # noqa: PTH116  twice as fast as Path.stat
    source = {
        "version": _VERSION,
        "folder": str(site.folder.resolve()),
        "records": [record.row() for record in site.records],
        "files": [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
        "decoding": [info.task, info.classes, info.channels, info.size, info.slices],
        **({} if info.levels == "rounded" else {"levels": info.levels}),
        "values": info.values,
        **({"volumes": info.volumes.preprocessing()} if info.volumes else {}),
    }
    return hashlib.sha256(json.dumps(source).encode()).hexdigest()[:32]
