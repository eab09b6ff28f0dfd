"""Data of any kind as batches: arrays, data frames, datasets, data loaders, files and folders.

No optional library is imported before there is an object of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from batchensemble.core.arguments import whole_number
from batchensemble.core.inputs import Inputs, as_inputs, without
from batchensemble.core.random_state import DataStream
from batchensemble.core.rounding import check_features_held
from batchensemble.data.arrays import Read, are_several
from batchensemble.data.batches import Batches, Draw, LoaderBatches, make_batches
from batchensemble.data.hugging_face import Collate, as_tensors, collated, is_hugging_face
from batchensemble.data.prediction_batch import prediction_batch_of
from batchensemble.data.streaming import StreamBatches
from batchensemble.data.tables.class_labels import ClassNames, are_numbers, labels_of
from batchensemble.data.tables.column_names import (
    UNNAMED,
    ColumnNames,
    encoded_inputs,
    remembered,
)
from batchensemble.data.tables.columns import (
    TARGET_CURE,
    Array,
    Names,
    as_array,
    as_table,
    as_text,
    check_finite,
    declared_by,
    feature_columns,
    library_of,
)
from batchensemble.data.tables.files import Files
from batchensemble.data.tables.formats import FORMATS, parquet_files, table_files

MEMORY_LIMIT = 1 << 29
IMAGES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
TABLES = {"pandas", "polars", "pyarrow"}


def open_batches(
    data: Any,
    batch_size: int | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    target: str | None = None,
    class_names: Sequence[Any] = (),
    memory_limit: int = MEMORY_LIMIT,
    shuffle: bool = False,
    draw: Draw | None = None,
    stream: DataStream | None = None,
    read: Read | None = None,
    numbers: bool = False,
    weighted: bool = False,
    training: bool = False,
    known: ColumnNames = UNNAMED,
) -> Batches:
    """Return the batches of data with targets, of any kind.

    Arrays, tables, and files that fit in memory are moved to the device once; data loaders are
    moved batch by batch, and larger files window by window.

    Args:
        data: see :func:`batchensemble.fit`.
        batch_size: examples per batch, ``None`` as suits predictions; a loader has its own.
        device: of the batches.
        dtype: that the features of arrays, tables and files are converted to.
        target: the column or key of the targets.
        class_names: the classes, in the order of their numbers, where targets are text, or numbers
            that are not class numbers.
        memory_limit: in bytes; larger files are streamed.
        shuffle: whether each epoch has a new order; data loaders and iterable datasets have their
            own.
        draw: see :class:`~batchensemble.data.batches.ArrayBatches`.
        stream: see :class:`~batchensemble.data.batches.ArrayBatches`.
        read: see :func:`~batchensemble.data.batches.make_batches`.
        numbers: whether the targets are numbers to predict; labels are then refused.
        weighted: whether pairs may have a third part, the weight of each example.
        training: refuse features whose variation is lost by rounding to ``dtype``.
        known: the column names of a model; the columns of tables and files are matched to them.

    Raises:
        TypeError: ``data`` is of an unknown kind.
        ValueError: the data are invalid; the message says where.
        ImportError: an optional library is missing.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"x": [0.5, 1.5], "kind": ["b", "a"]})
        >>> place = {"device": torch.device("cpu"), "dtype": torch.float32}
        >>> batches = open_batches(frame, 2, target="kind", **place)
        >>> batches.class_names, next(iter(batches))[1]
        (('a', 'b'), tensor([1, 0]))
    """
    # Names given by the user occur in arrays too; names remembered from other data do not.
    named = bool(class_names) and not isinstance(class_names, ClassNames)
    ways: dict[str, Any] = {"draw": draw, "stream": stream}
    place: dict[str, Any] = {"device": device, "dtype": dtype}
    whole_number("memory_limit", memory_limit)
    class_names = known.order_of_classes(class_names)
    names = UNNAMED
    if isinstance(data, (str, Path)):
        data = _from_path(
            Path(data), target, class_names, labelled=True, numbers=numbers, known=known
        )
    if training:
        _check_features_held(data, target, dtype)
    if isinstance(data, Files):
        if data.bytes_as_float32 > memory_limit:
            options = {**place, **ways, "shuffle": shuffle, "memory_limit": memory_limit}
            return StreamBatches(data, batch_size, read=read, **options)
        names = ColumnNames(remembered(data.names), None, data.class_names)
        data = _in_memory(data, dtype)
    elif _is_dataset(data):
        loader, classes = _loader(data, batch_size, shuffle, target, device)
        known.check_classes(classes)
        kinds: dict[str, Any] = {"weighted": weighted, "any_targets": read is not None}
        batches: Batches = LoaderBatches(loader, device, target=target, **kinds, **ways)
        batches.class_names = classes
        return batches
    else:
        kind: dict[str, Any] = {"numbers": numbers, "named": named}
        data, names = _pair(data, target, class_names, dtype, known, **kind)
    options = {**place, **ways, "read": read, "weighted": weighted, "training": training}
    batches = make_batches(data, batch_size, shuffle=shuffle, **options)
    batches.class_names = ClassNames(names.classes)
    batches.feature_names, batches.target_names = names.features, names.targets
    return batches


def open_inputs(
    X: Any,
    batch_size: int | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    target: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    known: ColumnNames = UNNAMED,
) -> Iterator[Inputs]:
    """Yield the inputs of data with or without targets, batch by batch.

    Args:
        X: see :func:`batchensemble.predict`.
        batch_size: examples per batch, ``None`` as suits predictions; a loader has its own.
        device: of the batches.
        dtype: that the features of arrays, tables and files are converted to.
        target: a column or key that is not an input.
        memory_limit: in bytes; larger files are streamed.
        known: the column names of a model; the columns of tables and files are matched to them.

    Raises:
        TypeError: ``X`` is of an unknown kind.
        ValueError: it is invalid; the message says where.
    """
    if isinstance(X, (str, Path)):
        X = _from_path(Path(X), target, (), labelled=False, known=known)
    if isinstance(X, Files):
        options: dict[str, Any] = {"device": device, "dtype": dtype, "memory_limit": memory_limit}
        batches: Batches = (
            StreamBatches(X, batch_size, **options)
            if X.bytes_as_float32 > memory_limit
            else make_batches(_in_memory(X, dtype), batch_size, device=device, dtype=dtype)
        )
        return (inputs for inputs, _ in batches)
    if _is_dataset(X):
        loader, _ = _loader(X, batch_size, False, None, device)
        return (_inputs_of(batch, target).to(device) for batch in loader)
    table = as_table(X)
    if table is not None:
        names = feature_columns(table, target if target in table.names else None, _name(X))
        names = known.features_among(names, _name(X))
        X = encoded_inputs(table, names, _numpy(dtype), _name(X), known)
    first = next(iter(X.values() if isinstance(X, Mapping) else X), ()) if are_several(X) else X
    examples = len(first) if hasattr(first, "__len__") else 0
    pair = X, np.zeros(examples, int)
    return (inputs for inputs, _ in make_batches(pair, batch_size, device=device, dtype=dtype))


def _pair(
    data: Any,
    target: str | None,
    class_names: Sequence[Any],
    dtype: torch.dtype,
    known: ColumnNames,
    *,
    numbers: bool,
    named: bool,
) -> tuple[Any, ColumnNames]:
    """Return a table, or a pair with tables, as a pair of arrays, and the names of the columns."""
    table = as_table(data)
    if table is not None:
        where = _name(data)
        if target is None:
            raise ValueError(
                f"target is missing: name the column of {where} that holds the targets, one of "
                f"{', '.join(map(repr, table.names))}"
            )
        names = feature_columns(table, target, where)
        names = known.features_among(names, where)
        features = encoded_inputs(table, names, _numpy(dtype), where, known)
        labels = table.column(target), f"{where}: the target column {target!r}"
        found = ColumnNames(remembered(names))
        if numbers:
            return (features, check_finite(*labels, cure=TARGET_CURE)), found
        targets, classes = labels_of(*labels, class_names, declared=table.declared(target))
        return (features, targets), replace(found, classes=classes)
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        return data, UNNAMED  # which make_batches refuses
    if target is not None:
        raise ValueError(
            f"target is for tables and dictionaries; a pair (X, y) has its own, got {target!r}"
        )
    X, y, *weights = data
    found = UNNAMED
    table = as_table(X)
    if table is not None:
        names = known.features_among(table.names, "X")
        X = encoded_inputs(table, names, _numpy(dtype), "X", known)
        found = ColumnNames(remembered(names))
    column = as_table(y)
    declared: Names = ()
    if column is not None and len(column.names) == 1:
        declared = column.declared(column.names[0])
        y = column.column(column.names[0])
    elif library_of(y) in TABLES and column is None:
        declared, y = declared_by(y), as_array(y)
    elif column is not None:
        names = known.targets_among(column.names, "y")
        y = np.column_stack([column.column(name) for name in names])
        return (X, y, *weights), replace(found, targets=remembered(names))
    elif numbers or not named or not are_numbers(map(as_text, class_names)):
        return (X, y, *weights), found
    else:
        y = np.asarray(y)
    if numbers:
        return (X, check_finite(y, "y", cure=TARGET_CURE), *weights), found
    targets, classes = labels_of(y, "y", class_names, declared=declared)
    return (X, targets, *weights), replace(found, classes=classes)


def _check_features_held(data: Any, target: str | None, dtype: torch.dtype) -> None:
    """Raise ``ValueError`` if the variation of a feature is lost in the network's type."""
    if isinstance(data, Files):
        file, names = data.paths[0].name, data.names

        def parts() -> Iterator[torch.Tensor]:
            return (torch.from_numpy(X) for X, _ in data.blocks(data.units, np.float64))

        check_features_held(parts, data.rows, dtype, lambda each: f"{file}: column {names[each]!r}")
        return
    X = data[0] if isinstance(data, (tuple, list)) and data else data
    table = as_table(X)
    if table is not None:
        where = _name(X) if X is data else "X"
        for name in table.names:
            if name != target:
                _check_column_held(table.column(name), dtype, f"{where}: column {name!r}")


