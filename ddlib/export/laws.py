"""The augmentation of a recipe in words and numbers, to be written anew; `ddlib.data.transforms` computes it."""

from ddlib.data.augmentation import (
    CROP_RATIO,
    FAMILIES,
    FLIP_PROBABILITY,
    MAX_ANGLE,
    MAX_BRIGHTNESS,
    MAX_CONTRAST_CHANGE,
    MAX_SATURATION,
    MAX_ZOOM,
)

LAWS = {
    "color": f"x + b, b ~ U(-{MAX_BRIGHTNESS:g}, {MAX_BRIGHTNESS:g}); then (x - g) s + g, g the mean over the channels "
    f"of a pixel, s ~ U(0, {MAX_SATURATION:g}); then (x - g) c + g, g the mean over the image, "
    f"c ~ U({1 - MAX_CONTRAST_CHANGE:g}, {1 + MAX_CONTRAST_CHANGE:g})",
    "crop": "moved by whole pixels, down and across each uniform on -r..r, "
    f"r = int({CROP_RATIO:g} side + 0.5); zeros move in",
    "cutout": "zeros in a square of h = int(0.5 side + 0.5) pixels that begins at c - h // 2, down and "
    "across each c uniform on 0..side where h is even, 0..side - 1 where it is odd; clipped at the border",
    "flip": f"left and right exchanged with probability {FLIP_PROBABILITY:g}",
    "scale": "out(x, y) = in(s x, t y) about the centre, bilinear, zeros outside; "
    f"s and t each ~ U(1 / {MAX_ZOOM:g}, {MAX_ZOOM:g})",
    "rotate": "out(x, y) = in(x cos a - y sin a, x sin a + y cos a) in pixels about the centre, y down, bilinear, "
    f"zeros outside; a ~ U(-{MAX_ANGLE:g}, {MAX_ANGLE:g}) degrees",
}
"""Family of DSA -> what it does to an image x, and how its numbers are drawn."""


def in_words(strategy: str) -> dict[str, str]:
    """What a strategy does to a mini-batch, under "how", and what each of its families does; {} for "none"."""
    if strategy == "none":
        return {}
    joined = "+" in strategy
    own = set(strategy.split("+" if joined else "_"))
    families = [name for name in FAMILIES if name in own]
    which = "all of the families, one after another" if joined else "one of the families, drawn for the mini-batch"
    how = f"{which}; every image with numbers of its own; on images in the value space, whose 0 fills what is empty"
    return {"how": how} | {name: LAWS[name] for name in families}
