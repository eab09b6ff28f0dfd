"""Six networks, four libraries that offer BatchEnsemble: what each makes of each, as a page.

    python benchmarks/peers.py                         # writes docs/peers.md, about 5 minutes
    python benchmarks/peers.py --only batchensemble    # the others as measured last time

Needs no packages and no set-up: the libraries go into an environment of their own under runs/,
several GB where PyPI's torch brings CUDA (pip's own settings, such as PIP_EXTRA_INDEX_URL, apply).
One of them needs Python 3.12 or 3.13; the newest that is found is taken, or give --python.
"""

from __future__ import annotations

import argparse
import datetime
import inspect
import json
import os
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "runs" / "peers"
ENVIRONMENT = FOLDER / "venv"
PAGE = ROOT / "docs" / "peers.md"
MEASURE = Path(__file__).with_name("peers_measure.py")
PINS = ("torch==2.13.0", "torchvision==0.28.0")  # torchvision's build must fit torch's
NEEDED = ("torch==2.13.0", "transformers==5.23.0", "-e", str(ROOT))
PEERS = {
    "torch-uncertainty": "torch-uncertainty[cpu]==0.13.0",
    "tabm": "tabm==0.0.3",
    "probly": "probly==0.9.1",
}
SECONDS = 600  # for one measurement, imports included
CLOSE = 1e-5  # two answers that differ by less are the same

Found = dict[str, Any]


def main() -> None:
    """Set up, measure, write the page and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", help="the interpreter to make the environment with")
    parser.add_argument("--only", metavar="LIBRARY", help="measure this one anew, keep the rest")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write the page")
    arguments = parser.parse_args()
    python = set_up(arguments.python)
    if Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
        raise SystemExit(subprocess.call([python, __file__, *sys.argv[1:]]))
    show(measure_all(arguments.only), arguments.page)


def set_up(chosen: str | None) -> str:
    """Make the environment unless it is there as wanted; return its interpreter."""
    inside = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = FOLDER / "ready.json"
    wanted = [*NEEDED, *PINS, *PEERS.values(), (ROOT / "pyproject.toml").read_text()]
    before = json.loads(ready.read_text()) if inside.exists() and ready.exists() else {}
    if before.get("wanted") == wanted and chosen in (None, before.get("python")):
        return str(inside)
    python = chosen or find_python()
    print(f"Setting up {ENVIRONMENT.relative_to(ROOT)} with {python}, which takes minutes.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if chosen or not inside.exists():
        subprocess.run([python, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
    (FOLDER / "constraints.txt").write_text("\n".join(PINS))
    if problem := install(inside, *NEEDED):
        raise SystemExit(f"pip could not install {' '.join(NEEDED)}: {problem}")
    # One after the other, so that one that can't be installed leaves the others.
    problems = {name: install(inside, peer) for name, peer in PEERS.items()}
    failed = {name: problem for name, problem in problems.items() if problem}
    ready.write_text(json.dumps({"wanted": wanted, "python": python, "failed": failed}))
    return str(inside)


def install(python: Path, *requirements: str) -> str:
    """Install into the environment of ``python``; return pip's sentence where it failed."""
    command = [str(python), "-m", "pip", "install", "-q", "-c", str(FOLDER / "constraints.txt")]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    return lines[0].removeprefix("ERROR:").strip() if lines else f"pip ended {done.returncode}"


