"""Every benchmark once on a device, at the papers' shapes: seconds, and their ratio to the plain reference.

python -m benchmarks [--device cuda] [--quick] [--seconds 120] [--out FOLDER]
"""

import argparse
import re
import time
from pathlib import Path

from benchmarks import (
    attention_matching,
    evaluation,
    experts,
    generative_matching,
    gradient_matching,
    harness,
    latent_distillation,
    trajectory_matching,
)
from ddlib.store import files
from ddlib.store.provenance import provenance

RUNS = (
    (evaluation, "--ipc 1 10 --width 128 --only float32 bfloat16", "--quick"),
    (experts, "--experts 5 --images 5000 --only float32 at_once", "--quick --optimizer gsam"),
    (gradient_matching, "", "--ipc 1 --width 4"),
    (attention_matching, "--method dm datadam atom --norm batch --ipc 10 --only float32 bfloat16",
     "--norm instance --ipc 2 --width 4 --only float32"),
    (trajectory_matching, "--steps 10 --only all none", "--steps 2 --batch 4 --width 4 --only none"),
    (latent_distillation, "--steps 10 --only exact", "--steps 2 --width 16 --factor 4 --batch-real 2 --only exact"),
    (generative_matching, "--pool convnet --only float32", "--width 4 --batch 4 --pool convnet --only float32"),
)  # fmt: skip
"""Benchmark, its words, and those with --quick."""


def main(words: list[str] | None = None) -> None:
    """Run what fits into the seconds; the files are written after each benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that all of them run")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="none is begun after so many")
    parser.add_argument("--out", type=Path, help="folder of the rows and of a page with their table")
    options = parser.parse_args(words)
    end = time.monotonic() + options.seconds
    for module, full, quick in RUNS:
        name = module.__name__.partition(".")[2]
        if time.monotonic() > end:
            print(f"{name}: left out, no time is left", flush=True)
            continue
        turns = [] if options.quick and "--quick" in quick else ["--repeats", "1" if options.quick else "3"]
        try:
            module.main([*(quick if options.quick else full).split(), *turns, "--device", options.device])
        except (SystemExit, RuntimeError, ValueError) as error:
            print(f"{name}: not timed: {error}", flush=True)
        if options.out:
            keep(options.out, options.device)


def keep(folder: Path, device: str) -> None:
    """Write what was timed, and where: as JSON, and as a page with a table."""
    origin = provenance(device)
    lines = [f"{origin['device']}, {origin['date']}, commit {origin['commit']}:", ""]
    lines += ["| benchmark | case | side | ms | of the reference |", "|---|---|---|---|---|"]
    for row in harness.ROWS:
        names = " | ".join(row[name].replace("_", " ") for name in ("benchmark", "case", "side"))
        lines.append(f"| {names} | {1e3 * row['seconds']:.3g} | {row['ratio']:.2f} |")
    place = folder / re.sub(r"\W+", "-", origin["device"].lower())
    files.write_json(place.with_suffix(".json"), {"provenance": origin, "benchmarks": harness.ROWS})
    files.write_whole(place.with_suffix(".md"), ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
