"""Child of test_api_faults.py: `grapnel` in which writes can be made to fail, and work to stand still.

GRAPNEL_TEST_CONTROL names a Unix socket to listen on; one JSON object a line is asked and answered:

    {"do": "hold", "point": NAME}     who passes this failpoint, too, from now on waits there
    {"do": "release"}                 nobody waits any more, anywhere
    {"do": "held"}                    {"held": how many wait now}
    {"do": "arm", "folder": F, "kind": KIND, "count": N}   failing_disk.c, if it is preloaded from $LD_PRELOAD
    {"do": "disarm"}                  {"spent": what was written, or how often it was synced}
"""

import ctypes
import json
import os
import socketserver
import sys
import threading
from pathlib import Path
from typing import Any

import index.durable

KINDS = ("off", "full", "short", "sync")


class Gate:
    """Failpoints to wait at."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._points: set[str] = set()
        self._held = 0

    def failpoint(self, name: str) -> None:
        with self._changed:
            if name in self._points:
                self._held += 1
                self._changed.wait_for(lambda: name not in self._points)
                self._held -= 1

    def hold(self, point: str) -> None:
        with self._changed:
            self._points.add(point)

    def release(self) -> None:
        with self._changed:
            self._points.clear()
            self._changed.notify_all()

    @property
    def held(self) -> int:
        with self._changed:
            return self._held


gate = Gate()
index.durable.failpoint = gate.failpoint  # before anything else imports it


class Control(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(json.dumps(self._answer(json.loads(line))).encode() + b"\n")

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        match asked["do"]:
            case "hold":
                gate.hold(asked["point"])
            case "release":
                gate.release()
            case "held":
                return {"held": gate.held}
            case "arm":
                disk().fault_arm(asked["folder"].encode(), KINDS.index(asked["kind"]), ctypes.c_long(asked["count"]))
            case "disarm":
                disk().fault_arm(b"/", 0, ctypes.c_long(0))
                return {"spent": disk().fault_spent()}
        return {}


def disk() -> ctypes.CDLL:
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    library.fault_spent.restype = ctypes.c_long
    return library


def main() -> int:
    path = Path(os.environ["GRAPNEL_TEST_CONTROL"])
    path.unlink(missing_ok=True)  # of the process before
    control = socketserver.ThreadingUnixStreamServer(str(path), Control)
    control.daemon_threads = True
    threading.Thread(target=control.serve_forever, daemon=True).start()
    from api.cli import main as grapnel  # noqa: PLC0415  after the failpoint was replaced

    return grapnel()


if __name__ == "__main__":
    sys.exit(main())
