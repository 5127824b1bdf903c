"""Another process listens at alice's address: often what is left of the run before."""

import fed

if __name__ == "__main__":
    with fed.job(init_timeout_s=5, lease_s=5):
        print(fed.parties())
