"""Bob's certificate is that of alice, or comes from another authority."""

import fed

if __name__ == "__main__":
    with fed.job():
        print(fed.parties())
