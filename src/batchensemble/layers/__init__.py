"""Ensemble twins of ``torch.nn`` layers, one file a family.

A twin maps member-major rows ``[members * batch, ...]`` to member-major rows, and gives each
member back as the plain layer it stands for: ``twin.member(i)``.
"""

from batchensemble.layers.independent import Independent
from batchensemble.layers.linear import RankOneLinear, StackedLinear

__all__ = ["Independent", "RankOneLinear", "StackedLinear"]
