"""Data: real sets as tensors, the value spaces and augmentation that networks see them in, and synthetic sets.

`datasets.load` reads a split as an `ImageSet`, and `datasets.describe` says what is known of it before; the facts stand
in catalogue.yaml.  `from_folder`, `from_arrays` and `from_datasets` make such sets of your own images, and `add` gives
them a name.  `whitening` maps pixels to the space that networks see, `augmentation.draw` and `augment` are DSA,
and `synthetic` holds what distillation makes: a `SyntheticSet` or a `SyntheticStream`, with `save` and `load`;
`read_set` reads those that others made.
"""

from ddlib.data.own import add, from_arrays, from_datasets, from_folder
from ddlib.data.released import read_set
