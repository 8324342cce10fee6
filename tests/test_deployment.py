"""Methods that store a generator: one distillation for all that differ in its deployment, and rows of equal bytes."""

import json
import math
import shutil
from dataclasses import dataclass
from typing import ClassVar

import pytest
from test_study import cells

from ddlib import PROFILES, methods, study
from ddlib.data import datasets
from ddlib.data.synthetic import SyntheticStream, generator_bytes, load
from ddlib.methods.generative import PlainGan
from ddlib.store import artefacts, files
from ddlib.study import notebooks, planning, work

WIDTH = 6
STREAMING = {"num_networks": 2, "epochs": 2, "batch_size": 5}


@dataclass(frozen=True, kw_only=True)
class Toy(PlainGan):
    """A generator that is drawn and never trained."""

    name: ClassVar[str] = "toy"
    needs: ClassVar[dict] = {}
    generator_width: int = WIDTH

    def start(self, train, prerequisites, seed):
        """Fresh networks."""
        return self.gan.start(train, {}, seed)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """The methods, and the toy."""
    known = methods.discover() | {"toy": Toy}
    monkeypatch.setattr(methods, "discover", lambda: known)


ROWS = {
    "stream": {"method": "toy", "evaluation": STREAMING},
    "slow": {"method": "toy", "redraw": 2, "evaluation": STREAMING},
    "frozen": {"method": "toy", "redraw": None, "evaluation": {"num_networks": 2, "epochs": 2}},
}


def toys(**changed):
    """Three regimes at two numbers of images, of one distillation a seed."""
    return cells(**{"ipcs": [1, 2], "methods": ROWS, "evaluation": {}, "seeds": [0]} | changed)


def test_the_names_of_what_lies_in_stores_are_what_they_were(workplace):
    """Computed before there were streams."""
    expected = ["281b6dc194a398d7", "61c07c0ab2dc9878", "f9989006edb4b1f7"]
    paths = [work.Accuracies(cell, 0, workplace).path for cell in cells()]
    assert [path.parent.name for path in paths] == expected
    assert {path.name for path in paths} == {"evaluation-25a44c435c6038ad.json"}
    assert all("compat" not in cell.settings()["protocol"] for cell in cells())


def test_a_later_hyper_parameter_at_its_old_value_is_no_part_of_a_name(workplace):
    row = ROWS["stream"]
    one, two = (toys(ipcs=[1], methods={"stream": row | {"gans": gans}})[0] for gans in (1, 2))
    assert one.settings() == toys(ipcs=[1], methods={"stream": row})[0].settings()
    assert "gans" not in one.settings()["hyperparameters"]
    assert two.settings()["hyperparameters"]["gans"] == 2


def test_cells_that_differ_in_deployment_alone_share_one_distillation(workplace, monkeypatch):
    found = toys()
    records = study.run(found, workplace)
    assert len(list((workplace.folder / "distilled").iterdir())) == 1
    assert len({str(work.Accuracies(cell, 0, workplace).path) for cell in found}) == 6
    monkeypatch.setattr(artefacts.loop, "run", lambda *_, **__: pytest.fail("distilled again"))
    for cell, record in zip(found, records, strict=True):
        stream = study.synthetic_set(cell, 0, workplace)
        assert (stream.ipc, stream.redraw) == (cell.method.ipc, cell.method.redraw) == (record.ipc, stream.redraw)
        assert record.cell["hyperparameters"]["redraw"] == cell.method.redraw
    assert [study.finished(cell, workplace) for cell in found] == [True] * 6
    wider = toys(methods={"stream": ROWS["stream"] | {"generator_width": 7}})
    assert not study.finished(wider[0], workplace), "a setting of the generator itself has no distillation of its own"


def test_what_is_kept_does_not_depend_on_which_cell_came_first(workplace, tmp_path):
    first, last, kept = *toys()[:1], *toys()[-1:], []
    for cell in (first, last):
        study.synthetic_set(cell, 0, workplace)
        folder = work.Accuracies(cell, 0, workplace).path.parent
        kept.append((folder / "synthetic.safetensors").read_bytes())
        about = json.loads((folder / "run.json").read_text())
        assert "ipc" not in json.dumps(about) and "toy" in json.dumps(about)
        shutil.rmtree(workplace.folder)
    assert kept[0] == kept[1]


def test_records_say_what_a_stream_costs(workplace):
    by_label = {(r.label, r.ipc): r.cost for r in study.run(toys(), workplace)}
    stored = generator_bytes(shape=(1, 16, 16), num_classes=10, width=WIDTH)
    for (label, ipc), cost in by_label.items():
        images = 10 * ipc * (16 * 16 * 4 + 8)
        least = min(stored, images) if label == "frozen" else stored  # its images, or what made them
        assert cost["bytes_stored"] == least and cost["bits_per_class"] == 8 * least / 10
        assert cost["images_shown"] == 10 * ipc * {"stream": 3, "slow": 2, "frozen": 1}[label]
        assert cost["updates"] == 3 * (1 if label == "frozen" else 2 * ipc)
        assert 0 < cost["generation_seconds"] <= cost["evaluate_seconds"]
    (record,) = study.run(cells(methods={"Random": {"method": "random"}}), workplace)
    assert record.cost["generation_seconds"] == 0 and record.cost["bits_per_class"] == 8 * (16 * 16 * 4 + 8)


def test_an_evaluation_from_before_there_were_streams_is_still_read(workplace):
    (cell,) = cells(methods={"Random": {"method": "random"}}, seeds=[0])
    study.run([cell], workplace)
    path = work.Accuracies(cell, 0, workplace).path
    kept = {name: value for name, value in files.read_json(path).items() if name != "generation_seconds"}
    files.write_json(path, kept)
    (record,) = study.run([cell], workplace)
    assert record.n == 2 and record.cost["generation_seconds"] == 0


