"""Programs and ranks of programs, each a process of its own on this machine: forks of one that has imported already.

Of a process that starts by itself, the imports take four times as long as what a test does with a toy.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time

TRAINED = ("diffretouch", "csrnet", "sa_adjustnet", "autoencoder", "baselines")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([f"diffretouch.training.train_{name}" for name in TRAINED])


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _live(program, arguments, environment, threads, said):
    os.setsid()
    with open(said, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.update(environment)
    import torch

    torch.set_num_threads(threads)
    sys.argv = ["program.py", *arguments]
    exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})


@contextlib.contextmanager
def started(program, folder, *ranks, threads=1, machines=False):
    """A program's text, run once for each rank's arguments: [(process, file of what it says)].

    None outlives the block. Each leads a session of its own; one rank alone is no group.

    Args:
        folder: for what they say.
        machines: each rank is alone on a machine.
    """
    common = {"ACCELERATE_USE_CPU": "true"}
    if len(ranks) > 1:
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": len(ranks)}
        common["LOCAL_WORLD_SIZE"] = 1 if machines else len(ranks)
    running = []
    try:
        for n, arguments in enumerate(ranks):
            own = common | ({"RANK": n, "LOCAL_RANK": 0 if machines else n} if len(ranks) > 1 else {})
            environment, said = {name: str(value) for name, value in own.items()}, folder / f"rank{n}.txt"
            how = (program, list(map(str, arguments)), environment, threads, said)
            running.append((FORKS.Process(target=_live, args=how), said))
            running[-1][0].start()
        yield running
    finally:
        for process, _ in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its data workers
            process.kill()
            process.join()


def run_ranks(program, folder, *ranks, seconds=600, **how):
    """As `started`, to their ends: (exit code, what it said) of each rank."""
    with started(program, folder, *ranks, **how) as running:
        end = time.monotonic() + seconds
        for process, _ in running:
            process.join(max(end - time.monotonic(), 0))
        return [(process.exitcode, said.read_text()) for process, said in running]
