"""A SLURM of one node on this machine, for the tests of `make cluster-test`."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
CONF = """
ClusterName=gald
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=30
MinJobAge=3600
SlurmdTimeout=10
SlurmctldTimeout=30
InactiveLimit=0
JobRequeue=1
SwitchType=switch/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname={host} CPUs=4 RealMemory=16000 State=UNKNOWN
PartitionName=cpu Nodes=localhost Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


class Slurm:
    """A running SLURM; `wait` waits for jobs, `kill_node` crashes its node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        # A line of CI may itself be a SLURM job.
        for name in [name for name in self.environment if name.startswith("SLURM_")]:
            if name != "SLURM_CONF":
                del self.environment[name]
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, program: str, *arguments: str) -> None:
        """Start a daemon in the foreground of its own session."""
        with (self.folder / f"{program}.out").open("ab") as log:
            self.daemons[program] = subprocess.Popen(
                [program, *arguments],
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def call(self, *command: str, cwd: Path | None = None) -> str:
        """Run a command of SLURM; return its output."""
        done = subprocess.run(
            command,
            cwd=cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, folder: Path, script: str, *options: str) -> str:
        """Submit a script whose `gald` is the one of this environment; return the job's number."""
        path = folder / "job.sh"
        binaries = Path(sys.executable).parent
        lines = ["#!/bin/bash", f"export PATH={binaries}:$PATH OMP_NUM_THREADS=1", script]
        path.write_text("\n".join(lines) + "\n")
        out = self.call("sbatch", "--parsable", *options, str(path), cwd=folder)
        return out.strip().partition(";")[0]

    def states(self, job: str) -> list[str]:
        """Return the states of the tasks of a job, an array's elements one by one."""
        out = self.call("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "-o%T")
        return out.split()

    def wait(self, job: str, seconds: float = 600) -> list[str]:
        """Wait until a job has ended; return its states."""
        deadline = time.monotonic() + seconds
        busy = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED"}
        while (states := self.states(job)) and set(states) & busy:
            assert time.monotonic() < deadline, f"job {job} is {states} after {seconds} s"
            time.sleep(1)
        return states

    def node_is(self, *states: str) -> bool:
        """Return whether the node is in one of the states."""
        return self.call("sinfo", "--noheader", "-o%T").strip().rstrip("*~#") in states

    def end_node(self, kill: bool = False) -> None:
        """Stop the node; `kill` crashes it together with its jobs."""
        daemon = self.daemons.pop("slurmd")
        if kill:
            daemon.kill()
            for path in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):  # it has just ended
                    step = (path / "cmdline").read_bytes().startswith(b"slurmstepd")
                    if step or b"SLURM_JOB_ID=" in (path / "environ").read_bytes():
                        os.kill(int(path.name), signal.SIGKILL)
        else:
            daemon.terminate()
        daemon.wait(timeout=60)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A SLURM with one node of four cores on the loopback interface."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge")
    if os.getuid():
        pytest.skip("slurmd needs root")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONF.format(host=host, folder=folder, ports=ports))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    cluster = Slurm(folder)
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode:
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True)
    try:
        cluster.start("slurmctld", "-D")
        cluster.start("slurmd", "-D", "-N", "localhost")
        deadline = time.monotonic() + 60
        while True:
            time.sleep(1)
            try:
                if cluster.node_is("idle"):
                    break
            except (AssertionError, subprocess.TimeoutExpired):
                pass
            logs = "".join(p.read_text()[-1500:] for p in folder.glob("*.log"))
            assert time.monotonic() < deadline, f"SLURM did not start:\n{logs}"
        yield cluster
    finally:
        for daemon in cluster.daemons.values():
            daemon.terminate()
        for daemon in cluster.daemons.values():
            daemon.wait(timeout=30)
