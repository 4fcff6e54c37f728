"""Threads, forks, imports: what a session and the package do to the process around them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel
from small_models import model

WORK = """<ir_version: 8, opset_import: ["": 17]>
work (float[N, 64, 64] x) => (float[N, 64, 64] y, float[N, 64] z)
{
    t = Transpose <perm = [0, 2, 1]> (x)
    y = Softmax <axis = -1> (t)
    axes = Constant <value = int64[1] {2}> ()
    z = ReduceSum <keepdims = 0> (y, axes)
}"""


def python(code: str, **env: str) -> str:
    """Runs a fresh interpreter and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_session_on_many_threads() -> None:
    s = tiercel.InferenceSession(model(WORK))
    rng = np.random.default_rng(0)
    feeds = [rng.standard_normal((1 + i % 3, 64, 64)).astype(np.float32) for i in range(12)]
    want = [s.run(None, {"x": x}) for x in feeds]
    wrong: list[str] = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(feeds)).tolist() * 10
        for i in order:
            got = s.run(None, {"x": feeds[i]})
            if not all(np.array_equal(g, w) for g, w in zip(got, want[i], strict=True)):
                wrong.append(f"thread {seed}, feed {i}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not any(t.is_alive() for t in threads)
    assert not wrong


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = np.random.default_rng(0).standard_normal((40, 64, 64)).astype(np.float32)
    results = []
    for n in (1, 2, 3):
        o = tiercel.SessionOptions()
        o.intra_op_num_threads = n
        results.append(tiercel.InferenceSession(model(WORK), o).run(None, {"x": x}))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_interpreters_lock_is_released() -> None:
    """Another thread goes on while one run is at work."""
    s = tiercel.InferenceSession(model(WORK))
    x = np.zeros((2000, 64, 64), np.float32)
    s.run(None, {"x": x[:1]})
    stop, steps = threading.Event(), [0]

    def count() -> None:
        while not stop.is_set():
            steps[0] += 1
            time.sleep(0.0005)

    t = threading.Thread(target=count)
    t.start()
    try:
        before = steps[0]
        start = time.perf_counter()
        s.run(None, {"x": x})
        took = time.perf_counter() - start
        assert took < 0.02 or steps[0] - before >= 3, f"{steps[0] - before} steps in {took:.3f} s"
    finally:
        stop.set()
        t.join()


def test_terminate_from_another_thread() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N, 64, 64] x) => (float[N, 64, 64] y) {"""
    for i in range(200):
        text += f"t{i + 1} = Softmax <axis = {1 + i % 2}> ({f't{i}' if i else 'x'})\n"
    s = tiercel.InferenceSession(model(text + "y = Identity (t200) }"))
    x = np.ones((200, 64, 64), np.float32)
    options = tiercel.RunOptions()
    timer = threading.Timer(0.05, lambda: setattr(options, "terminate", True))
    timer.start()
    start = time.perf_counter()

    def run_on() -> None:
        while time.perf_counter() - start < 30:
            s.run(None, {"x": x}, options)

    with pytest.raises(tiercel.errors.Fail, match="terminate"):
        run_on()
    timer.join()
    assert s.run(None, {"x": x[:1]})[0].shape == (1, 64, 64)


def in_child(work: object) -> int:
    """Exit status of `work` in a forked child; -1 when it hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forking with threads
        pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
            os._exit(0)
        except BaseException:
            os._exit(1)
    for _ in range(600):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1


def test_a_session_works_in_a_forked_child() -> None:
    o = tiercel.SessionOptions()
    o.intra_op_num_threads = 2
    s = tiercel.InferenceSession(model(WORK), o)
    x = np.random.default_rng(0).standard_normal((40, 64, 64)).astype(np.float32)
    want = s.run(None, {"x": x})

    def child() -> None:
        for session in (s, tiercel.InferenceSession(model(WORK), o)):
            got = session.run(None, {"x": x})
            assert all(np.array_equal(g, w) for g, w in zip(got, want, strict=True))

    for _ in range(3):
        assert in_child(child) == 0
        np.testing.assert_array_equal(s.run(None, {"x": x})[0], want[0])


def test_a_fork_while_other_threads_run() -> None:
    s = tiercel.InferenceSession(model(WORK))
    x = np.random.default_rng(0).standard_normal((20, 64, 64)).astype(np.float32)
    want = s.run(None, {"x": x})
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            s.run(None, {"x": x})

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for t in threads:
        t.start()
    try:

        def child() -> None:
            assert np.array_equal(s.run(None, {"x": x})[0], want[0])

        for _ in range(5):
            assert in_child(child) == 0
    finally:
        stop.set()
        for t in threads:
            t.join()


def test_a_fork_while_initializers_are_replaced() -> None:
    """Another thread prepares the model for other weights when the process forks."""
    rng = np.random.default_rng(0)
    weights = {f"w{i}": (rng.standard_normal((512, 512)) * 0.05).astype(np.float32) for i in range(8)}
    nodes = [helper.make_node("MatMul", ["x" if i == 0 else f"p{i - 1}", f"w{i}"], [f"p{i}" if i < 7 else "y"]) for i in range(8)]
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 512])]
    infos += [helper.make_tensor_value_info(n, TensorProto.FLOAT, [512, 512]) for n in weights]
    values = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], values)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    s = tiercel.InferenceSession(proto.SerializeToString())
    x, zero = np.ones((1, 512), np.float32), np.zeros((512, 512), np.float32)
    for i in range(6):
        other = threading.Thread(target=s.run, args=(None, {"x": x, f"w{i}": zero}))
        other.start()
        time.sleep(0.002)
        assert in_child(lambda: s.run(None, {"x": x, "w7": zero})) == 0
        other.join()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_a_child_does_not_count_the_runs_of_its_parent() -> None:
    o = tiercel.SessionOptions()
    o.intra_op_num_threads = 2
    s = tiercel.InferenceSession(model(WORK), o)
    x = np.random.default_rng(0).standard_normal((600, 64, 64)).astype(np.float32)
    s.run(None, {"x": x})
    start = time.perf_counter()
    s.run(None, {"x": x})
    took = time.perf_counter() - start
    runs = [threading.Thread(target=s.run, args=(None, {"x": x})) for _ in os.sched_getaffinity(0)]
    for t in runs:
        t.start()
    time.sleep(took / 4)  # they are under way

    def child() -> None:
        s.run(None, {"x": x[:40]})
        assert len(os.listdir("/proc/self/task")) == 2

    try:
        assert in_child(child) == 0
    finally:
        for t in runs:
            t.join()


