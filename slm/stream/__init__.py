"""From ragged codes to one stream of ids and back.

vocabulary.py  which global id means what        layout.py  the order in which a [Q, T] grid of codes is told
part.py        several streams in one sequence   sample.py  one id from logits, and when to stop
"""
