"""Asks a daemon's control socket: one line of JSON there, one back (common/control.h)."""

import json
import socket

from .basics import LabError


class Refused(LabError):
    """The daemon said no, with a code."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def ask(path: str, method: str, params: dict, timeout: float = 60):
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
            connection.sendall(json.dumps({"id": 1, "method": method, "params": params}).encode() + b"\n")
            answer = json.loads(connection.makefile("rb").readline() or b'{"error": {"code": "gone", "message": ""}}')
    except OSError as error:
        raise LabError(f"control socket {path}: {method}: {error}") from None
    if "error" in answer:
        raise Refused(answer["error"]["code"], f"{method}: {answer['error']['message'] or 'the daemon went away'}")
    return answer["result"]
