"""The ONNX backend suite against the plain list of cases that pass, which may only grow.

``python tests/onnx/test_backend_suite.py --update`` runs all cases and rewrites the list (removals are shown; think
before committing one). ``--failures`` prints why the others fail.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import onnx
import pytest

HERE = Path(__file__).parent
LIST = HERE / "backend_passing.txt"
PYTHON = HERE.parent.parent / "python"
SECONDS_A_CASE = 120
RANDOM = "test_bernoulli"  # compared with what numpy's generator drew: such a case passes by chance

Result = tuple[str, str]  # "pass", "fail", "skip", "crash" or "timeout"; message


def listed() -> list[str]:
    lines = LIST.read_text().splitlines() if LIST.exists() else []
    return [line for line in lines if line and not line.startswith("#")]


def listed_version() -> str:
    found = re.search(r"^# onnx (\S+)", LIST.read_text(), re.MULTILINE)
    return found[1] if found else ""


class Worker:
    """A process that runs cases; after one that kills it, another."""

    def __init__(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        if list((PYTHON / "tiercel").glob("_core*.so")):  # a plain CMake build: the modules stand in the source tree
            env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PYTHON), env.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "backend_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        self.answers: queue.Queue[dict[str, str | list[str]] | None] = queue.Queue()
        self.errors: collections.deque[str] = collections.deque(maxlen=40)
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._read, self._read_errors)]
        for t in self.threads:
            t.start()
        first = self.answers.get(timeout=600)
        if first is None:
            self.close()
            raise RuntimeError("the worker does not start:\n" + "".join(self.errors))
        self.cases: list[str] = list(first["cases"])

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.answers.put(json.loads(line))
        self.answers.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr
        self.errors.extend(self.process.stderr)

    def run(self, name: str) -> Result:
        assert self.process.stdin
        try:
            print(name, file=self.process.stdin, flush=True)
            while True:
                answer = self.answers.get(timeout=SECONDS_A_CASE)
                if answer is None:
                    break
                if answer.get("end") == name:
                    return str(answer["status"]), str(answer["message"])
        except queue.Empty:
            return "timeout", f"no answer within {SECONDS_A_CASE} s"
        except BrokenPipeError:
            pass
        self.process.wait()
        self.threads[1].join(timeout=10)
        return "crash", f"exit status {self.process.returncode}\n" + "".join(self.errors)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for t in self.threads:
            t.join(timeout=10)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def run_all(pattern: str = "") -> dict[str, Result]:
    """Results of all cases whose names match."""
    results: dict[str, Result] = {}
    worker = Worker()
    try:
        for name in [c for c in worker.cases if re.search(pattern, c) and RANDOM not in c]:
            results[name] = worker.run(name)
            if results[name][0] in ("crash", "timeout"):
                worker.close()
                worker = Worker()
    finally:
        worker.close()
    return results


@pytest.fixture(scope="session")
def results() -> dict[str, Result]:
    return run_all()


@pytest.mark.timeout(900)
def test_no_case_crashes(results: dict[str, Result]) -> None:
    died = {n: m for n, (s, m) in results.items() if s in ("crash", "timeout")}
    assert not died, "\n".join(f"{n}: {m}" for n, m in died.items())


def test_unlisted_cases_do_not_pass(results: dict[str, Result]) -> None:
    if onnx.__version__ != listed_version():
        pytest.skip(f"the list is that of onnx {listed_version()}")
    new = [n for n, (s, _) in results.items() if s == "pass" and n not in set(listed())]
    assert not new, f"add to {LIST.name} (--update does it): {new}"


def test_a_crash_is_noticed() -> None:
    worker = Worker()
    try:
        assert worker.run("no/such_case")[0] == "crash"
    finally:
        worker.close()


@pytest.mark.parametrize("name", listed())
def test_case(name: str, results: dict[str, Result]) -> None:
    status, message = results.get(name, ("missing", "this version of onnx has no such case"))
    if status == "missing":
        pytest.skip(message)
    assert status == "pass", f"{status}: {message}"


def summary(results: dict[str, Result]) -> Iterable[str]:
    kinds = sorted({n.split("/")[0] for n in results})
    for kind in [*kinds, ""]:
        found = collections.Counter(s for n, (s, _) in results.items() if n.startswith(kind))
        yield f"{kind or 'all':20} {found['pass']:5} of {found.total():5} pass" + "".join(
            f", {n} {s}" for s, n in sorted(found.items()) if s != "pass"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pattern", nargs="?", default="", help="a regular expression: only cases whose names match")
    parser.add_argument("--update", action="store_true", help=f"rewrite {LIST.name}")
    parser.add_argument("--failures", action="store_true", help="print why cases fail")
    args = parser.parse_args()
    results = run_all(args.pattern)
    if args.failures:
        for name, (status, message) in results.items():
            if status != "pass":
                print(f"{name}: {status}: {' '.join(message.split())[:300]}")
    before, passing = set(listed()), {n for n, (s, _) in results.items() if s == "pass"}
    for name in sorted((before & set(results)) - passing):
        print(f"no longer passes: {name}")
    if args.update:
        keep = {n for n in before if not re.search(args.pattern, n)}
        head = f"# Cases of onnx.backend.test that pass. Written by {Path(__file__).name} --update.\n# onnx {onnx.__version__}\n"
        LIST.write_text(head + "".join(f"{n}\n" for n in sorted(passing | keep)))
        print(f"{len(passing - before)} new in {LIST.name}")
    print("\n".join(summary(results)))


if __name__ == "__main__":
    main()
