"""One cell of a paper's table: a method, a data set and an evaluation."""

from dataclasses import asdict, dataclass
from typing import Any

from ddlib.evaluation import Protocol
from ddlib.methods import Method


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry of a table: a method with all its settings on a data set, and how it is judged.

    label: the row of the table.
    method: with its hyper-parameters, images per class included.
    dataset: name of the data set.
    whitened: whether images are ZCA-whitened: True for normalised ones, "pixels" for pixels as they are.
    seeds: one distillation each.
    protocol: the evaluation.
    reference_dataset: the data set whose reported numbers stand beside ours.
    paper, table: where those numbers are reported.
    parameters: `fingerprint` of the notebook's parameters that it comes from.
    tested_on: name of the network tested on, where a row is tested on several.
    reported: whether the paper has such a row, so that its number may stand beside ours.
    """

    label: str
    method: Method
    dataset: str
    whitened: bool | str
    seeds: tuple[int, ...]
    protocol: Protocol
    reference_dataset: str
    paper: str
    table: str
    parameters: str = ""
    tested_on: str = ""
    reported: bool = True

    def __str__(self) -> str:
        return f"{self.set_name}, tested on {self.tested_on}" if self.tested_on else self.set_name

    @property
    def ipc(self) -> int | None:
        """Images per class; None where the method takes the whole training set."""
        return getattr(self.method, "ipc", None)

    @property
    def condition(self) -> str:
        """Which of the rows that the paper reports under the method's name it is; "" where there is but one."""
        return getattr(self.method, "condition", "")

    @property
    def amount(self) -> str:
        """Images per class, for people."""
        return "all images" if self.ipc is None else f"IPC {self.ipc}"

    @property
    def set_name(self) -> str:
        """What is distilled, for people: row, data and images per class."""
        return f"{self.label}, {self.dataset}, {self.amount}"

    @property
    def deployed(self) -> dict[str, Any]:
        """The method's hyper-parameters that decide nothing of what is distilled, only how it is deployed."""
        return {name: getattr(self.method, name) for name in getattr(self.method, "deployment", ())}

    @property
    def distilled_name(self) -> str:
        """What is distilled, for people: `set_name`, less the images per class where cells of several share it."""
        return f"{self.label}, {self.dataset}" if "ipc" in self.deployed else self.set_name

    def settings(self, *, deployed: bool = True) -> dict[str, Any]:
        """Everything that decides the numbers, as plain JSON; `tested_on` only where it is given.

        Args:
            deployed: whether with the hyper-parameters that are `deployed`.
        """
        tested_on = {"tested_on": self.tested_on} if self.tested_on else {}
        left_out = () if deployed else self.deployed
        return tested_on | {
            "method": self.method.name,
            "version": self.method.version,
            "hyperparameters": {name: v for name, v in asdict(self.method).items() if name not in left_out},
            "dataset": self.dataset,
            "whitened": self.whitened,
            "seeds": list(self.seeds),
            "protocol": self.protocol.settings(),
        }
