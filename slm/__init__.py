"""slm: speech language models. `slm.load("default").speak("Hello.", voice="prompt.wav").save("hello.wav")`"""

__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "load":  # on first use, so that `import slm` and `slm --help` need no torch
        from slm.speak import load

        return load
    raise AttributeError(f"module 'slm' has no attribute {name!r}")
