"""Every example of a docstring runs and prints what it says."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import batchensemble

MODULES = ["batchensemble"] + [
    module.name
    for module in pkgutil.walk_packages(batchensemble.__path__, "batchensemble.")
    if not module.name.endswith("__main__")
]


class Finder(doctest.DocTestFinder):
    """Finds the docstrings of functions that the tests' type checker has wrapped, too."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object))


def examples_of(name):
    module = importlib.import_module(name)
    return Finder(exclude_empty=True).find(module, name)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name):
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for examples in examples_of(name):
        runner.run(examples)
    assert runner.failures == 0


@pytest.mark.parametrize("name", MODULES)
def test_no_example_of_a_module_is_overlooked(name):
    source = inspect.getsource(importlib.import_module(name))
    written = sum(line.lstrip().startswith(">>> ") for line in source.splitlines())
    assert sum(len(examples.examples) for examples in examples_of(name)) == written
