"""Every table, plot and image grid, in one style, drawn from records and synthetic sets alone.

Nothing global changes: figures are objects, the style holds while they are drawn, and none stays open.  The same
data give the same bytes.
"""

from ddlib.report.budget import budget_table
from ddlib.report.continual import accuracy_against_classes, continual_table
from ddlib.report.costs import cost_lines
from ddlib.report.courses import courses, loss_against_start, loss_reduction, metric_panels
from ddlib.report.curves import (
    accuracy_against_iterations,
    accuracy_against_redraw,
    accuracy_against_size,
    accuracy_curves,
)
from ddlib.report.effects import effects, term_norms
from ddlib.report.figures import accuracy_bars
from ddlib.report.generated import interpolation, neighbours
from ddlib.report.images import image_grid, image_panels, image_strips
from ddlib.report.leaderboard import leaderboard, standings
from ddlib.report.maps import attention_maps
from ddlib.report.measured import agreement_table, cost_table
from ddlib.report.sampling import course_over_steps, gradient_norms
from ddlib.report.saving import LIMIT, read_provenance, save
from ddlib.report.scoring import score_table
from ddlib.report.searching import (
    correlation_bars,
    correlation_table,
    proxy_scatter,
    reported_search_table,
    search_table,
)
from ddlib.report.steps import step_lines, step_table
from ddlib.report.style import PALETTE, STYLE, Picture, footer
from ddlib.report.tables import Table, claims_table, table, unseen_table
from ddlib.report.trade import accuracy_across_networks, accuracy_against_bytes, accuracy_against_seconds

__all__ = [
    "LIMIT",
    "PALETTE",
    "STYLE",
    "Picture",
    "Table",
    "accuracy_across_networks",
    "accuracy_against_bytes",
    "accuracy_against_classes",
    "accuracy_against_iterations",
    "accuracy_against_redraw",
    "accuracy_against_seconds",
    "accuracy_against_size",
    "accuracy_bars",
    "accuracy_curves",
    "agreement_table",
    "attention_maps",
    "budget_table",
    "claims_table",
    "continual_table",
    "correlation_bars",
    "correlation_table",
    "cost_lines",
    "cost_table",
    "course_over_steps",
    "courses",
    "effects",
    "footer",
    "gradient_norms",
    "image_grid",
    "image_panels",
    "image_strips",
    "interpolation",
    "leaderboard",
    "loss_against_start",
    "loss_reduction",
    "metric_panels",
    "neighbours",
    "proxy_scatter",
    "read_provenance",
    "reported_search_table",
    "save",
    "score_table",
    "search_table",
    "step_lines",
    "step_table",
    "standings",
    "table",
    "term_norms",
    "unseen_table",
]
