"""What a piece of work takes on this device: time, memory and disk, from a few real steps of its kind.

A piece is an artefact that is made beforehand, one distillation, or the evaluation of one seed.  Its steps are taken at
their real size.  What differs in its number of steps alone, or has the same rehearsal, is of one kind, and a kind is
probed once a process.
"""

from ddlib.study.estimate.judging import judging_of
from ddlib.study.estimate.kinds import Estimate
from ddlib.study.estimate.making import distillation, prerequisite
from ddlib.study.estimate.pace import Pace, typical

__all__ = ["Estimate", "Pace", "distillation", "judging_of", "prerequisite", "typical"]
