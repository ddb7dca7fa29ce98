"""Speed, measured beside others in one run.

run.py        contestants in turns, the limits of the machine, the table
backbones.py  Mamba-2 and the Transformer beside those of transformers
codecs.py     EnCodec and residual quantisation beside their other implementations
kernels.py    fused kernels on a GPU
long.py       memory and time of a step, minute after minute of audio
"""
