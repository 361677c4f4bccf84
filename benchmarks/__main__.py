"""Run a suite: `make bench SUITE=state`. Tables are printed, and kept in `benchmarks/results/`."""

import importlib
import os
import sys

# One thread, as a worker has: set before polars is loaded.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

# Each is a module of this package with a function `run`, and takes less than 30 minutes.
SUITES = ("decide", "deliver", "latency", "questions", "recall", "recovery", "sendtime", "stages", "state")

if __name__ == "__main__":
    names = sys.argv[1:]
    if {"-h", "--help"} & {*names}:
        print(f"python -m benchmarks SUITE …, or make bench SUITE=SUITE; the suites: {', '.join(SUITES)}")
        sys.exit()
    unknown = [name for name in names if name not in SUITES]
    if unknown or not names:
        wrong = f"there is no suite {unknown[0]}" if unknown else "name a suite, SUITE=…"
        sys.exit(f"{wrong}; there are: {', '.join(SUITES)}")
    for name in names:
        importlib.import_module(f"benchmarks.{name}").run()
