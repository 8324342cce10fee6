"""`ddlib report`: what the committed results and figures are worth."""

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    report = commands.add_parser("report", help="what the results and figures are worth")
    verbs = report.add_subparsers(title="verbs", required=True, metavar="VERB")
    stale = verbs.add_parser("stale", help="results and figures older than their code or parameters, and why")
    stale.set_defaults(command=_stale)


def _stale(told: argparse.Namespace) -> int:
    from ddlib import stale

    found = stale.findings()
    for finding in found:
        print(f"{finding.path}: {finding.reason}")
    print(f"{len({finding.path for finding in found})} of {len(stale.files())} results and figures are stale")
    return 1 if found else 0
