"""What distillation makes, with all that training on it needs, and the one file that holds it.

    synthetic = load("cifar10.safetensors")
    synthetic.images, synthetic.labels        # of a set: what a network trains on, in synthetic.space
    synthetic.pixels()                        # what a reader looks at
    synthetic.frozen(seed=0)                  # of a stream: a set drawn from its generator
    synthetic.card                            # of one that was exported: its evaluation and accuracies

`SyntheticSet` holds images, `SyntheticStream` the generator that makes them; `save` and `load` take and give either.
"""

from ddlib.data.synthetic.card import Card
from ddlib.data.synthetic.images import SyntheticSet
from ddlib.data.synthetic.stored import label_kind, load, save
from ddlib.data.synthetic.stream import SyntheticStream, generator_bytes

__all__ = ["Card", "SyntheticSet", "SyntheticStream", "generator_bytes", "label_kind", "load", "save"]
