"""Files in, batches out.

audio.py     read, resample and write one file
corpus.py    the layouts in which speech corpora come
cuts.py      Lhotse cuts: made from clips, loaded, read
prepare.py   a corpus on disk -> cuts.jsonl.gz and a list of what was skipped
draw.py      random numbers that depend on nothing but their address
batches.py   which items make up the batch of step k
crops.py     fixed-length pieces of audio for codecs and vocoders
batch.py     a batch as a dict of ragged rows, and padding
cache.py     codes on disk, filed under the fingerprint of the tokenizer that made them
replacing.py a file appears whole or not at all

Nothing here knows a model. An iterator's position is never stored: whatever training sees at step k is computed from (seed, k).
"""