def test_a_networks_evaluation_goes_on_where_it_was(workplace):
    cell = toys()[0]
    (whole,) = study.run([cell], workplace)
    path = work.Accuracies(cell, 0, workplace).path
    kept = files.read_json(path) | {"generation_seconds": 100.0}
    files.write_json(path, kept | {n: kept[n][:1] for n in ("networks", "accuracies", "train_losses", "sittings")})
    (again,) = study.run([cell], workplace)
    assert again.accuracies == whole.accuracies and 100 < files.read_json(path)["generation_seconds"] < 110


def test_an_estimate_draws_the_images_of_a_stream_as_its_evaluation_does(train, test, monkeypatch):
    cell, drawn, images = toys()[0], [], SyntheticStream.images

    def counted(stream, labels, *rest, **options):
        drawn.append(len(labels))
        return images(stream, labels, *rest, **options)

    monkeypatch.setattr(planning, "PACES", {})
    monkeypatch.setattr(SyntheticStream, "images", counted)
    assert planning.judging(cell, train, test).seconds > 0
    assert sum(drawn) == 2 * 3 * 10 * cell.ipc * cell.protocol.num_networks  # two short courses of three epochs
    assert planning.distillation(cell, train).disk > generator_bytes(shape=(1, 16, 16), num_classes=10, width=WIDTH)


def test_rows_of_equal_bytes_have_the_images_that_the_bytes_of_the_generator_pay_for():
    """Float32 pixels and an int64 label each: as many a class as the generator of DiM takes, or just less."""
    runs = [(name, profile) for profile in PROFILES for stem in notebooks.names() if stem.startswith(("dim", "compare"))
            for name in (stem, *notebooks.variants(stem, profile)) if notebooks.has_profile(name, profile)]  # fmt: skip
    rows = {run: {(c.label, c.ipc): c for c in notebooks.cells(*run)} for run in runs}
    equal = {run: {ipc for label, ipc in cells if "equal bytes" in label} for run, cells in rows.items()}
    equal = {run: amounts for run, amounts in equal.items() if amounts}
    assert len(equal) >= 17
    for run, amounts in equal.items():
        dim = next(cell for (label, _), cell in rows[run].items() if label == "DiM")
        data = datasets.describe(dim.dataset)
        image = 4 * math.prod(data.shape) + 8
        assert amounts == {dim.method.bytes_stored(data.shape, data.num_classes) // (data.num_classes * image)}, run


def test_compat_of_a_row_goes_to_its_evaluation_and_to_its_method():
    rows = {"s": ROWS["stream"] | {"evaluation": STREAMING | {"epochs": 5}, "compat": "official"},
            "r": {"method": "random", "compat": "official", "evaluation": {"epochs": 5}},
            "plain": {"method": "random"}}  # fmt: skip
    stream, random, plain = toys(methods=rows, ipcs=[1])
    assert stream.method.compat == stream.protocol.compat == random.protocol.compat == "official"
    assert plain.protocol.compat is None and stream.settings()["protocol"]["compat"] == "official"
    assert {"compat official (default: none)", "evaluation compat official (default: none)"} <= {
        *study.deviations(stream)
    }
    assert "evaluation compat official (default: none)" in study.deviations(random)
    assert not any("compat" in phrase for phrase in study.deviations(plain))
    with pytest.raises(ValueError, match="unknown compat 'x'"):
        toys(methods={"r": {"method": "random", "compat": "x"}})


def test_a_damaged_generator_is_made_again_for_all_that_share_it(workplace):
    found = toys()
    before = study.run(found, workplace)
    path = work.Accuracies(found[0], 0, workplace).path.parent / "synthetic.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    stream = study.synthetic_set(found[-1], 0, workplace)
    assert load(path).bytes_stored == stream.bytes_stored
    after = study.run(found, workplace)
    assert [r.accuracies for r in after] == [r.accuracies for r in before]
    assert [r.cost["evaluate_seconds"] for r in after] == [r.cost["evaluate_seconds"] for r in before], "judged again"


def test_an_evaluation_may_differ_by_the_number_of_images():
    rows = {"Random": {"method": "random"}, "Own": {"method": "random", "evaluation": {"by_ipc": {10: {"epochs": 7}}}}}
    told = {"epochs": 2, "by_ipc": {"1": {"batch_size": 10}, 10: {"batch_size": 25}}}
    found = {(c.label, c.ipc): c.protocol for c in cells(ipcs=[1, 10, 20], methods=rows, evaluation=told)}
    assert {ipc: found["Random", ipc].batch_size for ipc in (1, 10, 20)} == {1: 10, 10: 25, 20: 256}
    assert [found["Own", ipc].epochs for ipc in (1, 10)] == [2, 7] and found["Own", 10].batch_size == 25
    with pytest.raises(ValueError, match=r"by_ipc of the evaluation at 1=5 is int; it must be dict"):
        cells(methods=rows, evaluation={"by_ipc": {1: 5}})


def test_records_say_what_was_spent_before_the_distillation(workplace):
    rows = {"Random": {"method": "random"}, "Herding": {"method": "herding", "epochs": 1}}
    plain, herded = study.run(cells(methods=rows), workplace)
    (made,) = (workplace.folder / "embedding").glob("*/run.json")
    assert plain.cost["prerequisite_seconds"] == 0
    assert herded.cost["prerequisite_seconds"] == round(files.read_json(made)["seconds"], 2) > 0
    shutil.rmtree(made.parent)
    assert study.run(cells(methods=rows), workplace)[1].cost["prerequisite_seconds"] is None
