"""Another process listens at alice's address: often what is left of the run before."""

import fed

if __name__ == "__main__":
    with fed.job():
        print(fed.parties())
