"""Several ranks of a program on this machine, each a process of its own: forks of one that has imported already.

Of a rank that starts by itself, the imports take four times as long as what a test does with a toy.
"""

import multiprocessing
import os
import socket
import sys
import time

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["diffretouch.training.train_diffretouch"])


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _live(program, arguments, environment, threads, said):
    with open(said, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.update(environment)
    import torch

    torch.set_num_threads(threads)
    sys.argv = ["program.py", *arguments]
    exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})


def run_ranks(program, folder, *ranks, threads=1, machines=False, seconds=600):
    """Run a program's text once for each rank's arguments; (exit code, what it said) of each. None outlives the call.

    Args:
        folder: for what they say.
        machines: each rank is alone on a machine.
    """
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": len(ranks)}
    common |= {"LOCAL_WORLD_SIZE": 1 if machines else len(ranks), "ACCELERATE_USE_CPU": "true"}
    said = [folder / f"rank{n}.txt" for n in range(len(ranks))]
    started = []
    try:
        for n, arguments in enumerate(ranks):
            own = common | {"RANK": n, "LOCAL_RANK": 0 if machines else n}
            environment = {name: str(value) for name, value in own.items()}
            how = (program, list(map(str, arguments)), environment, threads, said[n])
            started.append(FORKS.Process(target=_live, args=how))
            started[-1].start()
        end = time.monotonic() + seconds
        for process in started:
            process.join(max(end - time.monotonic(), 0))
        return [(process.exitcode, path.read_text()) for process, path in zip(started, said, strict=True)]
    finally:
        for process in started:
            process.kill()
            process.join()
