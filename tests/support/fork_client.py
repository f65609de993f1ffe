"""Run `doit` for a script that starts it by its name: as a fork of fork_server.py, in its place.

    python -I -S fork_client.py SOCKET LANG DOIT [WORD …]

Streams, directory and variables are those of this process, and so is the status; signals are not passed on.
Where a fork would not be the same, it becomes `doit` itself.
"""

from __future__ import annotations

import _socket  # socket.py takes as long to import as all else here
import json
import os
import struct
import sys

# as fork_server.py has them; PYTHON alone is one of action.yml
READ_AT_START = ("PYTHON", "LC_A", "LC_C", "LC_M", "LC_N", "LC_T", "TZ", "LD_")
MOST = 100_000


def main() -> int:
    """Return the status of the fork, as a shell has it."""
    path, lang, *command = sys.argv[1:]
    umask = os.umask(0o22)
    os.umask(umask)
    request = json.dumps([command, os.getcwd(), dict(os.environ), umask]).encode()
    read = any(name.startswith(READ_AT_START) for name in os.environ if name != "PYTHON")
    if read or os.environ.get("LANG", "") != lang or len(request) >= MOST:
        os.execv(command[0], command)
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    server.connect(path)
    streams = struct.pack("3i", 0, 1, 2)
    server.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
    answer = server.recv(1000)
    if not answer:
        print("the fork server has ended", file=sys.stderr)
        return 127
    code = os.waitstatus_to_exitcode(int(answer.split()[1]))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