def find_python() -> str:
    """Return an interpreter of a version that all libraries take, or else this one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(map(str, pyenv.glob("3.1[23].*/bin/python")), reverse=True)
    code = "import sys; sys.exit(not (3, 12) <= sys.version_info < (3, 14))"
    for candidate in (sys.executable, "python3.13", "python3.12", *installed):
        try:
            if subprocess.run([candidate, "-c", code], capture_output=True).returncode == 0:
                return candidate
        except OSError:
            continue
    return sys.executable


def measure_all(only: str | None) -> dict[str, dict[str, Found]]:
    """Return what was found, by library and network, each pair in a process of its own."""
    from rich.progress import track

    from peers_measure import LIBRARIES
    from six_networks import NETWORKS

    kept = FOLDER / "results.json"
    failed = json.loads((FOLDER / "ready.json").read_text())["failed"]
    if only is not None and only not in LIBRARIES:
        raise SystemExit(f"--only takes one of {', '.join(LIBRARIES)}, got {only}")
    results = json.loads(kept.read_text()) if only and kept.exists() else {}
    pairs = [(library, network) for library in LIBRARIES for network in NETWORKS]
    for library, network in track(pairs, "measuring", transient=True):
        if library in failed:
            problem = {"errors": {"installing": failed[library]}}
            results.setdefault(library, {})[network] = problem
        elif only in (None, library) or network not in results.get(library, {}):
            results.setdefault(library, {})[network] = measure(library, network)
    kept.write_text(json.dumps(results, indent=1))
    return results


def measure(library: str, network: str) -> Found:
    """Measure one pair; a process that dies or hangs is a result, too."""
    command = [sys.executable, "-W", "ignore", str(MEASURE), library, network]
    # One thread: the networks are small, and more threads make their times noisier.
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, env=settings
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"errors": {"measuring": f"no answer within {SECONDS} s"}}
    except (IndexError, json.JSONDecodeError):
        lines = done.stderr.splitlines() or [f"the process ended with {done.returncode}"]
        return {"errors": {"measuring": lines[-1]}}


def verdict(found: Found) -> str:
    """Return what happened in a few words."""
    parts = []
    for doing, error in found.get("errors", {}).items():
        parts.append(f"error when {doing}: {shortened(error)}")
        break  # what follows is mostly the same error again
    if found.get("members in the output") is False:
        parts.append("no members in the output")
    if found.get("kept", 0) < found.get("tensors", 0):
        parts.append("drops weights")
    if "layers bent" in found and found["layers bent"] < found["layers"]:
        parts.append(f"converts {found['layers bent']} of {found['layers']} layers")
    if found.get("members mix"):
        parts.append("members mix")
    if found.get("members differ") is False:
        parts.append("members all alike")
    if "drops weights" not in parts and found.get("ones", 0.0) > CLOSE:
        parts.append("answers otherwise than the network")
    if found.get("member's difference", 0.0) > CLOSE or found.get("member") is False:
        parts.append("members taken out are wrong")
    return "; ".join(parts) or "works"


def shortened(sentence: str, length: int = 110) -> str:
    """Return the start of a sentence, fit for a cell."""
    return textwrap.shorten(sentence.replace("|", "/"), length, placeholder=" …")


def mixing(found: Found) -> str:
    """Return when one member's fast weights change another member's output."""
    if "members mix in training" not in found:
        return "-"
    if found["members mix"]:
        return "yes"
    return "in training" if found["members mix in training"] else "no"


def details(found: Found) -> list[str]:
    """Return one row of the table of measurements; what was not reached is a dash."""
    complete = found.get("layers bent") == found.get("layers")

    def number(key: str, form: str) -> str:
        return format(found[key], form) if key in found else "-"

    def same(key: str) -> str:
        if key not in found:
            return "-"
        return "same" if found[key] <= CLOSE else f"off by {found[key]:.2g}"

    member = {None: "none in docs", True: "yes", False: "no"}
    return [
        str(found.get("shape", "-")),
        f"{found['layers bent']} of {found['layers']}" if "layers bent" in found else "-",
        mixing(found),
        f"{found['kept']} of {found['tensors']}" if "kept" in found else "-",
        same("ones"),
        same("ones, copied by hand") if found.get("ones", 0.0) > CLOSE else "-",
        {True: "untouched", False: "changed"}.get(found.get("caller's network"), "-"),
        member[found["member"]] if "member" in found else "-",
        number("step over plain", ".2f") if complete else "-",
    ]


DETAILS = (
    "network",
    "library",
    "shape of the answer",
    "layers converted",
    "members mix",
    "weights and biases kept",
    "fast weights 1",
    "the same, weights copied by hand",
    "caller's network",
    "member as a plain network",
    "training step",
)


def show(results: dict[str, dict[str, Found]], page: Path) -> None:
    """Write the page and print its two tables."""
    from rich.console import Console
    from rich.table import Table

    from six_networks import NETWORKS

    titles = {name: title for name, (title, *_) in NETWORKS.items()}
    verdicts = [
        [title, *(verdict(found[name]) for found in results.values())]
        for name, title in titles.items()
    ]
    measured = [
        [title, library, *details(found[name])]
        for name, title in titles.items()
        for library, found in results.items()
    ]
    console = Console(width=140)
    for headings, rows in ((("", *results), verdicts), (DETAILS, measured)):
        table = Table(show_lines=True)
        for heading in headings:
            table.add_column(heading, no_wrap=heading in ("", "network", "library"))
        for row in rows:
            table.add_row(*row)
        console.print(table)
    text = TEXT.format(
        date=datetime.date.today().isoformat(),
        machine=f"Python {sys.version.split()[0]}, torch {version('torch')}, one thread",
        calls="\n\n".join(call(library) for library in results),
        verdicts=markdown(("", *(f"{name} {installed(name)}" for name in results)), verdicts),
        details=markdown(DETAILS, measured),
    )
    page.write_text(text, encoding="utf-8")
    console.print(f"written to {page}")


def installed(package: str) -> str:
    """Return the version of a package, or what pip was asked for where it failed."""
    try:
        return version(package)
    except ImportError:
        return PEERS[package].rpartition("=")[2]


def markdown(headings: tuple[str, ...], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def call(library: str) -> str:
    """Return how a library was called, taken from the code that called it."""
    from peers_measure import LIBRARIES, MEMBERS

    imports, rest = [], []
    for function, result in ((LIBRARIES[library].convert, "model"), (LIBRARIES[library].run, "y")):
        source = inspect.getsource(function).splitlines()
        start = next(i for i, line in enumerate(source) if line.lstrip().startswith("def "))
        for line in textwrap.dedent("\n".join(source[start + 1 :])).splitlines():
            if line and not line.startswith('"""'):
                line = line.replace("MEMBERS", str(MEMBERS)).replace("return ", f"{result} = ")
                (imports if line.startswith(("import ", "from ")) else rest).append(line)
    code = "\n".join([*imports, *rest])
    return f"{library} {installed(library)}:\n\n```python\n{code}\n```"


