"""Folders as compare leaves them, without a training."""

import json
from pathlib import Path


def write_comparison(folder: Path, scores: dict, **changes) -> Path:
    """Write results.json of a comparison.

    Args:
        folder: whose name is the data set's.
        scores: of each method, a NLL for each seed, or a dictionary of scores.
        changes: of the data or the settings.
    """
    seeds = max(len(own) for own in scores.values())
    settings = {"methods": list(scores), "members": 3, "epochs": 10, "hidden": [8], "seeds": seeds}
    data = {"name": folder.name, "task": "classification", "target": None}
    for name, value in changes.items():
        (data if name in ("name", "task", "target", "training_examples") else settings)[name] = (
            value
        )
    runs = [
        {"method": method, "seed": seed, "scores": own if isinstance(own, dict) else {"nll": own}}
        for method, values in scores.items()
        for seed, own in enumerate(values)
        if own is not None
    ]
    folder.mkdir(parents=True, exist_ok=True)
    content = {"settings": settings, "data": data, "runs": runs, "recipe": None}
    (folder / "results.json").write_text(json.dumps(content))
    return folder


def write_comparisons(folder: Path, by_method: dict, seeds: int = 2) -> list[Path]:
    """Write a comparison for each data set: ``by_method`` has a NLL of each method on each set.

    The seeds lie around it.
    """
    sets = len(next(iter(by_method.values())))
    return [
        write_comparison(
            folder / f"set{row}",
            {
                method: [values[row] + 0.01 * seed for seed in range(seeds)]
                for method, values in by_method.items()
            },
        )
        for row in range(sets)
    ]
