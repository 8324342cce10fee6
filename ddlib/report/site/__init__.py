"""The report that people read in a browser: a static site of claims, papers, notebooks and pictures.

It is made from what is there: the papers' claims, the committed results and figures, and, where notebooks were run
here, the executed notebooks and the store.  Whatever is missing is marked as such.  Nothing is loaded from a network,
and every page opens from the file system.
"""

from ddlib.report.site.building import build

__all__ = ["build"]
