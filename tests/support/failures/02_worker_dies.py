"""The worker of a task of alice is killed, as the system does when memory runs out."""

import os
import signal

import fed


@fed.remote(max_retries=0)
def train() -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.5


if __name__ == "__main__":
    with fed.job():
        print(fed.get(train.party("alice").remote()))
