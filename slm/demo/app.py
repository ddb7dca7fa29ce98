"""The web page: type a text, give a voice, hear it and see it.

    launch("default", "127.0.0.1", 7860)     what `slm demo` does
    build(slm.load("default"))               the page alone, a gradio.Blocks

The page works without a network: system fonts, no analytics, nothing fetched from anywhere but this server. What it writes (the
recordings that visitors give, the speech they get) lies in one folder that is removed at exit, and a day after it was made at the latest.
"""

from __future__ import annotations

import atexit
import html
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from slm.demo.live import Live
from slm.errors import SlmError
from slm.speak import PIECE, Speaker, Speech, load

if TYPE_CHECKING:
    import gradio

DAY = 86_400
LARGEST = "50mb"  # of a recording
SEEDS = 2**31 - 1
EXAMPLES = {
    "A sentence": "The birch canoe slid on the smooth planks, and the sun came out.",
    "Dates and numbers": "On 3 May 1921 the museum bought 17 clocks; only one of them still tells the time.",
    "A message": "Please call me back before a quarter past six. If nobody answers, leave a message, and say how I can reach you tomorrow.",
}
HEAD = "# Speech in a given voice\nType an English text, give a voice, and hear it."
NOTE = (
    "**This speech is synthetic.** No person said it, and the file says so too: its metadata carries the mark `synthetic`. "
    "Clone a voice only with the permission of the person it belongs to, and tell listeners what they hear."
)
ENDED = {
    "length": "A part of the text took longer than it should have and was cut off, so words may be missing.",
    "loop": "A part of the text began to repeat itself and was cut off, so words may be missing.",
    "silence": "A part of the text came out silent.",
}
CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
#facts { font-variant-numeric: tabular-nums; }
"""


def build(speaker: Speaker, live: Live | None = None) -> gradio.Blocks:
    """The page of one loaded model. Serve it with `launch`, which also brings its looks, or with gradio's own means.

    live: what the server gives away as it comes; without it speech is heard when all of it is there.
    """
    gr = _gradio()
    own = (speaker.model.folder / "voice.flac").exists()

    def answer(text: str, voice: str | None, seed: int | None, progress: gradio.Progress = gr.Progress()) -> Iterator[tuple]:
        """A generator, so that nothing more is spoken for a visitor who stopped it or left."""
        try:
            if voice is None and not own:
                raise SlmError("this model has no voice of its own; record about three seconds of a voice, or drop a file")
            if seed is None:
                raise SlmError(f"the seed is empty; give a whole number from 0 to {SEEDS}")
            yield None, None, "", ""  # what was said before
            progress(0, desc="Listening to the voice" if voice else "Speaking")
            for done, total, speech, player in heard(say(speaker, text, voice, seed), live):
                if done < total or player:
                    progress((done, total), desc="Speaking", unit="pieces")
                    yield gr.skip(), gr.skip(), gr.skip(), player or gr.skip()
        except SlmError as error:
            told = sentence(error, voice)
            yield None, None, told, ""  # stays when the notice has gone
            raise gr.Error(told, print_exception=False) from error
        wav, picture = write(speech)
        if speech.stop_reason != "end":
            gr.Warning(ENDED[speech.stop_reason])
        yield wav, picture, facts(speech), gr.skip()

    with gr.Blocks(title="slm", analytics_enabled=False, delete_cache=(DAY // 24, DAY)) as page:
        gr.Markdown(HEAD)
        with gr.Row():
            with gr.Column(min_width=380):
                text = gr.Textbox(label="Text", lines=5, max_lines=14, placeholder="What shall be said?", elem_id="text")
                gr.Examples([[example] for example in EXAMPLES.values()], [text], example_labels=list(EXAMPLES))
                voice = gr.Audio(
                    label="Voice: three seconds of one person" + (" (empty: the model's own voice)" if own else ""),
                    sources=["upload", "microphone"], type="filepath", buttons=[], elem_id="voice",
                )
                seed = gr.Number(0, label="Seed: another one says it another way", precision=0, minimum=0, maximum=SEEDS, elem_id="seed")
                with gr.Row():
                    start = gr.Button("Speak", variant="primary", scale=3, elem_id="speak")
                    stop = gr.Button("Stop", min_width=90, elem_id="stop")
            with gr.Column(min_width=380):
                playing = gr.HTML(elem_id="live", padding=False)
                audio = gr.Audio(label="Speech", interactive=False, buttons=["download"], elem_id="speech")
                line = gr.Markdown(elem_id="facts")
                picture = gr.Image(
                    show_label=False, interactive=False, buttons=["fullscreen"], alt_text="waveform and spectrogram", elem_id="picture"
                )
        gr.Markdown(NOTE)
        spoken = start.click(
            answer, [text, voice, seed], [audio, picture, line, playing], show_progress_on=audio, concurrency_limit=1, api_name="speak"
        )
        stop.click(lambda: "", None, playing, cancels=spoken, api_name=False)
    return page


def launch(model: str | Path, host: str, port: int, share: bool = False) -> None:
    """Load `model` once and serve its page until interrupted. port 0: any free one. SlmError: no such model, an address not to be had."""
    port = _free(host, port)
    live = Live()
    page = build(load(model), live)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stopped service removes its files, too
    _past_proxies(host)
    app, *_ = page.launch(
        server_name=host, server_port=port, share=share, prevent_thread_lock=True, quiet=True, max_file_size=LARGEST,
        theme=_theme(), css=CSS, footer_links=["gradio"], run_history=False, enable_monitoring=False, ssr_mode=False,
    )
    live.serve(app)
    print(f"{page.local_url} speaks; Ctrl-C ends it", flush=True)
    page.block_thread()


def say(speaker: Speaker, text: str, voice: str | Path | None, seed: int) -> Iterator[tuple[int, int, Speech]]:
    """After each stretch: (pieces done, pieces in all, what was said so far). In the end that is what `speaker.speak` says.

    SlmError where it raises one.
    """
    from slm_tokenizers.text.split import pieces

    began = time.perf_counter()
    total = len(pieces(text, PIECE))
    said = Speech(torch.zeros(0), speaker.rate, "end", seed)
    done = 0
    for piece in speaker.stream(text, voice, seed=seed):
        done += piece.over
        audio = torch.cat([said.audio, piece.audio])
        reason = piece.stop_reason if said.stop_reason == "end" else said.stop_reason
        said = Speech(audio, speaker.rate, reason, seed, (time.perf_counter() - began) / (len(audio) / speaker.rate))
        yield done, total, said


def heard(said: Iterator[tuple[int, int, Speech]], live: Live | None) -> Iterator[tuple[int, int, Speech, str]]:
    """The same, and with the first of it a player that plays all of it as it comes; elsewhere, and without `live`, no player."""
    name, samples = "", 0
    try:
        for done, total, speech in said:
            player = ""
            if live is not None:
                if not name:
                    name = live.begin(speech.rate)
                    player = f'<audio controls autoplay style="width: 100%" src="live/{name}"></audio>'
                live.add(name, speech.audio[samples:])
                samples = len(speech.audio)
            yield done, total, speech, player
    finally:  # also for a visitor who stopped it or left
        if live is not None:
            live.end(name)


def write(speech: Speech) -> tuple[str, str]:
    """The paths of speech.wav, marked as synthetic, and of its picture, in a new folder."""
    from slm.demo.picture import save

    folder = Path(tempfile.mkdtemp(dir=_files()))
    wav, picture = folder / "speech.wav", folder / "speech.png"
    speech.save(wav)
    save(picture, speech.audio, speech.rate)
    return str(wav), str(picture)


def facts(speech: Speech) -> str:
    """One line about what was said."""
    return f"{speech.seconds:.2f} s of speech · real-time factor {speech.rtf:.2f} · stop reason: {speech.stop_reason} · seed {speech.seed}"


def sentence(error: SlmError, voice: str | None = None) -> str:
    """What went wrong, as a sentence of HTML without the path that an upload was given on this machine."""
    told = " ".join(str(error).split())
    if voice is not None:
        told = told.replace(voice, "the recording")
    return html.escape(told[0].upper() + told[1:].removesuffix(".") + ".", quote=False)


@cache
def _files() -> Path:
    """The folder of everything that visitors give and get."""
    folder = tempfile.mkdtemp(prefix="slm-demo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _gradio():
    """gradio reads its switches from the environment when it is imported, or later."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(_files())
    import gradio

    return gradio


def _theme() -> gradio.themes.Base:
    """System fonts only: the default theme's may come from the network."""
    gr = _gradio()
    return gr.themes.Default(
        primary_hue="indigo", secondary_hue="indigo", neutral_hue="slate", radius_size="lg",
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"],
    )


def _free(host: str, port: int) -> int:
    """`port`, or any free one for 0. Asked before the model is loaded: a typo should not cost that time."""
    try:
        with socket.create_server((host, port)) as probe:
            return probe.getsockname()[1]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SlmError(f"{host}:{port} cannot be served ({reason}); give another --port (0: any free one) or --host") from None


def _past_proxies(host: str) -> None:
    """gradio calls its own page once; a proxy for everything else must not be asked for it."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = ",".join([*filter(None, [known]), "localhost", "127.0.0.1", host])
