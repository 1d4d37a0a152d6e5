"""Fuzzing of everything that is read: mutated files get a typed error or an equal result.

    python -m tests.fuzz headers --count 1000000 --seed 1

A case follows from target, seed and number alone, so that each can be made again. It runs in a
forked process under limits of processor time and memory (`worker`), a judge says what became of it
(`judge`), and the process above counts, and starts another worker where one died (`campaign`).
"""
