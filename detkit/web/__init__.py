"""The page of a detector: drop pictures, move the score threshold, see boxes, download them.

`serving` is the way in. It imports gradio, which only this folder does, and only when a page is asked for.
"""
