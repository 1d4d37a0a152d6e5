"""One worker of a cluster, and what it gets of it; without Ray."""

import logging
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtime.cluster import session
from runtime.cluster.session import ClusterOptions, check_installed, share_of
from runtime.cluster.worker import MOST_ATTEMPTS, Worker
from runtime.images.batch import Job
from schemas.errors import ImageError, PackError, UsageError

JOB = Job(Path("a.png"), Path("a_x4.png"))


def first(_index):
    return 1


def reply_of(worker, job=JOB):
    row = worker({"index": 7, "job": pickle.dumps(job)})
    assert row["index"] == 7
    return pickle.loads(row["reply"])


def test_a_job_done_with_what_was_logged():
    def make_work(device):
        def work(job):
            logging.getLogger("runtime.images").info("%s: palette expanded", job.source)
            return {"device": device}

        return work

    worker = Worker(make_work, "cuda", False, first)
    for _ in range(2):  # lines of one job do not come with the next
        reply = reply_of(worker)
        assert (reply.outcome.status, reply.outcome.details) == ("done", {"device": "cuda"})
        assert reply.log == ((logging.INFO, "a.png: palette expanded"),)


def test_the_model_is_loaded_once():
    loads = []

    def make_work(device):
        loads.append(device)
        return lambda _job: {}

    worker = Worker(make_work, "cpu", False, first)
    assert loads == []
    reply_of(worker)
    reply_of(worker)
    assert loads == ["cpu"]


def failing(error):
    def work(_job):
        raise error

    return lambda _device: work


def test_a_bad_image_is_an_outcome_unless_it_is_alone():
    error = ImageError("a.png: the file is empty")
    outcome = reply_of(Worker(failing(error), "cpu", False, first)).outcome
    assert (outcome.status, outcome.exit_code, outcome.error) == ("failed", 4, str(error))
    assert isinstance(reply_of(Worker(failing(error), "cpu", True, first)).outcome, ImageError)


def test_what_is_wrong_with_the_model_ends_the_batch_with_its_hint():
    def make_work(_device):
        raise PackError("m.qpack: damaged", hint="copy it again")

    outcome = reply_of(Worker(make_work, "cpu", False, first)).outcome
    assert isinstance(outcome, PackError)
    assert outcome.hint == "copy it again"


def test_a_job_that_kills_its_workers_is_given_up():
    def work(_job):
        pytest.fail("begun once more")

    outcome = reply_of(Worker(lambda _: work, "cpu", False, lambda _: MOST_ATTEMPTS + 1)).outcome
    assert (outcome.status, outcome.exit_code) == ("failed", 5)
    assert f"{MOST_ATTEMPTS} workers died" in outcome.error


def test_a_job_that_was_begun_before_says_so():
    reply = reply_of(Worker(lambda _: lambda _job: {}, "cpu", False, lambda _: 2))
    assert reply.outcome.status == "done"
    assert [level for level, _ in reply.log] == [logging.WARNING]


def machines(*resources):
    """A stand-in for Ray that knows machines."""
    nodes = [{"Alive": True, "Resources": each} for each in resources]
    return SimpleNamespace(nodes=lambda: [*nodes, {"Alive": False, "Resources": {"GPU": 8.0}}])


@pytest.mark.parametrize(
    ("resources", "options", "device", "expected"),
    [
        ([{"CPU": 2.0}], {}, "auto", ("cpu", 1, {"num_cpus": 2})),
        ([{"CPU": 2.0}], {"cores": 1}, "auto", ("cpu", 2, {"num_cpus": 1})),
        ([{"CPU": 16.0}, {"CPU": 6.0}], {}, "auto", ("cpu", 5, {"num_cpus": 4})),
        ([{"CPU": 16.0}], {"workers": 3}, "cpu", ("cpu", 3, {"num_cpus": 4})),
        ([{"CPU": 8.0, "GPU": 4.0}, {"CPU": 4.0}], {}, "auto", ("cuda", 4, {"num_gpus": 1})),
        ([{"CPU": 8.0, "GPU": 4.0}], {"workers": 2}, "cuda", ("cuda", 2, {"num_gpus": 1})),
        ([{"CPU": 8.0, "GPU": 4.0}], {}, "cpu", ("cpu", 2, {"num_cpus": 4})),
    ],
)
def test_one_worker_for_each_gpu_or_for_so_many_cores(resources, options, device, expected):
    share = share_of(machines(*resources), ClusterOptions(**options), device)
    assert (share.device, share.workers, share.resources) == expected


def test_what_a_cluster_has_not():
    with pytest.raises(UsageError, match="no machine of the cluster has a GPU"):
        share_of(machines({"CPU": 8.0}), ClusterOptions(), "cuda")
    with pytest.raises(UsageError, match=r"--worker-cores 16: .* has 8"):
        share_of(machines({"CPU": 8.0}, {"CPU": 4.0}), ClusterOptions(cores=16), "cpu")


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError) as error:
        check_installed()
    assert error.value.hint == "pip install 'qdit4sr[cluster]'"
