"""Run a suite of benchmarks and print its table."""

import os
import sys

os.environ.setdefault("POLARS_MAX_THREADS", "1")

from benchmarks import decide

SUITES = {"decide": decide.run}

if __name__ == "__main__":
    names = sys.argv[1:] or list(SUITES)
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        sys.exit(f"no suite {unknown[0]!r}; there are: {', '.join(SUITES)}")
    for name in names:
        SUITES[name]()
