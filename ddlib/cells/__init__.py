"""What a study computes: the cells of a paper's table, each a method, a data set and an evaluation."""

from ddlib.cells.cell import Cell
from ddlib.cells.departures import deviations
from ddlib.cells.rows import cells, fingerprint

__all__ = ["Cell", "cells", "deviations", "fingerprint"]
