"""Every table, plot and image grid, in one style, drawn from records and synthetic sets alone.

Nothing global changes: figures are objects, the style holds while they are drawn, and none stays open.  The same
data give the same bytes.
"""

from ddlib.report.budget import budget_table
from ddlib.report.costs import cost_lines
from ddlib.report.courses import courses, loss_against_start, loss_reduction, metric_panels
from ddlib.report.curves import (
    accuracy_against_iterations,
    accuracy_against_redraw,
    accuracy_against_size,
    accuracy_curves,
)
from ddlib.report.figures import accuracy_bars
from ddlib.report.generated import interpolation, neighbours
from ddlib.report.images import image_grid, image_panels, image_strips
from ddlib.report.maps import attention_maps
from ddlib.report.measured import agreement_table, cost_table
from ddlib.report.sampling import course_over_steps, gradient_norms
from ddlib.report.saving import LIMIT, read_provenance, save
from ddlib.report.scoring import score_table
from ddlib.report.style import PALETTE, STYLE, Picture, footer
from ddlib.report.tables import Table, claims_table, table, unseen_table

__all__ = [
    "LIMIT",
    "PALETTE",
    "STYLE",
    "Picture",
    "Table",
    "accuracy_against_iterations",
    "accuracy_against_redraw",
    "accuracy_against_size",
    "accuracy_bars",
    "accuracy_curves",
    "agreement_table",
    "attention_maps",
    "budget_table",
    "claims_table",
    "cost_lines",
    "cost_table",
    "course_over_steps",
    "courses",
    "footer",
    "gradient_norms",
    "image_grid",
    "image_panels",
    "image_strips",
    "interpolation",
    "loss_against_start",
    "loss_reduction",
    "metric_panels",
    "neighbours",
    "read_provenance",
    "save",
    "score_table",
    "table",
    "unseen_table",
]
