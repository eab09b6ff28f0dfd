"""Six networks, four libraries that offer BatchEnsemble: what each makes of each.

    python benchmarks/peers/page.py                         # about 5 minutes
    python benchmarks/peers/page.py --write                 # and into docs/peers.md
    python benchmarks/peers/page.py --only batchensemble    # the others as measured last time

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

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import ROOT, as_markdown, as_rich, keep, kept, write_texts

FOLDER = ROOT / "runs" / "peers"
ENVIRONMENT = FOLDER / "venv"
PAGE = ROOT / "docs" / "peers.md"
MEASURE = Path(__file__).with_name("measure.py")
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
    """Set up, measure, print the tables, and write the page if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", help="the interpreter to make the environment with")
    parser.add_argument("--only", metavar="LIBRARY", help="measure this one anew, keep the rest")
    parser.add_argument("--write", action="store_true", help="put what was found into the page")
    arguments = parser.parse_args()
    python = set_up(arguments.python)
    if Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
        raise SystemExit(subprocess.call([python, __file__, *sys.argv[1:]]))
    show(measure_all(arguments.only), write=arguments.write)


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

    from benchmarks.peers.libraries import LIBRARIES
    from benchmarks.peers.networks import NETWORKS

    file = FOLDER / "results.json"
    failed = json.loads((FOLDER / "ready.json").read_text())["failed"]
    if only is not None and only not in LIBRARIES:
        raise SystemExit(f"--only takes one of {', '.join(LIBRARIES)}, got {only}")
    results = (kept(file) if only else None) or {}
    pairs = [(library, network) for library in LIBRARIES for network in NETWORKS]
    for library, network in track(pairs, "measuring", transient=True):
        if library in failed:
            problem = {"errors": {"installing": failed[library]}}
            results.setdefault(library, {})[network] = problem
        elif only in (None, library) or network not in results.get(library, {}):
            results.setdefault(library, {})[network] = measure(library, network)
    keep(file, results)
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


def show(results: dict[str, dict[str, Found]], *, write: bool) -> None:
    """Print the two tables, and put all that was found into the page if asked."""
    from rich.console import Console

    from benchmarks.peers.networks import NETWORKS

    titles = {name: title for name, (title, *_) in NETWORKS.items()}
    verdicts = [["", *(f"{library} {installed(library)}" for library in results)]]
    verdicts += [
        [title, *(verdict(found[name]) for found in results.values())]
        for name, title in titles.items()
    ]
    measurements = [list(DETAILS)]
    measurements += [
        [title, library, *details(found[name])]
        for name, title in titles.items()
        for library, found in results.items()
    ]
    console = Console(width=140)
    tables = {"verdicts": verdicts, "measurements": measurements}
    for name, lines in tables.items():
        table = as_rich(name, lines, text_columns=len(lines[0]), ruled=True)
        for column in table.columns:
            column.no_wrap = column.header in ("", "network", "library")
        console.print(table)
    if write:
        texts = {
            name: as_markdown(lines, text_columns=len(lines[0])) for name, lines in tables.items()
        }
        texts["machine"] = (
            f"Measured on {datetime.date.today().isoformat()} with Python "
            f"{sys.version.split()[0]}, torch {version('torch')}, one thread."
        )
        texts["calls"] = "\n\n".join(call(library) for library in results)
        write_texts(PAGE, texts)
        console.print(f"wrote {PAGE.relative_to(ROOT)}")


def installed(package: str) -> str:
    """Return the version of a package, or what pip was asked for where it failed."""
    try:
        return version(package)
    except ImportError:
        return PEERS[package].rpartition("=")[2]


def call(library: str) -> str:
    """Return how a library was called, taken from the code that called it."""
    from benchmarks.peers.libraries import LIBRARIES, MEMBERS

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


if __name__ == "__main__":
    main()
