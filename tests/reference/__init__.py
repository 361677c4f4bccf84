"""The rules of docs/decisions.md, read a second time: plain Python, one recipient at a time, slow on purpose.

Nothing here imports `models` or `streams`; tests hold the columnar code and this to each other.
"""
