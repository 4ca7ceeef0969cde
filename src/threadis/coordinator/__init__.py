"""The rare commands, and those that need judgement: one coroutine each.

Its rooms look only down: tests/test_architecture.py says who may import whom.
"""
