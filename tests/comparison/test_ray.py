"""What is said of tasks on Ray while they wait, run and get lost; on a stand-in of Ray."""

import sys
import types
from importlib.machinery import ModuleSpec

import pytest

from batchensemble.comparison import ray as on_ray
from batchensemble.comparison.jobs import Failure, prepare_backend, run_many
from batchensemble.comparison.ray import connect_to_ray, run_on_ray

pytestmark = pytest.mark.usefixtures("as_users_run_it")


class RayError(Exception):
    pass


class GetTimeoutError(RayError):
    pass


class Reference:
    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments


class StandIn(types.ModuleType):
    """As much of Ray as is used; what goes wrong is set from outside."""

    def __init__(self):
        super().__init__("ray")
        self.__spec__ = ModuleSpec("ray", None)
        self.exceptions = types.SimpleNamespace(RayError=RayError, GetTimeoutError=GetTimeoutError)
        self.fails = self.probe_fails = None
        self.cpus, self.lost, self.pauses = 2, [], 0
        self.given, self.cancelled, self.started = [], [], False

    def is_initialized(self):
        return self.started

    def init(self, **options):
        if self.fails is not None:
            raise self.fails
        self.started = True

    def cluster_resources(self):
        return {"CPU": float(self.cpus)} if self.cpus else {}

    def available_resources(self):
        return {"CPU": 0.0}

    def remote(self, **options):
        assert options == {"num_cpus": 1, "max_retries": 0}

        def made(function):
            def given(*arguments):
                self.given.append(arguments)
                return Reference(function, arguments)

            return types.SimpleNamespace(remote=given)

        return made

    def wait(self, references, timeout):
        if self.pauses:
            self.pauses -= 1
            return [], references
        return references[:1], references[1:]

    def get(self, reference, timeout=None):
        if not reference.arguments and self.probe_fails is not None:
            raise self.probe_fails
        if reference.arguments and reference.arguments[0] in self.lost:
            self.lost.remove(reference.arguments[0])
            raise RayError("the node died\nits id is ...")
        return reference.function(*reference.arguments)

    def cancel(self, reference, force):
        self.cancelled.append(reference.arguments)


@pytest.fixture
def ray(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    return stand_in


def call(number, task, arguments):
    return number, task(*arguments)


def run(count=4, **options):
    said, begun = [], []
    tasks = {number: (number, 2) for number in range(count)}
    settings = {"jobs": 2, "begun": begun.append, "say": said.append, **options}
    return list(run_on_ray(call, divmod, tasks, **settings)), begun, said


def test_it_says_that_ray_starts_and_is_there(ray):
    said = []
    assert prepare_backend(2, "ray", say=said.append) == 2
    assert said == ["Ray: starting on this machine", "Ray: there after 0 s"]
    said.clear()
    prepare_backend(2, "ray", say=said.append)  # it is there now
    assert said == []


@pytest.mark.parametrize(
    ("what", "error", "sentence"),
    [
        ("fails", ConnectionError("refused"), "no Ray at the address 'auto'; start one with"),
        (
            "fails",
            Exception("The current node timed out during startup. This could happen\nbecause"),
            r"Ray did not start: The current node timed .* On a busy machine start it before, with",
        ),
        ("probe_fails", GetTimeoutError(), r"has run nothing in 120 s: 0 of its 2 CPUs are free;"),
        ("probe_fails", RayError("No module named x\n..."), r"cannot run anything here: No module"),
    ],
)
def test_where_ray_gives_nothing_a_sentence_says_so(ray, what, error, sentence):
    setattr(ray, what, error)
    with pytest.raises(OSError, match=sentence):
        connect_to_ray(2, "auto", print)


def test_more_jobs_than_cpus_are_refused(ray):
    with pytest.raises(ValueError, match="jobs must be at most 2, the cores that Ray has, got 3"):
        connect_to_ray(3, None, print)


def test_as_many_as_jobs_are_given_out_at_a_time(ray):
    found, begun, said = run()
    assert found == [(number, (number // 2, number % 2)) for number in range(4)]
    assert (begun, said) == ([0, 1, 2, 3], [])


def test_what_runs_is_said_where_nothing_ends(ray, monkeypatch):
    monkeypatch.setattr(on_ray, "SILENT", 0.0)
    ray.pauses = 2
    _, _, said = run(jobs=2)
    assert said[:2] == ["Ray: 2 running, 2 waiting, 0 done after 0 s"] * 2


def test_a_task_whose_machine_is_lost_is_given_out_again_three_times_at_most(ray):
    ray.lost = [1, 1, 2, 2, 2]
    found, begun, _ = run()
    outcomes = dict(found)
    assert outcomes[1] == (0, 1)
    assert outcomes[2] == "its machine was lost (RayError: the node died)"
    assert sorted(begun) == [0, 1, 1, 1, 2, 2, 2, 3]


def test_without_any_machine_left_all_that_is_left_fails(ray, monkeypatch):
    monkeypatch.setattr(on_ray, "SILENT", 0.0)
    ray.pauses, ray.cpus = 100, 0
    found, _, _ = run(3)
    assert dict(found) == dict.fromkeys(range(3), "no machine of Ray is left")


def test_a_lost_task_is_a_failure_of_many(ray):
    ray.lost = [0, 0, 0]
    found = dict(run_many(divmod, [(7, 2)], jobs=2, backend="ray"))
    assert found == {0: Failure("its machine was lost (RayError: the node died)")}


def test_what_runs_is_cancelled_when_the_results_are_left(ray):
    results = run_on_ray(call, divmod, {0: (1, 1), 1: (2, 1), 2: (3, 1)}, 2, print, print)
    assert next(results) == (0, (1, 0))
    results.close()
    assert [arguments[0] for arguments in ray.cancelled] == [1]
