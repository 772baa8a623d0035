"""The tiny picture world that the embedded benchmark and the embedded model share.

`draw` renders pictures, `language` writes answers in a demanded style and reads them back, `mixture` is the embedded
model's pre-training mixture. Nothing here trains anything.
"""
