"""Workers of a Ray cluster, on this machine or on many. Run folders are the only state: Ray holds no result.

The folders must lie on storage that all machines of the cluster see under the same path.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from interp_unlearn._core import InterpUnlearnError, optional_import
from interp_unlearn.runs._workers import WORK, Worker, WorkerLostError, cores, share_cores


class RayPool:
    """Actors of a Ray cluster.

    Args:
        workers: How many actors; default as many as the cluster has cores for.
        threads: Threads of each; default 1.
        address: Of a running cluster (``"auto"`` for the one of this machine), or None to start one here that ends
            with the sweep.
        work: What the actors do, ``"package.module:name"``.

    Raises:
        MissingPackageError: If ray is not installed.
        InterpUnlearnError: If there is no cluster at ``address``, or none can be started here.
        ConfigError: If the cluster has fewer cores than asked for.
    """

    def __init__(self, workers: int | None, threads: int | None, address: str | None, work: str = WORK) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray starts: nothing is sent anywhere
        self._ray = optional_import("ray", "sweep", "a sweep with --ray")
        self._work = work
        self.threads = threads or 1
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        if address is None:
            self.size, self.threads = share_cores(cores(), workers, self.threads, "this machine")
            self._start(num_cpus=self.size * self.threads, include_dashboard=False, **quiet)
            return
        try:
            self._ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise InterpUnlearnError(
                f"there is no Ray cluster at {address!r} ({_first_line(error)}); start one with: ray start --head, or "
                "leave --ray-address out to use this machine alone"
            ) from error
        try:
            available = int(self._ray.cluster_resources().get("CPU", 0))
            self.size, self.threads = share_cores(available, workers, self.threads, "the cluster")
        except BaseException:
            self.close()
            raise

    def _start(self, **options: Any) -> None:
        """Start Ray here; it gives itself 30 seconds, which a busy machine may exceed once."""
        for last in (False, True):
            try:
                self._ray.init(**options)
                return
            except Exception as error:  # ray raises a plain Exception here
                self._ray.shutdown()
                if last:
                    raise InterpUnlearnError(
                        f"Ray could not start on this machine ({_first_line(error)}); try again when the machine is "
                        "less busy, or leave --ray out"
                    ) from error

    def worker(self, number: int) -> Worker:  # noqa: ARG002
        """A new actor; it waits until the cluster has room for it."""
        return RayWorker(self._ray, self.threads, self._work)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()


class RayWorker:
    """One actor."""

    def __init__(self, ray: Any, threads: int, work: str) -> None:
        self._ray = ray
        # Made here and not at the top: ray is optional, and a class of a function travels to machines by its code.
        remote = ray.remote(num_cpus=threads, max_restarts=0, max_task_retries=0)(_actor_class())
        self._actor = remote.remote(work, threads)

    def run(self, config: Mapping[str, Any], folder: str) -> dict[str, str]:
        """See `Worker`."""
        try:
            return self._ray.get(self._actor.run.remote(dict(config), folder))
        except self._ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False):  # the next one would fail too: the package is missing there
                raise InterpUnlearnError(f"a Ray worker of the sweep could not start ({_first_line(error)})") from error
            raise WorkerLostError(f"its Ray worker is gone ({_first_line(error)})") from error

    def interrupt(self) -> None:
        """End the actor at once; its run goes on from its last checkpoint next time."""
        self._ray.kill(self._actor)

    def close(self) -> None:
        """See `Worker`."""
        self._ray.kill(self._actor)


def _actor_class() -> type:
    class Actor:
        def __init__(self, work: str, threads: int) -> None:
            module, _, name = work.partition(":")
            self._work = getattr(importlib.import_module(module), name)(threads)

        def run(self, config: dict[str, Any], folder: str) -> dict[str, str]:
            return self._work(config, folder)

    return Actor


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
