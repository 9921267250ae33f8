"""Parts of a method: a normalizer of the images, a step, and an average; each can be put into every method.

A new part is a class in one of these modules or one of its own, and a row in `harmofl.methods.catalogue.PARTS`.
"""
