import signal

import pytest

from gald.sweep.launch.exit_status import ExitStatus, classify_exit


def test_cell_is_done_only_with_results():
    assert classify_exit(0, "", True, False) == ExitStatus("done")
    assert classify_exit(0, "", False, False).kind == "failed"


@pytest.mark.parametrize("code", [75, 130, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGUSR2])
def test_stop_by_a_signal_is_no_failure(code):
    assert classify_exit(code, "gald: whatever", False, False).kind == "preempted"


@pytest.mark.parametrize(
    "line",
    [
        "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB",
        "gald: RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 4. GiB for an array",
        "gald: OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB",
        "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried",
        "OSError: [Errno 12] Cannot allocate memory",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "MemoryError",
    ],
)
def test_out_of_memory_is_recognised_in_the_log(line):
    status = classify_exit(1, f"epoch 1\n{line}\n", False, False)
    assert status.kind == "memory" and line[:40] in status.reason


@pytest.mark.parametrize(
    "line",
    [
        "gald: out of memory error in the coffee machine",
        "gald: RuntimeError: the out of memory error of yesterday",
        "warning: MemoryError is caught",
        "epoch 3: cannot allocate memory to old habits",
    ],
)
def test_words_about_memory_are_no_lack_of_it(line):
    assert classify_exit(1, f"epoch 1\n{line}\n", False, False).kind == "failed"


def test_sigkill_is_out_of_memory_if_the_kernel_counted_a_kill():
    assert classify_exit(-9, "", False, True).kind == "memory"
    assert classify_exit(-9, "", False, False) == ExitStatus(
        "killed", "ended by SIGKILL from outside"
    )


def test_error_of_a_further_process_explains_the_kill_by_lightning():
    log = "run folder: x\ngald: RuntimeError: rank 1 crashed\n(GALD_TRACEBACK=1 shows where)\n"
    assert classify_exit(-9, log, False, False) == ExitStatus(
        "failed", "RuntimeError: rank 1 crashed"
    )


def test_other_failures_show_the_last_line():
    assert classify_exit(3, "a\nb\n\n", False, False).reason == "exit code 3: b"
    assert classify_exit(3, "", False, False).reason == "exit code 3: no output"
