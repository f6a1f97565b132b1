"""What a worker of a sweep does: run one config after the other, with the model of the last one kept open."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from interp_unlearn._core import InterpUnlearnError
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._flow import open_workbench
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._run import run
from interp_unlearn.runs._workbench import Workbench

Result = dict[str, str]
"""``{"state": "done" | "failed" | "stopped", "message": …}``."""


class Work:
    """Runs configs, and keeps the opened model and task for the next run on the same target and seed.

    Args:
        threads: Threads of torch and of the linear algebra behind NumPy.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._limits = threadpool_limits(threads)
        self._opened: tuple[str, Workbench] | None = None

    def __call__(self, config: Mapping[str, Any], folder: str) -> Result:
        """Run ``config`` in ``folder``; what goes wrong is in the result and in the folder's status, never raised."""
        try:
            parsed = RunConfig.from_dict(config)
            run(parsed, folder, bench=lambda: self._bench(parsed))
        except KeyboardInterrupt:
            return {"state": "stopped", "message": "interrupted"}
        except (InterpUnlearnError, OSError) as error:
            self._opened = None
            return {"state": "failed", "message": str(error)}
        except Exception as error:  # one broken run must not end the sweep: it is written down and reported
            self._opened = None
            message = f"{type(error).__name__}: {error}"
            out = RunFolder(folder)
            if (out.path / "config.json").exists():
                out.log("error", message=message, traceback=traceback.format_exc())
                out.write_status("failed", message=message)
            return {"state": "failed", "message": message}
        return {"state": "done", "message": ""}

    def _bench(self, config: RunConfig) -> Workbench:
        if self._opened is None or self._opened[0] != config.shared_key:
            self._opened = None  # lets go of the old model before the new one is opened
            self._opened = (config.shared_key, open_workbench(config))
        return self._opened[1]
