"""How long a user waits before anything happens: importing the package, and the command line's help.

Budget: 0.15 s for ``import medrecon`` beyond the interpreter itself, 0.5 s for ``medrecon --help``. Medians of fresh processes.

    python benchmarks/startup.py [--json FILE]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks._report import parser, show

RUNS = 9
CASES = {
    "python itself": ([sys.executable, "-c", "pass"], None),
    "import medrecon": ([sys.executable, "-c", "import medrecon"], 0.15),
    "medrecon --help": ([sys.executable, "-m", "medrecon", "--help"], 0.5),
    "medrecon explain DCM-GAP": ([sys.executable, "-m", "medrecon", "explain", "DCM-GAP"], None),
    "import torch (for comparison)": ([sys.executable, "-c", "import torch"], None),
}


def seconds(command: list[str]) -> float:
    """Median wall time of a command in fresh processes, after one warm-up."""
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Time every case and say whether it keeps its budget, the interpreter's own start taken off for the import."""
    arguments = parser(__doc__).parse_args()
    measured = {name: seconds(command) for name, (command, _) in CASES.items()}
    bare = measured["python itself"]
    rows = []
    for name, (_, budget) in CASES.items():
        own = measured[name] - (bare if name.startswith("import") else 0.0)
        rows.append(
            {
                "what": name,
                "seconds": measured[name],
                "beyond python": measured[name] - bare,
                "budget s": budget or "",
                "kept": "" if budget is None else own <= budget,
            }
        )
    show("Start-up", rows, arguments.json)


if __name__ == "__main__":
    main()
