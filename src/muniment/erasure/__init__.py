"""Erasure coding: k equal parts become n shares, any k of which give the parts back."""
