"""How good is the speech? Independent judges, each figure beside the same figure on real recordings.

    normalise.py   words as a recogniser's score compares them
    transcribe.py  the recogniser: Whisper from wheels, a folder or the hub
    wer.py         word errors, counted and pooled
    speaker.py     whose voice it is: cosine of an independent speaker encoder
    mos.py         a predicted mean opinion score
    codec.py       distances between a recording and its reconstruction
    coders.py      a recording through a codec and back, and the bits between
    opus.py        Opus, the yardstick of codecs
    recordings.py  recordings to measure on, from wherever they are listed
    resynthesis.py what distances and judges make of what came through a coder
    halves.py      recordings cut in two: a voice, and what it says
    interval.py    bootstrap intervals and a paired permutation test
    page.py        an evaluation to listen to and to look at
    pairs.py       what is to be said, in whose voice, and how the speaker said it
    peers.py       other systems that say the same texts
    judge.py       all judges hear every kind of audio the same way
    report.py      scores in a table and in a JSON file
    speak_eval.py  a model speaks every pair; everything above judges it
    requests.py    many odd requests, to find output that is empty, endless or looping
    extra.py       modules that only the extra `evaluate` installs

The judges are the optional extra `evaluate`; they know nothing of tokenizers, stages or training.
"""
