"""Stands in for real runs: writes their folders in no time, without torch. Workers import it by name."""

import json
import os
import time
from pathlib import Path


class Stub:
    """A run named ``slow…`` takes a minute the first time, ``bad…`` fails, ``die…`` ends its worker."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __call__(self, config: dict, folder: str) -> dict[str, str]:
        out, name = Path(folder), config["name"]
        began = (out / "config.json").exists()
        out.mkdir(parents=True, exist_ok=True)
        (out / "config.json").write_text(json.dumps({"kind": "run", "version": "0", **config}))
        facts = {"pid": os.getpid(), "threads": self.threads, "pools": os.environ.get("OMP_NUM_THREADS")}
        status = out / "status.json"
        status.write_text(json.dumps({"state": "running", "finished": [], **facts}))
        if name.startswith("slow") and not began:
            time.sleep(60)
        if name.startswith("die") and not began:
            os._exit(3)
        if name.startswith("bad"):
            status.write_text(json.dumps({"state": "failed", "message": "no luck", **facts}))
            return {"state": "failed", "message": "no luck"}
        if not name.startswith("liar"):
            status.write_text(json.dumps({"state": "done", **facts}))
        return {"state": "done", "message": ""}
