"""A report for the tests: some committed results and figures, a small store, and things that are wrong on purpose."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ddlib import ROOT

EXECUTED = "atom/accuracy"
"""The notebook that counts as executed."""

STALE = "datm/accuracy.quick"
"""The results that say that they come from a modified tree."""

DAMAGED = "dim/components.quick"
"""The results that are cut short."""

CELLS = {
    "ATOM": {"method": "atom", "iterations": 8, "batch_real": 4, "norm": "instance"},
    "Random": {"method": "random"},
}

SCRIPT = f"""
from ddlib import study
from ddlib.batch import cli
from ddlib.study.parameters import settings
told = {{"profile": "quick", "dataset": "digits", "reference_dataset": "cifar10", "ipcs": [1, 2], "seeds": [0],
         "methods": {CELLS!r}, "network": {{"width": 8, "depth": 2}}, "evaluation": {{"num_networks": 1, "epochs": 1}},
         "device": "cpu", "precision": "float32", "compiled": False, "budget_hours": None}}
workplace = study.Workplace("cpu", progress="none")
first, *others = study.cells(settings(told), paper="atom", table="main")
study.run([first], workplace)
for cell in others:
    study.synthetic_set(cell, 0, workplace)
raise SystemExit(cli.main(["report"]))
"""


def built(output: Path) -> tuple[Path, str]:
    """Make the report under `output` in a process of its own; its folder, and what the command printed."""
    for folder in ("results", "figures"):
        shutil.copytree(ROOT / folder / "atom", output / folder / "atom")
        for name in (STALE, DAMAGED):
            for path in (ROOT / folder).glob(f"{name}.*"):
                copy = output / path.relative_to(ROOT)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)
    executed = output / "runs" / "notebooks" / f"{EXECUTED}.quick.ipynb"
    executed.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / "notebooks" / f"{EXECUTED}.ipynb", executed)
    stale = output / "results" / f"{STALE}.json"
    records = json.loads(stale.read_text())
    records[0]["provenance"]["dirty"] = True
    stale.write_text(json.dumps(records))
    damaged = output / "results" / f"{DAMAGED}.json"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    told = {"DDLIB_OUTPUT": str(output), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=os.environ | told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output / "report", done.stdout
