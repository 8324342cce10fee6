"""The README's claims and the pages' results are those of `results/`, links lead somewhere, and commands exist.

python tests/test_readme.py    # writes both tables anew
"""

import collections
import functools
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from scipy import stats

from ddlib import ROOT, methods, results, study
from ddlib.analyses import judge
from ddlib.data import datasets
from ddlib.evaluation import Protocol
from ddlib.report import evidence
from ddlib.results.statistics import Comparison
from ddlib.study.parameters import PROFILES

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
MARKS = "<!-- {}: begin -->", "<!-- {}: end -->"
PAPERS = {"datm": "DATM", "dim": "DiM", "ld3m": "LD3M", "atom": "ATOM"}


def claims_table() -> str:
    """How many claims of the four papers come out how, and each with what the committed results say of it, in Markdown.

    A row, and then a column, for each profile at which there are results.
    """
    runs = [evidence.read_run(path) for path in sorted((ROOT / "results").glob("*/*.json"))]
    profiles = [profile for profile in PROFILES if any(run.profile == profile for run in runs)]
    verdicts = [verdict for paper in PAPERS for verdict in evidence.verdicts(paper, runs)]
    lines = ["| | hold | fail | undecided | not tested |", "|---" * 5 + "|"]
    for profile in profiles:
        counts = collections.Counter(outcome(verdict, profile) for verdict in verdicts)
        numbers = (str(counts[name]) for name in ("holds", "fails", "undecided", "not tested"))
        lines.append(f"| `{profile}`, of {len(verdicts)} | {' | '.join(numbers)} |")
    lines += ["", "<details><summary>Each claim, and the notebooks that test it</summary>", ""]
    lines += [f"| paper | claim | {' | '.join(f'`{name}`' for name in profiles)} |", "|---" * (2 + len(profiles)) + "|"]
    for paper, title in PAPERS.items():
        for verdict in evidence.verdicts(paper, runs):
            mark = " *(unverified)*" if verdict.claim.unverified else ""
            found = [outcomes(verdict, profile) for profile in profiles]
            lines.append(f"| {title} | {verdict.claim.statement}{mark} | {' | '.join(found)} |")
    return "\n".join([*lines, "", "</details>"])


def outcome(verdict: evidence.Verdict, profile: str) -> str:
    """Of a claim at one profile: "fails" where it fails in one notebook, "holds" where it does in all that test it."""
    found = {check.outcome for run, check in verdict.evidence if run.profile == profile}
    if len(found) < 2:
        return next(iter(found), "not tested")
    return "fails" if "fails" in found else "undecided"


def outcomes(verdict: evidence.Verdict, profile: str) -> str:
    """What the notebooks say of a claim at one profile: outcome by outcome, each with the notebooks that say so.

    Reduced rows are marked as such: they tell of their setting alone.
    """
    said = {}
    for run, check in verdict.evidence:
        reduced = " with reduced rows" if any(" against " in test.where for test in check.tests) else ""
        said.setdefault((run.profile, f"**{check.outcome}**{reduced}"), []).append(run)
    for run, word, _ in verdict.gaps:
        said.setdefault((run.profile, word), []).append(run)
    links = {
        outcome: ", ".join(dict.fromkeys(f"[{run.name}](notebooks/{run.notebook}.ipynb)" for run in runs))
        for (where, outcome), runs in said.items()
        if where == profile
    }
    return "; ".join(f"{outcome} ({where})" for outcome, where in links.items()) or verdict.untested


def open_table() -> str:
    """Every comparison at `hour` that decides nothing, as a table in Markdown.

    Below it, those undecided claims of which all these differences are small: more sets would say little there.
    """
    runs = [evidence.read_run(path) for path in sorted((ROOT / "results").glob("*/*.hour.json"))]
    lines, undecided, small = ["| claim | where | difference | would tell |", "|---|---|---|---|"], 0, []
    for paper, title in PAPERS.items():
        for verdict in evidence.verdicts(paper, runs):
            claim, tests = f"{title}: {verdict.claim.statement}", open_tests(verdict)
            for run, where, found in tests:
                link = f"[{run.name}](../notebooks/{run.notebook}.ipynb)"
                difference = f"{found.difference:+.1f} ± {(found.high - found.low) / 2:.1f}"
                lines.append(f"| {claim} | {where} ({link}) | {difference} | {more(found)} |")
            if outcome(verdict, "hour") == "undecided":
                undecided += 1
                small += [f"- {claim}"] if all(max(-found.low, found.high) < 2 for *_, found in tests) else []
    head = f"Of {undecided} claims that are undecided, {len(small)} have all these intervals within 2 points of none:"
    return "\n".join([*lines, "", head, "", *small])


