"""An emulator at a port, until Ctrl-C: for whoever wants to look at it."""

from __future__ import annotations

import argparse
from contextlib import suppress

from marathon_emulator.definitions import VERSIONS
from marathon_emulator.emulator import emulated
from marathon_emulator.rest import Server


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m marathon_emulator", description=__doc__)
    parser.add_argument("--version", choices=[*VERSIONS], default="1.5")
    parser.add_argument("--port", type=int, default=8080)
    args = parser.parse_args()
    with emulated(args.version) as emulator, Server(emulator, args.port) as server:
        print(f"an emulator of Marathon {emulator.version} at {server.url}", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever(0.05)


main()
