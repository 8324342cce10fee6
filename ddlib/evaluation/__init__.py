"""The one protocol that judges every method: fresh networks, trained on what was distilled, tested on real images.

    outcome = evaluate(distilled, datasets.load("cifar10", "test"), Protocol(num_networks=5), seed=0)
    outcome.accuracies      # percent, one a network
    again(synthetic.load("set.safetensors"))      # what an exported set states, made again

Test images steer nothing: each network is tested once, after its last epoch (`Protocol.compat` departs from that).
"""

from ddlib.evaluation.accuracy import (
    VERSION,
    Evaluation,
    again,
    bytes_stored,
    evaluate,
    groups,
)
from ddlib.evaluation.images import check_batches
from ddlib.evaluation.protocol import LABELS, PRECISIONS, Protocol
from ddlib.pretraining.classifier import Teacher

__all__ = [
    "LABELS", "PRECISIONS", "VERSION", "Evaluation", "Protocol", "Teacher", "again", "bytes_stored", "check_batches",
    "evaluate", "groups",
]  # fmt: skip