def open_tests(verdict: evidence.Verdict) -> list[tuple[evidence.Run, str, Comparison]]:
    """The comparisons of a claim that decide nothing, where it is undecided: run, where, comparison."""
    checks = [(run, check) for run, check in verdict.evidence if check.outcome == "undecided"]
    return [
        (r, test.where, test.comparison) for r, check in checks for test in check.tests if test.outcome == "undecided"
    ]


def more(found: Comparison) -> str:
    """How many times as many sets would tell a difference from none, if it and their spread stayed as they are.

    Of a measurement the interval alone is known, which is over its networks and searches.
    """
    if math.isnan(found.error):
        times = math.ceil(((found.high - found.low) / 2 / found.difference) ** 2)
        return f"about {times} times as many networks and searches"
    for times in range(2, 21):
        if stats.t.ppf(0.975, times * (found.df + 1) - 1) * found.error / times**0.5 < abs(found.difference):
            return f"{times} times as many sets"
    return "more than 20 times as many sets"


def hours_table() -> str:
    """Hours of computation at `hour`, table by table, in Markdown; what several have is counted in the first."""
    kinds, whole, counted, before = ("distilled", "tested", "beforehand"), collections.Counter(), set(), []
    lines = ["| table | distilled | tested | trained beforehand |", "|---|---|---|---|"]
    for path in sorted((ROOT / "results").glob("*/*hour.json")):
        spent = collections.Counter()
        for record in [] if results.read_measurements(path) else results.read(path):
            for kind, names, seconds in parts(record):
                both = kind == "beforehand" and round(seconds) in {
                    round(a + b) for a, b in itertools.combinations(before, 2)
                }
                if counted.isdisjoint(names) and not both:  # experts and a prior, which other rows have one by one
                    spent[kind] += seconds / 3600
                    before += [seconds] if kind == "beforehand" else []
                counted |= names
        if spent:
            name = f"{path.parent.name}/{path.name.removesuffix('.json')}"
            lines.append(f"| {name} | {' | '.join(f'{spent[kind]:.1f}' for kind in kinds)} |")
        whole.update(spent)
    return "\n".join([*lines, f"| all | {' | '.join(f'{whole[kind]:.1f}' for kind in kinds)} |"])


def parts(record: results.Record) -> Iterator[tuple[str, set[str], float]]:
    """What went into a record, as (kind, its names, seconds), each seed's set and its evaluation by itself.

    Rows have one and the same where a name is the same: the settings, or the seconds to the hundredth.
    """
    settings = {k: v for k, v in record.cell.items() if k not in ("protocol", "seeds", "tested_on")}
    cost, seeds = record.cost, record.cell["seeds"] if record.n else ()
    for seed in seeds:
        made = json.dumps([record.dataset, record.method, record.ipc, settings, seed], sort_keys=True)
        took = f"{record.method} {seed} {cost['distil_seconds']}"  # of a generator at each number of images
        yield "distilled", {made, took}, cost["distil_seconds"] / len(seeds)
        tested = made + json.dumps(record.cell["protocol"], sort_keys=True)
        yield "tested", {tested}, cost["evaluate_seconds"] / len(seeds)
    for name in ("prerequisite_seconds", "teacher_seconds"):
        yield "beforehand", {f"beforehand {cost.get(name)}"}, cost.get(name) or 0.0


def between(text: str, what: str) -> str:
    """What stands between the marks of a table."""
    begin, end = (mark.format(what) for mark in MARKS)
    return text.split(begin)[1].split(end)[0].strip()


