"""Ensemble twins of ``torch.nn`` layers, one file a family.

A twin maps member-major rows ``[members * batch, ...]`` to member-major rows, and gives each
member back as the plain layer it stands for: ``twin.member(i)``.
"""

from batchensemble.layers.attention import RankOneAttention
from batchensemble.layers.base.twin import Twin
from batchensemble.layers.convolution import RankOneConvolution, RankOneTransposedConvolution
from batchensemble.layers.embedding import RankOneEmbedding, RankOneEmbeddingBag
from batchensemble.layers.independent import Independent, OneByOne
from batchensemble.layers.linear import RankOneConv1D, RankOneLinear, StackedLinear
from batchensemble.layers.normalisation import (
    MemberBatchNorm,
    MemberChannelNorm,
    MemberNorm,
    MemberPReLU,
)
from batchensemble.layers.rank_one.fast_weights import FastWeights
from batchensemble.layers.rank_one.layer import RankOne
from batchensemble.layers.rank_one.merging import Mergeable
from batchensemble.layers.rank_one.options import Options
from batchensemble.layers.recurrent import RankOneBilinear, RankOneCell, RankOneRecurrent
from batchensemble.layers.vmapped import Vmapped

__all__ = [
    "FastWeights",
    "Independent",
    "MemberBatchNorm",
    "MemberChannelNorm",
    "MemberNorm",
    "MemberPReLU",
    "Mergeable",
    "OneByOne",
    "Options",
    "RankOne",
    "RankOneAttention",
    "RankOneBilinear",
    "RankOneCell",
    "RankOneConv1D",
    "RankOneConvolution",
    "RankOneEmbedding",
    "RankOneEmbeddingBag",
    "RankOneLinear",
    "RankOneRecurrent",
    "RankOneTransposedConvolution",
    "StackedLinear",
    "Twin",
    "Vmapped",
]
