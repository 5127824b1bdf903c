"""Alice waits for bob, whose program nobody starts."""

import fed

if __name__ == "__main__":
    with fed.job(init_timeout_s=5, lease_s=5):
        print(fed.parties())
