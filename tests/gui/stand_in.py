"""A child that behaves as `medrecon run` does and costs nothing: it hands out a result that was made before.

python stand_in.py RESULT OUT SECONDS
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path


def main(result: Path, out: Path, seconds: float) -> None:
    """Tell progress for some seconds, a half-written file lying there, and then put the result in its place."""
    target = out / result.name
    target.mkdir(parents=True)
    half = target / "volume.nii.gz.part"
    half.write_bytes(b"half")
    for step in range(20):
        tell({"event": "progress", "stage": "reconstruct", "fraction": step / 20, "elapsed_s": step, "remaining_s": 20 - step})
        time.sleep(seconds / 20)
    half.unlink()
    shutil.copytree(result, target, dirs_exist_ok=True)
    tell({"event": "done", "verdict": "ok", "outputs": {"run": str(target / "run.json")}})


def tell(event: dict[str, object]) -> None:
    """Write one line at once."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
