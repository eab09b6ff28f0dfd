"""The record of a method: its names, its style in figures, and how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from batchensemble.ensembles.base import Ensemble


@dataclass(frozen=True)
class Style:
    """The style of a method in figures and on the report page.

    Attributes:
        colour: colour in figures, from Okabe and Ito's palette for colour-blind readers.
        marker: marker of matplotlib, different for each method.
        line: line style of matplotlib, different for each method.
        symbol: character that stands for the marker on the page.
        on_light, on_dark: text colours on light and dark pages, with enough contrast.
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
        name: its name in Python and on the command line, such as ``"batch"``.
        kind: its class.
        title: its name in tables and figures.
        phrase: its name within a sentence.
        style: its style in figures.
        fixed_members: its number of members if that is fixed; ``None`` if the user chooses it.
        independent: whether its members share no weights; other ensembles are compared with it.
        grows: whether each further member needs more memory for its own weights.
        unstarted: options with which it is built if its weights are loaded afterwards.
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
            members: number of members (M); ignored if the method has a fixed number.
            options: keyword arguments of the method's class.
        """
        kind: Any = self.kind
        count = () if self.fixed_members is not None else (members,)
        ensemble: Ensemble = kind(network, *count, **options)
        return ensemble
