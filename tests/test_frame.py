"""The tidy table: one row per trained network, the same numbers as the records."""

import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from ddlib import ROOT, results
from ddlib.results import Record, Reference

REFERENCE = Reference(
    paper="p", table="main", method="dm", dataset="cifar10", ipc=1, value=26.0, std=0.8, n=5, source="s"
)
DM = Record(
    accuracies=(24.0, 25.0, 26.0, 27.0, 28.0, 29.0),
    label="DM",
    method="dm",
    dataset="cifar10",
    ipc=1,
    cell={"seeds": [3, 4], "protocol": {"network": "vgg11"}},
    reference=REFERENCE,
    cost={"distil_seconds": 6.5, "bytes_stored": 10},
)
WHOLE = Record(accuracies=(80.0,), label="Whole", method="whole", dataset="cifar10", ipc=None, cell={})
MISSING = Record(
    accuracies=(), label="ATOM", method="atom", dataset="cifar10", ipc=10, cell={}, deviations=("narrow", "short")
)


def test_a_row_is_a_trained_network_with_all_that_its_record_says():
    table = results.frame([DM, WHOLE, MISSING])
    assert len(table) == 6 + 1 + 1
    row, whole, missing = table.iloc[4], table.iloc[6], table.iloc[7]
    assert list(row[["label", "method", "dataset", "ipc", "network"]]) == ["DM", "dm", "cifar10", 1, "vgg11"]
    assert list(row[["distillation_seed", "evaluation_seed", "accuracy"]]) == [4, 1, 28.0]
    assert list(row[["reference", "reference_std", "reference_n", "paper", "table"]]) == [26.0, 0.8, 5, "p", "main"]
    assert (row.verdict, row.metric, row.distil_seconds, row.bytes_stored) == (DM.verdict, "accuracy", 6.5, 10)
    assert table.distillation_seed[:6].tolist() == [3, 3, 3, 4, 4, 4]
    absent = whole[["ipc", "distillation_seed", "reference", "paper", "distil_seconds"]]
    assert absent.isna().all() and whole.evaluation_seed == 0
    assert missing[["accuracy", "distillation_seed", "evaluation_seed"]].isna().all()
    assert (missing.verdict, missing.deviations, missing.ipc) == ("NOT RUN", "narrow; short", 10)
    empty = results.frame([])
    assert empty.empty and list(empty.columns) == list(table.columns)[: len(empty.columns)]
    assert empty.dtypes["ipc"] == table.dtypes["ipc"] == pd.Int64Dtype()


def test_means_of_the_table_are_those_of_every_committed_record():
    for path in sorted((ROOT / "results").rglob("*.json")):
        if results.read_measurements(path) is not None:
            continue
        records = results.read(path)
        table = results.frame(path)
        assert table.accuracy.count() == sum(record.n for record in records)
        keys = ["label", "dataset", "ipc", "network"]
        rows = table.groupby(keys, dropna=False, sort=False)
        assert len(rows) == len(records)  # a record is a group of the table
        for (_, group), record in zip(rows, records, strict=True):
            assert group.label.iloc[0] == record.label and set(group.verdict) == {record.verdict}
            if not record.n:
                assert group.accuracy.isna().all()
                continue
            assert group.accuracy.mean() == pytest.approx(record.accuracy_mean, rel=1e-12)
            if record.accuracy_std_between_seeds is not None:
                means = group.groupby("distillation_seed").accuracy.mean()
                assert means.std() == pytest.approx(record.accuracy_std_between_seeds, rel=1e-9)


def test_a_file_and_a_folder_say_where_rows_come_from(tmp_path):
    path = results.write([DM, WHOLE], tmp_path / "atom" / "accuracy.quick.json")
    results.write([MISSING], tmp_path / "dim" / "accuracy.imagenette32.hour.json")
    results.write_measurements(results.Measurements({"t": []}, (), {}), tmp_path / "atom" / "cost.quick.json")
    one, both = results.frame(str(path)), results.frame(tmp_path)
    assert set(one.experiment) == {"atom/accuracy"} and set(one.profile) == {"quick"}
    assert both.experiment.tolist()[-1] == "dim/accuracy.imagenette32" and both.profile.tolist()[-1] == "hour"
    plain = one.drop(columns=["experiment", "profile"])
    pd.testing.assert_frame_equal(plain, results.frame([DM, WHOLE]), check_like=True)
    assert len(both) == 8
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        results.frame(tmp_path / "none.json")


def test_the_example_of_the_page_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "results.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(example, names)
    assert "DATM" in capsys.readouterr().out and len(names["sets"]) < len(names["quick"])
    plt.close("all")
