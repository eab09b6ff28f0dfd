"""Networks that mix the rows of a batch, each in a way that is found in the wild."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

BATCH = 4


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

    def each(self, x):
        return self.down(torch.tanh(self.up(x)))


class TimeFirst(Base):
    """Folds [batch, time] into rows with time first."""

    def forward(self, x):
        batch, time = x.shape[:2]
        y = self.each(x.transpose(0, 1).flatten(0, 1))
        return y.view(time, batch, -1).mean(0)


class Sequence(Base):
    """Takes [time, batch, 4] and folds it."""

    def forward(self, x):
        return self.each(x.reshape(-1, 4)).view(*x.shape[:2], -1)


class TwoViews(Base):
    """Siamese: both views in one batch."""

    def forward(self, x):
        one, other = self.each(torch.cat([x, x.flip(1)])).chunk(2)
        return (one - other).abs() + one


class Centred(Base):
    """Takes the mean of the batch off by hand."""

    def forward(self, x):
        hidden = self.up(x)
        return self.down(torch.tanh(hidden - hidden.mean(0)))


class Attends(Base):
    """Examples attend to each other."""

    def forward(self, x):
        hidden = self.up(x)
        return self.down(torch.softmax(hidden @ hidden.T, -1) @ hidden)


class Sorted(Base):
    """Sorts the sequences of a batch by length, and back again one short of right."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 4, batch_first=True)

    def forward(self, x):
        lengths = 1 + (x[:, :, 0] > 0).sum(1).clamp(max=x.shape[1] - 1)
        order = lengths.argsort(descending=True, stable=True)
        packed = pack_padded_sequence(x[order], lengths[order], batch_first=True)
        y = pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]
        return self.each(y.sum(1)[order.argsort()])


class Flipped(Base):
    """Reverses the batch around one layer."""

    def forward(self, x):
        return self.down(self.up(x).flip(0)).flip(0)


class Shuffled(Base):
    """Shuffles the batch around one layer, as momentum contrast does."""

    def forward(self, x):
        order = torch.randperm(len(x))
        return self.down(self.up(x)[order])[order.argsort()]


class Halves(Base):
    """Takes a batch as two halves, by a view that goes by its size."""

    def forward(self, x):
        y = self.up(x).view(2, -1, 6)
        return self.down(torch.cat([y[0] * 2, y[1]]))


class OneSize(Base):
    """Takes exactly four examples."""

    def forward(self, x):
        return self.each(x).view(BATCH, 3) * torch.ones(BATCH, 1)


class Contrasts(Base):
    """Returns its embeddings and a loss over the pairs of the batch."""

    def forward(self, x):
        y = F.normalize(self.each(x), dim=-1)
        return y, F.cross_entropy(y @ y.T, torch.arange(len(y)))
