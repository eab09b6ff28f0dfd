"""Networks of our own for sequences: recurrent ones, and one that integrates."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from specimen import Arguments, Specimen, floats, integers, lengths, normal, tokens

WORDS = 30
LONGEST = 6


class Tagger(nn.Module):
    """A bidirectional LSTM that labels each word."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 12)
        self.lstm = nn.LSTM(12, 10, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Linear(20, 5)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.lstm(self.words(words))[0])


class PackedClassifier(nn.Module):
    """An LSTM that reads texts of different lengths, packed, and classifies the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 12, padding_idx=0)
        self.lstm = nn.LSTM(12, 10, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, 3)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(
            self.words(words), lengths, batch_first=True, enforce_sorted=False
        )
        _, (hidden, _) = self.lstm(packed)
        return self.head(torch.cat([hidden[0], hidden[1]], dim=1))


class SequenceFirstGRU(nn.Module):
    """A GRU over ``[time, batch, features]``, torch's own order; the last step says the class."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 10, num_layers=2)
        self.head = nn.Linear(10, 3)

    def forward(self, series: Tensor) -> Tensor:
        return self.head(self.gru(series)[0][-1])


class CellLoop(nn.Module):
    """An LSTM cell stepped by hand, from a state that is given to one that is returned."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 8)
        self.head = nn.Linear(8, 2)

    def forward(
        self, series: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs = []
        for step in series.unbind(dim=1):
            state = self.cell(step, state)
            outputs.append(self.head(state[0]))
        return torch.stack(outputs, dim=1), state


class ElmanLanguageModel(nn.Module):
    """A plain RNN that predicts at each step, with its own start state as a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 8)
        self.start = nn.Parameter(0.1 * torch.randn(1, 1, 8))
        self.rnn = nn.RNN(8, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, WORDS)

    def forward(self, words: Tensor) -> Tensor:
        start = self.start.expand(-1, len(words), -1).contiguous()
        return self.head(self.norm(self.rnn(self.words(words), start)[0]))


class NeuralODE(nn.Module):
    """One network of state and time, integrated by the classical Runge-Kutta method."""

    def __init__(self, steps: int = 4) -> None:
        super().__init__()
        self.steps = steps
        self.slope = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))
        self.head = nn.Linear(2, 2)

    def velocity(self, state: Tensor, time: float) -> Tensor:
        return self.slope(torch.cat([state, state.new_full((len(state), 1), time)], dim=1))

    def forward(self, state: Tensor) -> Tensor:
        h = 1 / self.steps
        for k in range(self.steps):
            a = self.velocity(state, k * h)
            b = self.velocity(state + h / 2 * a, (k + 0.5) * h)
            c = self.velocity(state + h / 2 * b, (k + 0.5) * h)
            d = self.velocity(state + h * c, (k + 1) * h)
            state = state + h / 6 * (a + 2 * b + 2 * c + d)
        return self.head(state)


def words_and_lengths(batch: int) -> Arguments:
    return (integers(batch, 1, WORDS, LONGEST), lengths(batch, LONGEST)), {}


def sequence_first(batch: int) -> Arguments:
    return (normal(batch, LONGEST, 4).transpose(0, 1).contiguous(),), {}


def series_and_state(batch: int) -> Arguments:
    state = (normal(batch, 8, argument=1), normal(batch, 8, argument=2))
    return (normal(batch, LONGEST, 4),), {"state": state}


SPECIMENS = [
    Specimen(
        "lstm_tagger",
        Tagger,
        tokens(WORDS, LONGEST),
        "bidirectional LSTM of two layers that labels each word",
    ),
    Specimen(
        "packed_lstm",
        PackedClassifier,
        words_and_lengths,
        "LSTM over packed sequences of different lengths",
    ),
    Specimen(
        "sequence_first_gru",
        SequenceFirstGRU,
        sequence_first,
        "GRU over [time, batch, features], the last step classified",
        {"batch_axis": 1},
        "time is the first axis of its input",
    ),
    Specimen(
        "lstm_cell",
        CellLoop,
        series_and_state,
        "LSTM cell in a loop, its state given and returned as a pair",
    ),
    Specimen(
        "elman",
        ElmanLanguageModel,
        tokens(WORDS, LONGEST),
        "plain RNN with its start state as a parameter of its own",
    ),
    Specimen(
        "neural_ode",
        NeuralODE,
        floats(2),
        "one small network used 16 times as the slope of a differential equation",
    ),
]