def _check_column_held(column: Array, dtype: torch.dtype, name: str) -> None:
    if column.dtype.kind in "iuf" and column.dtype.itemsize == 8:
        values = torch.from_numpy(column.astype(np.float64)).unsqueeze(1)
        check_features_held(lambda: [values], len(values), dtype, lambda _: name)


def _from_path(
    path: Path,
    target: str | None,
    class_names: Sequence[Any],
    *,
    labelled: bool,
    numbers: bool = False,
    known: ColumnNames,
) -> Any:
    """Return the files of a path, or the images in a folder as a ``Dataset``.

    Of files, the columns that the model knows are taken, in its order.
    """
    if path.is_dir() and not any(parquet_files(path)):
        return _images(path)
    paths = table_files(path)
    if not path.is_dir() and path.suffix.lower() not in FORMATS:
        raise ValueError(
            f"the format of {path.name} is unknown: give {', '.join(FORMATS)}, or a folder of "
            "Parquet files, or of images with a folder per class"
        )
    if labelled and target is None:
        raise ValueError(
            f"target is missing: name the column of {path.name} that holds the targets"
        )
    files = Files(paths, target, class_names, labelled=labelled, numbers=numbers)
    names = known.features_among(files.names, path.name, more=True)
    return files.taking(names, known.encoding_of(names))


