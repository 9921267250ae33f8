"""Status of a federation, read from the server's folder."""

from pathlib import Path

from harmofl.deployment.folders import WAITING, ServerFolder
from harmofl.experiment.config import load_experiment
from harmofl.experiment.run_dir import RunDir


def read_status(folder: Path) -> list[str]:
    """Return lines on the progress of a federation from the records of its server.

    Raises:
        ConfigError: if `folder` is no server's folder.
        RunError: if the records are damaged.
    """
    place, run = ServerFolder.open(folder), folder / "run"
    waiting = (folder / WAITING).read_text(encoding="utf-8") if (folder / WAITING).exists() else ""
    if not (run / "config.toml").exists():
        return [f"no round yet; {waiting or 'waiting for ' + ', '.join(sorted(place.keys))}"]
    run_dir = RunDir.open(run)
    records, total = run_dir.records(), load_experiment(run / "config.toml", {}).training.rounds
    if not records:
        return [waiting or f"round 1 of {total} is under way"]
    done, last = (run / "result.json").exists(), records[-1]
    end = ", finished" if done else ", the chosen model is being tested" if last["round"] == total else ""
    lines = [f"round {last['round']} of {total}{end}; {last['seconds']:.1f} s", *filter(None, [waiting])]
    for name in sorted(place.keys):
        rounds = [record["round"] for record in records if name in record["train_loss"]]
        part = f"last in round {rounds[-1]}, in {len(rounds)} of {last['round']}" if rounds else "never yet"
        why = last["left_out"].get(name)
        lines.append(f"{name}: {part}" + (f"; left out: {why}" if why else ""))
    best = next((record for record in reversed(records) if record["best"]), None)
    if best:
        metric = load_experiment(run / "config.toml", {}).evaluation.metric
        scores = ", ".join(
            f"{name} {values[metric]:.3f}" for name, values in best["val"].items() if values[metric] is not None
        )
        lines.append(f"best: round {best['round']}, {metric} on validation images: {scores}")
    return lines
