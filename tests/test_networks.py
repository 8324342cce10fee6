"""Networks of others: evaluated as they are, matched in where they offer features, and known by their source."""

import importlib
import sys
import textwrap
from importlib import metadata

import pytest
import test_continual
import test_rows
import torch
from draws import equal
from few_digits import digits as few
from test_exports import digits

from ddlib import evaluation, methods, models, study
from ddlib.analyses import continual
from ddlib.data import datasets
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.data.whitening import ValueSpace
from ddlib.methods import pixels
from ddlib.models import foreign, passes
from ddlib.pretraining.experts import Experts
from ddlib.seeding import generator
from ddlib.study import work

SOURCE = """
    import torch
    from torch import nn

    class Small(nn.Module):
        def __init__(self, channels, size, num_classes, width=8):
            super().__init__()
            self.conv = nn.Conv2d(channels, width, 3, padding=1)
            self.scale = nn.Parameter(torch.randn(width, 1, 1))  # no law of ours draws it
            self.norm = nn.BatchNorm2d(width)
            self.head = nn.Linear(width * size[0] * size[1] // 16, num_classes)

        def features(self, images):
            map = torch.relu(self.norm(self.scale * self.conv(images)))
            return (map,), nn.functional.avg_pool2d(map, 4).flatten(1)

        def forward(self, images):
            return self.head(self.features(images)[1])

    def unsettled(channels, size, num_classes, norm):
        network = Small(channels, size, num_classes)
        network.norm = getattr(nn, norm)(8, track_running_stats=False)
        return network

    def plain(shape, num_classes, **options):
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], num_classes))

    def dropping(shape, num_classes):
        return nn.Sequential(nn.Dropout2d(0.5), *plain(shape, num_classes))

    def wrong(num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(256, num_classes + 1))

    def blind(channels):
        return nn.Identity()

    number = 3
"""
SHAPE = {"shape": (1, 16, 16), "num_classes": 10}


@pytest.fixture(autouse=True)
def theirs(tmp_path, monkeypatch):
    """A module `theirs` of a reader's own; the folder it lies in."""
    write(tmp_path, SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("theirs", None)
    foreign._imported.cache_clear()
    foreign.REGISTERED.clear()


def write(folder, text):
    (folder / "theirs.py").write_text(textwrap.dedent(text))
    sys.modules.pop("theirs", None)
    importlib.invalidate_caches()
    foreign._imported.cache_clear()


def protocol(network="theirs:Small", **changes):
    settings = {"network": network, "num_networks": 2, "epochs": 8, "batch_size": 10, "lr": 0.05}
    return evaluation.Protocol(**settings | changes)


def test_a_network_of_others_is_evaluated_by_name_the_same_alone_and_among_others(test):
    before, theirs = torch.get_rng_state(), protocol(options={"width": 4})
    both = evaluation.evaluate(digits(), test, theirs, seed=0).accuracies
    alone = evaluation.evaluate(digits(), test, theirs, seed=0, networks=[1]).accuracies
    assert both[1:] == alone and min(both) > 25 and len(set(both)) == 2
    assert torch.equal(before, torch.get_rng_state())


def test_a_memory_is_judged_anew_where_the_code_of_its_network_has_changed(theirs, tmp_path):
    def path():
        (cell,) = test_continual.rows(seeds=[0], evaluation={"network": "theirs:Small", "options": {"width": 4}})
        (*_, last) = continual.stages(cell, 5, 0)
        return continual.Remembered(last.parts[-1], 0, workplace, last).path

    workplace = study.Workplace("cpu", tmp_path / "runs", "none")
    continual.run(test_continual.rows(seeds=[0]), workplace, steps=[5])
    before = path()
    assert before == path()
    write(theirs, SOURCE.replace("number = 3", "number = 4"))
    assert before != path()


def coloured(count=12):
    """Noise in colour, of four classes, as a set and as its test."""
    space, names = ValueSpace((0.5,) * 3, (0.25,) * 3), ("a", "b", "c", "d")
    images, labels = torch.randn(count, 3, 32, 32, generator=generator(0, "x")), torch.arange(count) % 4
    found = SyntheticSet(images=images, labels=labels, class_names=names, space=space, strategy="flip")
    return found, ImageSet("noise", "test", images, labels, names, space)


@pytest.mark.parametrize("network", ["theirs:Small", "torchvision.models.resnet18"])
def test_training_is_that_of_the_module_itself_written_plainly(network):
    """Three epochs of one mini-batch are three plain steps of SGD on the module, tested with its running statistics."""
    ours, test = coloured()
    settings = {"epochs": 2, "batch_size": 12, "augmentation": False, "num_networks": 1, "lr": 0.01}
    outcome = evaluation.evaluate(ours, test, protocol(network, **settings), seed=0)
    stream = generator(0, "evaluation", "network", 0)
    module = models.build(network, generator=stream, shape=(3, 32, 32), num_classes=4).module
    sgd = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for _ in range(3):
        sgd.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(ours.images), ours.labels)
        loss.backward()
        sgd.step()
    right = module.eval()(ours.images).argmax(1) == ours.labels
    assert outcome.train_losses[0] == pytest.approx(loss.item(), rel=1e-3)
    assert outcome.accuracies[0] == pytest.approx(100 * float(right.double().mean()), abs=8.4)


