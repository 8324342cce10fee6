"""The report that people read in a browser: a static site of claims, papers, notebooks and pictures.

`runs` gathers every notebook at every profile with its results, `claims` says what these tell of the papers' claims,
`gallery` pictures the synthetic sets of the store, `notebook` turns notebooks into HTML, and `pages` writes it all.
What is missing is marked as such.  Nothing is loaded from a network, and every page opens from the file system.
"""

from ddlib.report.site.pages import build

__all__ = ["build"]
