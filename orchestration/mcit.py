"""The console command `mcit`: every command of the project by a short name, its arguments passed on as they are."""

from __future__ import annotations

import importlib
import sys

from mcit_core.registry import near

#: name -> (its module, what it does); `python -m MODULE` is the same command
COMMANDS = {
    "sweep": ("orchestration.sweep", "train a sweep: a file, or a shipped one by its name, for example threshold"),
    "run": ("mcit_core.run", "train one sequence in one process, without Ray"),
    "methods": ("mcit_core.methods", "say what every method trains, protects and keeps"),
    "import_results": ("orchestration.import_results", "make a RUN of results that another repository has written"),
    "report": ("orchestration.report.__main__", "write the report of a RUN again, or one of several RUNs together"),
    "figures": (
        "orchestration.figures",
        "write every figure of a RUN as SVG, PDF, PNG and CSV, the paper's with them",
    ),
    "best": ("orchestration.best", "pick a setting of a finished sweep, and print the experiment to go on with"),
    "results": ("orchestration.results.__main__", "ask the tables of a RUN in SQL; say what every column is"),
    "export": ("orchestration.export", "write what a stage has trained as an adapter folder of peft"),
    "store": ("orchestration.store", "look after finished stages: list, verify, explain, gc"),
    "track": ("orchestration.track", "bring MLflow up to date from a RUN's Parquet files"),
}


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}s}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(("usage: mcit COMMAND ...", "", *lines, "", "`mcit COMMAND --help` says more of each."))


def main() -> int:
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name not in COMMANDS:
        names = list(COMMANDS)
        expected = f"expected one of {', '.join(names)}{near(name, names)}"
        print(f"mcit: there is no command {name!r}; {expected}", file=sys.stderr)
        return 2
    module = COMMANDS[name][0]
    sys.argv = [f"python -m {module}", *rest]  # where each command reads its arguments
    # loaded only now: some of them bring torch or Ray
    return int(importlib.import_module(module).main())


if __name__ == "__main__":
    sys.exit(main())
