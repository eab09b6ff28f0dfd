"""The scripts: each says what it does when asked for help."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAIN = 'if __name__ == "__main__":'
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "benchmarks").rglob("*.py")
    if MAIN in path.read_text(encoding="utf-8")
)

# All in one process, which imports torch once; each finds its folder first, as python puts it.
HELP = """
import contextlib, io, json, pathlib, runpy, sys
found = {}
for script in sys.argv[1:]:
    sys.argv, sys.path[0] = [script, "--help"], str(pathlib.Path(script).resolve().parent)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            printed.write(f"ended with {end.code}")
    found[script] = printed.getvalue()
print(json.dumps(found))
"""


def test_every_script_says_what_it_does_when_asked_for_help():
    command = [sys.executable, "-W", "ignore", "-c", HELP, *SCRIPTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == set(SCRIPTS)
    for name, printed in found.items():
        assert printed.startswith("usage: "), name
        assert printed.endswith("ended with 0"), name
