import signal

import pytest

from gald.sweep.launch.exit_status import ExitStatus, classify_exit


def test_results_make_it_done():
    assert classify_exit(0, "", True, False) == ExitStatus("done")
    assert classify_exit(0, "", False, False).kind == "failed"


@pytest.mark.parametrize("code", [75, -signal.SIGTERM, -signal.SIGUSR1])
def test_a_stop_in_order_is_no_failure(code):
    assert classify_exit(code, "gald: whatever", False, False).kind == "preempted"


@pytest.mark.parametrize(
    "line",
    [
        "gald: OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB",
        "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried",
        "OSError: [Errno 12] Cannot allocate memory",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "MemoryError",
    ],
)
def test_want_of_memory_is_told_by_what_was_said(line):
    status = classify_exit(1, f"epoch 1\n{line}\n", False, False)
    assert status.kind == "memory" and line[:40] in status.reason


def test_a_kill_is_the_kernels_if_the_kernel_counted_one():
    assert classify_exit(-9, "", False, True).kind == "memory"
    assert classify_exit(-9, "", False, False) == ExitStatus(
        "killed", "ended by SIGKILL from outside"
    )


def test_a_failed_process_speaks_for_the_one_that_lightning_killed():
    log = "run folder: x\ngald: RuntimeError: rank 1 fell over\n(GALD_TRACEBACK=1 shows where)\n"
    assert classify_exit(-9, log, False, False) == ExitStatus(
        "failed", "RuntimeError: rank 1 fell over"
    )


def test_other_failures_show_the_last_line():
    assert classify_exit(3, "a\nb\n\n", False, False).reason == "exit code 3: b"
    assert classify_exit(3, "", False, False).reason == "exit code 3: no output"