def test_a_packages_network_has_dropout_and_averages_and_is_known_by_its_version():
    ours, test = coloured()
    settings = protocol("torchvision.models:mobilenet_v2", epochs=3, num_networks=2, batch_size=12, ema=0.5)
    first, again = (evaluation.evaluate(ours, test, settings, seed=0, networks=n).train_losses for n in ([0, 1], [1]))
    assert first[1:] == again and first[0] != first[1]
    assert models.fingerprint("torchvision.models:mobilenet_v2") == f"torchvision {metadata.version('torchvision')}"


def test_weights_are_drawn_by_the_modules_own_law_from_the_stream_alone():
    first, second, other = (models.build("theirs:Small", generator=generator(s, "x"), **SHAPE) for s in (0, 0, 1))
    state = first.state_dict()
    assert equal(state, second.state_dict())
    assert not torch.equal(state["module.scale"], other.state_dict()["module.scale"])
    assert not any("num_batches" in name for name in state) and first.elements == 8 * 16 * 16
    models.reset(other, generator(0, "x"))
    assert equal(state, other.state_dict())


@pytest.mark.parametrize("name", ["dm", "datadam", "dsa"])
def test_a_network_that_offers_features_is_matched_in(name, train):
    method = methods.build(name, network="theirs:Small", ipc=1, batch_real=4, width=4, lr_images=1.0)
    state = method.start(few(10), {}, seed=0)
    before = state.images.detach().clone()
    losses = [float(method.step(state)["loss"]) for _ in range(2)]
    assert min(losses) > 0 and not torch.equal(before, state.images) and state.network.module.conv.out_channels == 4