def _images(folder: Path) -> Any:
    """Return the images of a folder with one folder per class, through torchvision."""
    classes = [each for each in sorted(folder.iterdir()) if each.is_dir()]
    if not any(each.suffix.lower() in IMAGES for kind in classes for each in kind.rglob("*")):
        raise ValueError(
            f"the folder {folder} has neither Parquet files nor images with a folder per class"
        )
    try:
        from torchvision.datasets import ImageFolder
        from torchvision.transforms.functional import to_tensor
    except ImportError as error:
        raise ImportError(
            f"the images of {folder} are read through torchvision, which is not installed: "
            "pip install torchvision"
        ) from error
    return ImageFolder(str(folder), transform=to_tensor)


def _is_dataset(data: Any) -> bool:
    if is_hugging_face(data) and isinstance(data, Mapping):
        raise TypeError(
            f"data must be one split of a DatasetDict, got all of them: give data[...] with one of "
            f"{', '.join(map(repr, data))}"
        )
    return isinstance(data, (Dataset, DataLoader)) or is_hugging_face(data)


def _loader(
    data: Any, batch_size: int | None, shuffle: bool, target: str | None, device: torch.device
) -> tuple[DataLoader[Any], ClassNames]:
    """Return a data loader of a dataset, and the names of its classes if it has any."""
    if isinstance(data, DataLoader):
        return data, _classes_of(data.dataset, target)
    names = _classes_of(data, target)
    collate: Collate = collated
    in_order = isinstance(data, IterableDataset) or not hasattr(data, "__getitem__")
    if is_hugging_face(data):
        data, collate = as_tensors(data, target, in_order=in_order)
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_size or prediction_batch_of(data, device),
        shuffle=shuffle and not in_order,
        collate_fn=collate,
    )
    return loader, names


def _classes_of(dataset: Any, target: str | None) -> ClassNames:
    """Return ``classes`` of a torchvision dataset, or the names of a ``ClassLabel``."""
    features = getattr(dataset, "features", None)
    if is_hugging_face(dataset) and isinstance(features, Mapping):
        return ClassNames(getattr(features.get(target), "names", None) or (), ordered=True)
    classes = getattr(dataset, "classes", ())
    return ClassNames(map(str, classes) if isinstance(classes, (list, tuple)) else ())


def _inputs_of(batch: Any, target: str | None) -> Any:
    if isinstance(batch, Mapping):
        return without(batch, target)
    if isinstance(batch, (tuple, list)):
        return as_inputs(batch[0])
    return batch


def _in_memory(files: Files, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return all rows of files as arrays ``(X, y)``."""
    features = np.empty((files.rows, files.width), _numpy(dtype))
    targets, row = [], 0
    for part, labels in files.blocks(files.units, features.dtype):
        features[row : row + len(part)] = part
        targets.append(labels)
        row += len(part)
    return features, np.concatenate(targets)


def _numpy(dtype: torch.dtype) -> Any:
    return np.float64 if dtype == torch.float64 else np.float32


def _name(table: Any) -> str:
    return f"the {type(table).__name__}"
