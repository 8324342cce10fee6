"""The README's results are those of `results/`, its links lead somewhere, and its commands exist."""

import re
import sys

from ddlib import ROOT, datasets, methods, results

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def results_table() -> str:
    """Every record under `results/` at a profile that the papers can be compared with, as a table in Markdown."""
    lines = ["| data, images per class | method | reported | ours (networks) | verdict |", "|---|---|---|---|---|"]
    for path in sorted((ROOT / "results").glob("*/*.json")):
        if not path.name.endswith(".quick.json") and results.read_measurements(path) is None:
            lines += [line(record) for record in results.read(path) if record.n]
    return "\n".join(lines)


def line(record: results.Record) -> str:
    """One record as a row."""
    reference = record.reference
    theirs = "-" if reference is None else "not found" if reference.value is None else f"{reference.value:.1f}"
    marks = " (unverified)" if reference is not None and reference.unverified and reference.value is not None else ""
    ours = f"{record.accuracy_mean:.1f} ± {record.accuracy_std:.1f} ({record.n})"
    return f"| {record.dataset}, {record.ipc} | {record.label} | {theirs}{marks} | {ours} | `{record.verdict}` |"


def test_the_results_table_is_that_of_the_records():
    table = RESULTS.split(BEGIN)[1].split(END)[0]
    assert results_table() in table, "write the table anew: python tests/test_readme.py"


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


def test_every_make_target_it_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


if __name__ == "__main__":
    before, rest = README.split(BEGIN)
    between, after = rest.split(END)
    prose = between.split("\n| data, images per class")[0].rstrip("\n")
    (ROOT / "README.md").write_text(f"{before}{BEGIN}{prose}\n\n{results_table()}\n\n{END}{after}", encoding="utf-8")
