"""``python -m benchmarks [NAME ...] [--peers] [--rounds R] [--out DIR]``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

BENCHMARKS = {
    "score": "empirical score of B states against n points in d dimensions",
    "trajectory": "a whole backward trajectory of a point cloud",
    "ensemble": "many one-dimensional trajectories with a cheap exact score",
    "roots": "4096 critical times at once",
    "geometry": "Jacobian spectra of an empirical score at 100 times",
    "hierarchy": "belief propagation on a hierarchy of nine levels",
    "training": "training steps of U-Nets, and their parts",
}


def main(arguments: list[str]) -> int:
    """Run benchmarks and write one JSON file."""
    listing = "\n".join(f"  {name:12s} {text}" for name, text in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Ratios to measured floors and peers.\n\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--peers", action="store_true", help="also time numpy, torch and scipy")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--small", action="store_true", help="small shapes, to see that it runs")
    parser.add_argument("--out", default="runs/benchmarks", help="folder of the JSON file")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown benchmark {sorted(unknown)}; choose from {', '.join(BENCHMARKS)}")
    from benchmarks.timing import hardware, table

    results = []
    for name in options.names or BENCHMARKS:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"== {name}: {BENCHMARKS[name]} ==")
        for result in module.run(options.rounds, options.peers, options.small):
            print(table(result))
            results.append({"benchmark": name, **result})
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"environment": hardware(), "rounds": options.rounds, "results": results}
    path = folder / f"{record['environment']['device'].replace(' ', '-').lower()}.json"
    path.write_text(json.dumps(record, indent=2))
    print(f"wrote {path}")
    return 0


sys.exit(main(sys.argv[1:]))
