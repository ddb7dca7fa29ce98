"""Speed, measured beside others in one run.

run.py      contestants in turns, the limits of the machine, the table
codecs.py   EnCodec and residual quantisation beside their other implementations
"""
