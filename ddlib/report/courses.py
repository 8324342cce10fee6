"""How a quantity changed while something was made."""

from collections.abc import Mapping, Sequence

from ddlib.report.style import WIDTH, Picture, colors, note, picture, styled


def courses(histories: Mapping[str, Sequence[tuple[int, float]]], *, quantity: str = "loss") -> Picture:
    """The course of `quantity` over the steps, one panel for each name, since their scales differ.

    Args:
        histories: name -> (step, value) pairs in order, values > 0; what has fewer than two is left out.
    """
    shown = {name: list(points) for name, points in histories.items() if len(points) > 1}
    if not shown:
        return note("nothing with a course was run")
    shades = colors(list(shown))
    figure = picture(WIDTH, 1.9, layout="constrained")
    with styled():
        for ax, (name, points) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
            steps, values = zip(*points, strict=True)
            ax.plot(steps, values, color=shades[name], linewidth=1)
            ax.set(yscale="log", title=name, xlabel="step")
        figure.axes[0].set_ylabel(quantity)
    return figure
