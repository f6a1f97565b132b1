"""Make the runs that the verdict is calibrated on: unlearned TinyWorlds whose truth can be measured.

    python benchmarks/verdict/make_runs.py --out runs/verdict --dry-run     # what there would be
    python benchmarks/verdict/make_runs.py --out runs/verdict --workers 2   # make it; the same call resumes
    python benchmarks/verdict/make_runs.py --out runs/verdict --limit 10    # the next ten that are not done

Run folders are the only state. Each run measures its evidence and its attacks and is then read by `collect.py`. A
target's gold model is trained once (one to two minutes). ``--slim`` removes weights and activations of each run when it
is finished (17 MB with them, 3 MB without).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edits import edit_file, make_edit, open_bench
from plan import Planned, plan

from interp_unlearn._core import InterpUnlearnError, write_json
from interp_unlearn.runs import Outcome, RunFolder, SweepConfig, SweepRun, sweep
from interp_unlearn.verdict import Dataset

HEAVY = ("activations/after", "delta.safetensors", "checkpoint", "measured/after")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    parser.add_argument("--limit", type=int, default=0, help="make at most so many runs that are not done yet")
    parser.add_argument("--methods", nargs="*", default=[], help="these alone")
    parser.add_argument("--tricks", nargs="*", default=[], help="these alone")
    parser.add_argument("--targets", nargs="*", default=[], help="these alone")
    parser.add_argument("--have", type=Path, default=None, help="table of collect.py: its runs are not made again")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--retry-failed", action="store_true")
    parser.add_argument("--slim", action="store_true", help="remove what finished runs no longer need")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    wishes = {"method": arguments.methods, "trick": arguments.tricks, "target": arguments.targets}
    chosen = [p for p in plan() if all(not only or getattr(p, kind) in only for kind, only in wishes.items())]
    had = set(Dataset.load(arguments.have).runs) if arguments.have is not None else set()
    state = {p.path: "had" if p.path in had else _state(out / p.path) for p in chosen}
    wanted = ("new", "failed") if arguments.retry_failed else ("new",)
    todo = [p for p in chosen if state[p.path] in wanted]
    todo = spread(todo)[: arguments.limit] if arguments.limit else todo
    describe(chosen, todo, state)
    if arguments.dry_run:
        return 0
    write_json(out / "plan.json", {p.path: p.facts for p in plan()})
    runs = list(prepare(out, todo))
    started = time.perf_counter()
    results: tuple[Outcome, ...] = ()
    if runs:
        results = sweep(
            SweepConfig("verdict", tuple(runs)),
            out,
            workers=arguments.workers,
            threads=1,
            retry_failed=arguments.retry_failed,
            watch=partial(watch, out if arguments.slim else None),
        )
    bad = [o for o in results if not o.good]
    seconds = time.perf_counter() - started
    print(f"{len(results) - len(bad)} runs done, {len(bad)} not, in {seconds / 60:.1f} min")
    for outcome in bad:
        print(f"  {outcome.run.name}: {outcome.state} {outcome.message}")
    return 1 if bad else 0


def spread(planned: Sequence[Planned]) -> list[Planned]:
    """The plan in an order in which the first few already hold many tricks and targets."""
    turn: Counter[str] = Counter()
    ranked = []
    for k, p in enumerate(planned):
        turn[p.trick] += 1
        ranked.append((turn[p.trick], k, p))
    return [p for _, _, p in sorted(ranked, key=lambda item: item[:2])]


def _state(folder: Path) -> str:
    """``new`` also for a run that was interrupted: the sweep continues it."""
    if not (folder / "config.json").exists():
        return "new"
    said = str(RunFolder(folder).status().get("state"))
    return said if said in ("done", "failed") else "new"


def describe(chosen: Sequence[Planned], todo: Sequence[Planned], state: dict[str, str]) -> None:
    print(f"{len(chosen)} runs on {len({p.target for p in chosen})} targets, {len({p.method for p in chosen})} methods")
    for what in ("trick", "size", "made_as", "method"):
        counts = Counter(getattr(p, what) or "-" for p in chosen)
        print(f"  by {what}: " + ", ".join(f"{k} {n}" for k, n in counts.items()))
    print(f"  state: {dict(Counter(state.values()))}; to do now: {len(todo)}")


def prepare(out: Path, todo: Sequence[Planned]) -> list[SweepRun]:
    """The runs, after the edits that they need have been made; an edit that fails is said and left out."""
    runs = []
    for group in dict.fromkeys(p.group for p in todo):
        own = [p for p in todo if p.group == group]
        missing = [p for p in own if p.edit is not None and not edit_file(out, p).exists()]
        bench = open_bench(missing[0]) if missing else None
        for p in missing:
            print(f"making the edit {p.path}", flush=True)
            try:
                make_edit(bench, p, edit_file(out, p))
            except InterpUnlearnError as error:
                print(f"  not made: {error}")
        for p in own:
            if p.edit is None:
                runs.append(p.run())
            elif edit_file(out, p).exists():
                runs.append(p.run(edit_file(out, p)))
    return runs


def watch(slimmed: Path | None, _active: Sequence[SweepRun], ended: Outcome | None, done: int, total: int) -> None:
    if ended is None:
        return
    print(f"{done}/{total} {ended.state:7s} {ended.seconds:6.1f} s  {ended.run.name} {ended.message}", flush=True)
    if slimmed is not None and ended.good:
        slim(slimmed / ended.run.name)


def slim(folder: Path) -> None:
    """Remove weights and activations of a finished run; evidence, tables and verdict stay."""
    for name in HEAVY:
        heavy = folder / name
        if heavy.is_dir():
            shutil.rmtree(heavy)
        else:
            heavy.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
