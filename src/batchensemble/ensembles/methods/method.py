"""What everything beside the ensembles knows of a method: its names, its looks, how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from batchensemble.ensembles.base import Ensemble


@dataclass(frozen=True)
class Style:
    """How one method looks in every figure and on the page.

    Attributes:
        colour: in figures, of Okabe and Ito's palette, which colour-blind readers can tell apart.
        marker: of matplotlib, told apart without colour.
        line: of matplotlib, the same.
        symbol: on the page.
        on_light, on_dark: colour of text on the page, dark or light enough to be read.
    """

    colour: str
    marker: str
    line: Any
    symbol: str
    on_light: str
    on_dark: str


@dataclass(frozen=True)
class Method:
    """One method, as comparisons, saved models, reports and the command line know it.

    Attributes:
        name: what users type.
        kind: its class.
        title: its long name, in tables and figures.
        phrase: its name within a sentence.
        style: how it looks.
        fixed_members: how many members it always has; ``None`` where the user says.
        independent: whether its members share no weight: what other ensembles are measured by.
        grows: whether a further member takes more memory for weights of its own, before it has any.
        unstarted: options with which it is built where its weights are replaced afterwards.
    """

    name: str
    kind: type[Ensemble]
    title: str
    phrase: str
    style: Style
    fixed_members: int | None = None
    independent: bool = False
    grows: bool = True
    unstarted: Mapping[str, Any] = field(default_factory=dict)

    def build(self, network: nn.Module, members: int, **options: Any) -> Ensemble:
        """Return an ensemble of a plain network.

        Args:
            network: the plain network.
            members: how many (M); not looked at where the method has a number of its own.
            options: of the method's class.
        """
        kind: Any = self.kind
        count = () if self.fixed_members is not None else (members,)
        ensemble: Ensemble = kind(network, *count, **options)
        return ensemble
