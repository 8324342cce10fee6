"""Synthetic sets as a folder that `datasets.load_dataset` reads: one Parquet file, and the head of its card.

Columns: `image`, PNG of 8 bits; `label`; `tensor`, (C, H, W) float32, exactly what networks are trained on, in the
value space of the set; `logits`, (K,) float32, where the labels are soft.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from ddlib.data.synthetic import SyntheticSet
from ddlib.export.arrays import write_space
from ddlib.export.pictures import classes, eight_bits, png_bytes

FILE = "data/train-00000-of-00001.parquet"

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Images below so many -> the hub's word for the size."""


def write(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
    """Write the Parquet file and `space.npz`.

    Raises:
        ValueError: pyarrow is not installed, or images of neither one nor three channels.
    """
    arrow = _pyarrow()
    import pyarrow.parquet

    schema = _schema(arrow, synthetic, about)
    pictures = [{"bytes": png_bytes(picture), "path": f"{i:05}.png"} for i, picture in enumerate(eight_bits(synthetic))]
    columns = {"image": pictures, "label": classes(synthetic).tolist(), "tensor": synthetic.images.cpu().tolist()}
    columns |= {"logits": synthetic.labels.cpu().tolist()} if synthetic.is_soft else {}
    (folder / FILE).parent.mkdir()
    pyarrow.parquet.write_table(arrow.table(columns, schema=schema), folder / FILE)
    write_space(folder, synthetic.space)


def head(about: Mapping[str, Any]) -> str:
    """The YAML that the card of a data set begins with."""
    size = next((word for limit, word in SIZES if about["images"] < limit), "n>1M")
    content = {
        "pretty_name": about["name"],
        "license": "other",
        "license_name": "that-of-the-real-data",
        "task_categories": ["image-classification"],
        "size_categories": [size],
        "tags": ["dataset-distillation"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": FILE}]}],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---\n\n"


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise ValueError("to='hf' needs pyarrow, which is not installed: pip install 'ddlib[export]'") from error
    return pyarrow


def _schema(arrow: ModuleType, synthetic: SyntheticSet, about: Mapping[str, Any]) -> Any:
    """The types of the columns; as metadata the features that `datasets` takes them for, and the card."""
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    row, told = arrow.list_(arrow.float32()), {"dtype": "float32"}
    types = {"image": image, "label": arrow.int64(), "tensor": arrow.list_(arrow.list_(row))}
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(synthetic.class_names), "_type": "ClassLabel"},
        "tensor": {"shape": list(synthetic.shape), "_type": "Array3D"} | told,
    }
    if synthetic.is_soft:
        types["logits"] = row
        features["logits"] = {"feature": {"_type": "Value"} | told, "_type": "Sequence"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "ddlib": json.dumps(about)}
    return arrow.schema(list(types.items()), metadata=metadata)
