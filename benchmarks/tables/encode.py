"""What the peers get: the usual preprocessing of each kind of model."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, StandardScaler

MOST_LEVELS = 250  # of a category, which gradient boosting takes by name
MOST_ONE_HOT = 100
MOST_COUNTED = 20  # sparser levels are one
NOISE = (
    1e-3  # in standard deviations, so that equal numbers get different quantiles, as TabM has it
)
GAP = "(none)"


class Columns:
    """A table as numbers and categories: dates in parts, booleans as numbers, gaps as they are.

    Args:
        frame: the training rows.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.dates = [name for name in frame if _is_date(frame[name])]
        frame = self._parted(frame)
        known = [name for name in frame if frame[name].nunique(dropna=False) > 1]
        self.numbers = [name for name in known if pd.api.types.is_numeric_dtype(frame[name])]
        self.levels: dict[str, list[str]] = {}
        for name in known:
            if name not in self.numbers:
                self.levels[name] = list(_words(frame[name]).value_counts().index[:MOST_LEVELS])

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the numbers as floats and the rest as categories; unseen levels are gaps."""
        frame = self._parted(frame)
        numbers = frame[self.numbers].astype(float)
        categories = {
            name: pd.Categorical.from_codes(
                pd.Index(levels).get_indexer(_words(frame[name])), categories=levels
            )
            for name, levels in self.levels.items()
        }
        return pd.concat([numbers, pd.DataFrame(categories, index=frame.index)], axis=1)

    def _parted(self, frame: pd.DataFrame) -> pd.DataFrame:
        parts = []
        for name in self.dates:
            when = pd.to_datetime(frame[name], errors="coerce", utc=True, format="ISO8601")
            days = (when - pd.Timestamp("2000-01-01", tz="UTC")).dt.total_seconds() / 86_400
            fields = {"days": days, "month": when.dt.month, "weekday": when.dt.day_of_week}
            fields["hour"] = when.dt.hour
            parts.append(pd.DataFrame({f"{name} {part}": each for part, each in fields.items()}))
        return pd.concat([frame.drop(columns=self.dates), *parts], axis=1)


def _is_date(column: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(column):
        return False
    text = column.dropna().astype(str)
    return len(text) > 0 and bool(text.str.match(r"\d{4}-\d\d-\d\d").all())


def _words(column: pd.Series) -> pd.Series:
    words = column.astype(object)
    return words.where(words.notna(), GAP).astype(str)


class Codes:
    """Numbers, and categories as the numbers of their levels, for forests."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.columns = Columns(frame)

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        """Return one matrix; gaps of numbers stay, since trees take them."""
        rows = self.columns(frame)
        for name in self.columns.levels:
            rows[name] = rows[name].cat.codes
        return rows.to_numpy(np.float64)


class Inputs:
    """Numbers scaled and filled, with indicators of gaps, and categories one-hot or as codes.

    Args:
        frame: the training rows.
        quantiles: whether numbers become normal by their quantiles; by default standardised.
        seed: draws the noise before quantiles.
    """

    def __init__(self, frame: pd.DataFrame, *, quantiles: bool = False, seed: int = 0) -> None:
        self.columns = Columns(frame)
        rows = self.columns(frame)
        self.numbers, self.levels = self.columns.numbers, self.columns.levels
        values = rows[self.numbers].to_numpy()
        scaler = StandardScaler()
        if quantiles:
            std = np.nanstd(values, 0)
            noise = np.random.default_rng(seed).normal(size=values.shape)
            values = values + NOISE * np.where(std > 0, std, 1) * noise
            scaler = QuantileTransformer(
                n_quantiles=max(min(len(rows) // 30, 1_000), 10),
                output_distribution="normal",
                subsample=None,
            )
        # The indicators are last, and where none is needed there are none.
        self.scaled = make_pipeline(scaler, SimpleImputer(add_indicator=True))
        if self.numbers:
            self.scaled.fit(values)
        self.one_hot = OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            max_categories=MOST_ONE_HOT,
            min_frequency=min(MOST_COUNTED, max(1, len(rows) // 50)),
            sparse_output=False,
        )
        if self.levels:
            self.one_hot.fit(self._words(rows))

    def _words(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[list(self.levels)].astype(object).fillna("(unseen)").astype(str)

    def numeric(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the numbers and the indicators of their gaps."""
        values = self.columns(frame)[self.numbers].to_numpy()
        return self.scaled.transform(values) if self.numbers else np.empty((len(frame), 0))

    def codes(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the categories as whole numbers, 0 for unseen levels."""
        rows = self.columns(frame)
        codes = [rows[name].cat.codes.to_numpy() + 1 for name in self.levels]
        return np.stack(codes, 1) if codes else np.empty((len(frame), 0), np.int64)

    @property
    def cardinalities(self) -> list[int]:
        """Number of codes of each category."""
        return [len(levels) + 1 for levels in self.levels.values()]

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        """Return one matrix, with the categories one-hot."""
        parts = [self.numeric(frame)]
        if self.levels:
            parts.append(self.one_hot.transform(self._words(self.columns(frame))))
        return np.concatenate(parts, 1)