def results_table() -> str:
    """Every record under `results/` at a profile that the papers can be compared with, as a table in Markdown."""
    lines = [
        "| table, data, images per class | method | reported | ours (networks) | verdict |",
        "|---|---|---|---|---|",
    ]
    for path in sorted((ROOT / "results").glob("*/*.json")):
        if not path.name.endswith(".quick.json") and results.read_measurements(path) is None:
            name = f"{path.parent.name}/{path.name.removesuffix('.json')}"
            lines += [f"| {name}, {line(record)}" for record in results.read(path) if record.n]
    return "\n".join(lines)


def line(record: results.Record) -> str:
    """One record as the rest of a row."""
    reference = record.reference
    theirs = "-" if reference is None else "not found"
    if reference is not None and reference.value is not None:
        marks = [f"of {reference.dataset}"] if reference.dataset != record.dataset else []
        marks += ["unverified"] if reference.unverified else []
        theirs = f"{reference.value:.1f}" + (f" ({', '.join(marks)})" if marks else "")
    ours = f"{record.accuracy_mean:.1f} ± {record.accuracy_std:.1f} ({record.n})"
    method = record.label if record.network == "convnet" else f"{record.label}, tested on {record.network}"
    return f"{record.dataset}, {record.ipc or 'all'} | {method} | {theirs} | {ours} | `{record.verdict}` |"


def test_the_tables_are_those_of_the_records():
    changed = ["git", "-C", str(ROOT), "status", "--porcelain", "--", "results", "README.md", "docs/results.md"]
    touched = subprocess.run(changed, capture_output=True, text=True).stdout
    if "results/" in touched and ".md" not in touched:
        pytest.skip("results were made anew here, as `make reproduce` does; the pages are of the committed ones")
    told = "write the tables anew: python tests/test_readme.py"
    assert between(RESULTS, "results") == results_table(), told
    assert between(RESULTS, "open") == open_table(), told
    assert between(RESULTS, "hours") == hours_table(), told
    assert between(README, "claims") == claims_table(), told
    assert sorted(PAPERS) == sorted(results.papers())


def test_every_link_leads_somewhere():
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets and all((ROOT / target).exists() for target in targets)


def test_the_fifth_paper_of_the_readme_runs(tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n# ddlib/methods/moments.py\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "moments.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    methods.discover.cache_clear()
    try:
        method = methods.build("moments", ipc=1, iterations=2, batch_real=8, width=8, depth=2)
        train = datasets.load("digits", "train")
        state = method.start(train, {}, seed=0)
        losses = [float(method.step(state)["loss"]) for _ in range(2)]
        assert len(method.finish(state)) == train.num_classes and min(losses) > 0
    finally:
        sys.modules.pop("ddlib.methods.moments", None)
        methods.discover.cache_clear()


def test_the_judgement_of_the_readme_runs(tmp_path, monkeypatch, train, capsys):
    (source,) = re.findall(r"```python\n(from ddlib import data, evaluation, .*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study.Workplace, "__init__", functools.partialmethod(study.Workplace.__init__, folder=tmp_path))
    small = Protocol(options={"width": 8, "depth": 2}, num_networks=2, epochs=2, batch_size=20)
    judged = judge.judge
    monkeypatch.setattr(judge, "judge", lambda *given, protocol: judged(*given, protocol=small))
    torch.save(train.take([int(rows[0]) for rows in train.class_indices]), "images_best.pt")
    exec(source, {})
    assert "images_best.pt: 10 images of digits; normalised" in (said := capsys.readouterr().out) and "Random" in said


def test_every_make_target_it_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


if __name__ == "__main__":
    tables = {"claims": claims_table, "results": results_table, "open": open_table, "hours": hours_table}
    for what, table in tables.items():
        page = ROOT / ("README.md" if what == "claims" else "docs/results.md")
        text = page.read_text(encoding="utf-8")
        begin, end = (mark.format(what) for mark in MARKS)
        before, after = text.split(begin)[0], text.split(end)[1]
        page.write_text(f"{before}{begin}\n\n{table()}\n\n{end}{after}", encoding="utf-8")