def test_import_starts_no_threads_and_imports_no_onnx() -> None:
    out = python("""
        import os, sys, numpy
        before = len(os.listdir("/proc/self/task"))
        import tiercel
        print(len(os.listdir("/proc/self/task")) - before)
        print(sorted(m for m in sys.modules if m.split(".")[0] in ("onnx", "onnxruntime", "torch", "ml_dtypes", "google")))
    """)
    assert out.split("\n")[:2] == ["0", "[]"]


def test_import_time() -> None:
    """At most 40 ms over numpy's; the best of several, since others use the machine too."""
    code = """
        import time, numpy
        start = time.perf_counter()
        import tiercel
        print(time.perf_counter() - start)
    """
    assert min(float(python(code)) for _ in range(5)) < 0.040


def test_forced_isa() -> None:
    for isa in tiercel._core.running_isas():
        assert python("import tiercel; print(tiercel.build_info()['isa'])", TIERCEL_FORCE_ISA=isa).strip() == isa
    out = python(
        """
        import tiercel
        try:
            tiercel.build_info()
        except tiercel.errors.InvalidArgument as e:
            print(e)
        """,
        TIERCEL_FORCE_ISA="sse9",
    )
    assert "sse9" in out
    assert "baseline" in out


def test_import_before_and_after_exit_is_quiet() -> None:
    """A session alive at exit, a daemon thread at work: no crash, no noise."""
    code = """
        import threading, numpy as np, tiercel
        from onnx import parser
        text = '<ir_version: 8, opset_import: ["": 17]> g (float[N, 3] x) => (float[3, N] y) { y = Transpose (x) }'
        s = tiercel.InferenceSession(parser.parse_model(text).SerializeToString())
        x = np.zeros((2, 3), "f4")
        kept = s.run(None, {"x": x})
        def busy():
            while True:
                s.run(None, {"x": x})
        threading.Thread(target=busy, daemon=True).start()
        print("done")
    """
    assert python(code) == "done\n"
