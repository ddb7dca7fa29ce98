"""Speech that is heard while it is still being made: a WAV file that a browser asks for, and gets as it comes.

A WAV file whose length is not told needs nothing but the server that is there; gradio's own streams need ffmpeg. Chromium
plays it as it comes; other browsers were not tried. N samples
"""

from __future__ import annotations

import secrets
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from slm.data.audio import MADE, narrow

KEPT = 8  # recordings that can still be asked for; the oldest goes first
PATIENCE = 60.0  # seconds a browser waits for what comes next
UNKNOWN = 0xFFFFFFFF  # a length, to be read as: until it ends


@dataclass
class Recording:
    pieces: list[bytes] = field(default_factory=list)
    over: bool = False


class Live:
    """Recordings that grow, each under a name that cannot be guessed."""

    def __init__(self) -> None:
        self.recordings: dict[str, Recording] = {}
        self.changed = threading.Condition()

    def begin(self, rate: int) -> str:
        """The name of a new recording at `rate` Hz."""
        name = f"{secrets.token_urlsafe(16)}.wav"
        with self.changed:
            self.recordings[name] = Recording([header(rate)])
            for old in list(self.recordings)[:-KEPT]:
                self.recordings.pop(old).over = True
        return name

    def add(self, name: str, audio: Tensor) -> None:
        """audio [N] float32, heard after what there is."""
        with self.changed:
            if name in self.recordings:
                self.recordings[name].pieces.append(narrow(audio).tobytes())
            self.changed.notify_all()

    def end(self, name: str) -> None:
        with self.changed:
            if name in self.recordings:
                self.recordings[name].over = True
            self.changed.notify_all()

    def wav(self, recording: Recording) -> Iterator[bytes]:
        """All of it from its beginning, waiting for what is still to come."""
        at = 0
        while True:
            with self.changed:
                came = self.changed.wait_for(lambda: recording.over or len(recording.pieces) > at, PATIENCE)
                new, over = recording.pieces[at:], recording.over or not came
            yield from new
            at += len(new)
            if over:
                return

    def serve(self, app: Any) -> None:
        """Give the recordings away at /live/NAME of a FastAPI app."""
        from starlette.requests import Request
        from starlette.responses import Response, StreamingResponse
        from starlette.routing import Route

        def answer(request: Request) -> Response:
            recording = self.recordings.get(request.path_params["name"])
            if recording is None:
                return Response("there is no such recording, or no longer", 404)
            return StreamingResponse(self.wav(recording), media_type="audio/wav", headers={"Cache-Control": "no-store"})

        app.router.routes.insert(0, Route("/live/{name}", answer))  # before gradio's own, which take whatever is asked for


def header(rate: int) -> bytes:
    """The beginning of a WAV file of one channel of 16 bits, of unknown length, marked as synthetic."""
    mark = f"{MADE}\0".encode()
    mark += b"\0" * (len(mark) % 2)
    told = b"INFOICMT" + struct.pack("<I", len(mark)) + mark
    shape = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    parts = b"WAVE" + shape + b"LIST" + struct.pack("<I", len(told)) + told
    return b"RIFF" + struct.pack("<I", UNKNOWN) + parts + b"data" + struct.pack("<I", UNKNOWN)
