"""Mutated inputs for all that reads what strangers send: `python -m tests.fuzz`, `make fuzz`.

An input is made from (seed, area, number) alone, so each can be had again. What is found becomes a case in the tests of the
package concerned.
"""
