"""What a finished trial costs the driver: `python tests/speed/driver.py --trials 500`.

Runs the real command on so many trials of one task that all share one stage (a threshold that a first stage does not
depend on), so that nearly all of the time is the driver's own, and prints its resident memory and the seconds so far as
trials end. Memory should stay where it is, and the time of the trials be a straight line.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SWEEP = """\
name: many
benchmark: mini
tasks: [attribute]
model: mini
method: fwd_prompt
base: {{train.steps: 1, train.batch_size: 1, projection.mode: residual}}
axes:
  projection.task_energy: {values}
references: []
resources: {{workers: 2}}
"""


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    count = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "many.yaml"
        file.write_text(SWEEP.format(values=[round(0.5 + 0.49 * i / count, 6) for i in range(count)]))
        command = [sys.executable, "-u", "-m", "orchestration.sweep", str(file), "--storage", f"{folder}/runs"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout
        begun, first, peak, told = time.monotonic(), 0.0, 0.0, -1
        print(f"{'trials':>8}{'MiB':>8}{'seconds':>10}")
        for line in process.stdout:
            found = re.search(r"trials (\d+) done", line)
            if not found or process.poll() is not None:
                continue
            done, now = int(found[1]), resident(process.pid)
            if done and not first:
                first = now
            peak = max(peak, now)
            if done // max(1, count // 10) > told:
                told = done // max(1, count // 10)
                print(f"{done:8}{now:8.0f}{time.monotonic() - begun:10.1f}", flush=True)
        code = process.wait()
        runs = sum(path.stat().st_size for path in (Path(folder) / "runs" / "many").rglob("*") if path.is_file())
    print(
        f"exit code {code}; growth {peak - first:.0f} MiB from the first finished trial on; RUN {runs / 2**20:.1f} MiB"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