@pytest.mark.parametrize(("norm", "cut"), [("BatchNorm2d", False), ("InstanceNorm2d", True)])
def test_a_batch_is_cut_only_where_its_statistics_do_not_count(norm, cut, monkeypatch):
    """With norms of torch that keep no running statistics, so that there are no buffers."""
    method = methods.build("dm", network="theirs:unsettled", norm=norm, ipc=2, batch_real=4)
    losses = []
    for size in (2**30, 1):
        monkeypatch.setitem(pixels.PIECE_BYTES, "cpu", size)
        state = method.start(few(10), {}, seed=0)
        losses.append(float(method.step(state)["loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and state.piece == (1 if cut else None)


def test_gradients_are_matched_in_a_network_without_features_by_the_name_that_it_was_given():
    models.register("flat", importlib.import_module("theirs").plain)
    assert "flat" in models.names() and passes.pure("flat", {}, **SHAPE) is passes.pure("flat", {}, **SHAPE)
    method = methods.build("dc", network="flat", ipc=1, batch_real=4, restarts=1, network_epochs=1, matching_steps=1)
    assert float(method.step(method.start(few(10), {}, seed=0))["loss"]) > 0


def cells(tested_on="theirs:plain", method="dm", **row):
    """A row, tested on one network of width 4."""
    row = {"method": method, "whitened": False} | ({"iterations": 1, "batch_real": 4} if method == "dm" else {}) | row
    evaluation = {"networks": {"mine": {"network": tested_on, "width": 4}}, "num_networks": 1, "epochs": 1}
    return test_rows.cells(methods={"row": row}, network={}, evaluation=evaluation, seeds=[0])


def start(method):
    return lambda: method().start(datasets.load("digits", "train"), {}, 0)


REFUSED = {
    "no module": (lambda: protocol("nowhere:net"), r"network 'nowhere:net' cannot be imported: .*; allowed: package"),
    "no attribute": (lambda: protocol("theirs:net"), "cannot be imported: .*'net'"),
    "no builder": (lambda: protocol("theirs:number"), "is no builder; allowed: a class or function that takes num_cl"),
    "no classes": (lambda: protocol("theirs.blind"), "is no builder"),
    "unknown": (lambda: protocol("small"), "unknown network 'small'; known: convnet"),
    "logits": (lambda: models.build("theirs:wrong", **SHAPE), r"gives \(2, 11\) for two images; allowed: logits"),
    "channels": (
        lambda: models.build("torchvision.models:resnet18", **SHAPE),
        r"does not take images of \(1, 16, 16\): .*3 channels",
    ),
    "option": (lambda: models.build("theirs:Small", depth=2, **SHAPE), "unknown option 'depth' of network 'theirs:Sm"),
    "value": (lambda: models.build("theirs:Small", width="x", **SHAPE), "cannot be built with"),
    "features": (start(lambda: methods.build("dm", network="theirs:plain", ipc=1)), "offers no features to match"),
    "dropout": (start(lambda: methods.build("dc", network="theirs:dropping", ipc=1)), "'theirs:dropping' draws random"),
    "dropout of experts": (start(lambda: Experts(network="theirs:dropping")), "draws random numbers"),
    "statistics": (start(lambda: Experts(network="theirs:Small")), "the network has batch statistics"),
    "statistics of batches alone": (
        start(lambda: Experts(network="theirs:unsettled", norm="BatchNorm2d")),
        "the network has batch statistics",
    ),
    "statistics, of a row": (lambda: cells(method="mtt", network="theirs:Small", lr_student=0.1), "has batch statist"),
    "dropout, of a row": (lambda: cells(network="theirs:dropping"), "draws random numbe"),
    "features, of a row": (lambda: cells(method="ld3m", network="theirs:plain", batch_real=4), "no features to match"),
    "option, of a row": (lambda: cells("vit"), r"unknown option 'width' of networks\['mine'\]; known: patch"),
    "our name": (lambda: models.register("convnet", foreign.build), "name='convnet' is one of ours"),
    "a dot": (lambda: models.register("my.net", foreign.build), "must be a text without dots"),
    "compat": (
        lambda: evaluation.training.learner(protocol(compat="official", epochs=5), **SHAPE),
        "theirs:Small has dropout or is none of ours",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_network_lacks_is_said_before_work(case):
    refused, match = REFUSED[case]
    with pytest.raises(ValueError, match=match):
        refused()


def test_a_changed_network_is_not_taken_for_the_old_one(theirs, workplace):
    def places(cell):
        return work.distillation(cell, 0, workplace).folder, work.Accuracies(cell, 0, workplace).path.name

    assert cells()[0].protocol.options == {"width": 4}, "a builder that takes any option is given it"
    plain, matched = cells("theirs:Small")[0], cells("theirs:Small", network="theirs:Small")[0]
    before = places(plain), places(matched)
    (record,) = study.run([matched], workplace)
    assert record.n == 1 and record.network == "mine" and study.finished(matched, workplace)
    assert (places(plain), places(matched)) == before
    write(theirs, SOURCE.replace("randn(width", "ones(width"))
    after = places(plain), places(matched)
    assert after[0][0] == before[0][0] and after[0][1] != before[0][1]  # the set is as it was, not its accuracy
    assert after[1][0] != before[1][0] and not study.finished(matched, workplace)
