"""Dataset distillation: the methods of four papers, one evaluation, and the records of what they reach.

The rooms, each importing only those before it: seeding, models, store, data, results, pretraining, methods, evaluation,
study, analyses, report, export, batch.  `ddlib.methods` states what a method is.
"""

import os
from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parents[1]
"""The repository; what is relative in a parameter or an environment variable lies in it, wherever one works."""

OUTPUT = ROOT / Path(os.environ.get("DDLIB_OUTPUT", "")).expanduser()
"""`results/` and `figures/` are written under it: the repository, or `DDLIB_OUTPUT` for a run that is only a check."""

PROFILES = ("quick", "hour", "paper")
"""The budgets that a notebook is run at: its own literals, and the files of `params/`."""
