"""Reading the tables of a RUN."""

from __future__ import annotations

import subprocess
import sys

from tests.support.places import ROOT

READ = "import sys, pathlib; from orchestration.keep.tables import read_rows; read_rows(pathlib.Path(sys.argv[1]))"


def test_a_process_that_has_read_a_table_ends_well() -> None:
    """One of pyarrow's threads was left over now and then at the end, and aborted the process (two runs of three)."""
    command = [sys.executable, "-c", READ, str(ROOT / "docs" / "data" / "search_fresh" / "trials.parquet")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(24)]
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert ends == [(b"", 0)] * len(ends)
