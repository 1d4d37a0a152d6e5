"""Commands that are killed at random moments and repeated: the results are those of one run.

python -m tests.fuzz kills --count 200
"""