TEXT = """\
# The same six networks, four libraries

BatchEnsemble is not ours: other libraries offer it, too. This page gives the same six small
networks, with weights that stand in for trained ones, to each, calls it as its documentation says,
and tells what comes out. `benchmarks/peers.py` wrote all of it, the verdicts included:

```
python benchmarks/peers.py
```

Measured on {date} with {machine}.
The networks are in `benchmarks/six_networks.py`, the measurements in `benchmarks/peers_measure.py`.

## What happens

{verdicts}

- **works**: every layer that holds weights is converted, they are the network's own, every member
  can differ from the others, no member's fast weights act on another member, and with fast weights
  of 1 every member answers as the network did.
- **error**: the exception's class and its first line.
- **drops weights**: the converted layers start from weights drawn anew, so what the network had
  learnt is lost.
- **converts n of m layers**: only there can the members come to differ. Counted are the layers that
  own a matrix or a kernel and whose fast weights get a gradient for every member.

A question this table does not ask is how well the ensembles do once trained.

## How each was called

The network is `net` and a batch for it is `x`. These lines are the ones that were run.

{calls}

What their documentation says of it:

- torch-uncertainty converts `nn.Linear` and `nn.Conv2d` and says that other layers stay as they
  are; `BatchConv2d.from_conv2d` says that it discards the layer's parameters. `convert_layers` is
  off by default: the network is then one that was built from its layers.
- tabm offers the conversion for MLP-like models, by its own account without any guarantee; a model
  of several kinds of layers is outside what it promises. `EnsembleView` goes right before the first
  converted layer.
- probly replaces linear and convolutional layers; to keep the weights, its example says
  `use_base_weights=True`. It takes classifiers that answer with logits.

## What was measured

{details}

- *Shape of the answer*: for a batch of 8, four members and three classes.
- *Members mix*: whether bending one member changes what another answers, and whether it does so in
  training mode only, as where batch norm takes its statistics over the rows of all members.
- *Weights and biases kept*: of the layers that own a matrix or a kernel, those found in the
  ensemble by value, whole or cut into the projections or gates that they pack.
- *Fast weights 1*: they are set to 1, after which each member should answer as the network did; the
  largest difference, in evaluation mode. *Copied by hand*: the network's weights and biases are
  copied in first, for libraries that do not do it.
- *Caller's network*: whether the network that was passed in is as it was. Converting in place is a
  choice, not an error.
- *Member as a plain network*: whether one can be taken out as a network of the caller's own layers
  that answers as it does in the ensemble.
- *Training step*: forward, backward and an SGD step over those of the plain network on four times
  the batch (64 rows), the median of interleaved repetitions; only where all layers are converted.

## What the others do better

- [torch-uncertainty](https://torch-uncertainty.github.io) has many more methods (Packed-Ensembles,
  Masksembles, MC dropout, variational networks, SWAG, evidential losses and others), training and
  evaluation routines for classification, regression and segmentation on Lightning, data sets and
  metrics. It ships BatchEnsemble versions of ResNet, Wide ResNet, LeNet, InceptionTime and U-Net,
  and layers for 1-d and transposed convolutions to build others from.
- [tabm](https://github.com/yandex-research/tabm) is a model for tables with published results and
  default hyperparameters, and its documentation advises to try it before building a model of one's
  own. It also has ensembles of batch norm, layer norm and independent linear layers.
- [probly](https://pwhofman.github.io/probly) turns networks into more than twenty kinds of
  uncertain predictors, for PyTorch and, for some such as BatchEnsemble, Flax; it measures and
  splits uncertainty in many ways, credal sets and conformal prediction among them.
"""


if __name__ == "__main__":
    main()
