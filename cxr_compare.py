"""Lesion detector or image classifier: which finds the disease better, and how sure are we?"""

__version__ = "0.1.0"
