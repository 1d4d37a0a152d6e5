"""JSON values that readers stumble over."""

from random import Random

NUMBERS = (
    *("0", "-0", "-0.0", "1", "-1", "2", "3", "7", "8", "16", "17", "255", "256", "65535", "65536"),
    *("2147483647", "2147483648", "-2147483649", "4294967296", "9007199254740993"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551616", "1" + "0" * 30),
    *("1" + "0" * 400, "9" * 5000, "-" + "9" * 5000),
    *("0.1", "1.0", "1.5", "1e-300", "5e-324", "1e38", "3e38", "1e308", "-1e308", "1e309", "1e999"),
    *("1E+2", "1e", "01", "+1", ".5", "1.", "0x10", "1_000", "NaN", "Infinity", "-Infinity", "nan"),
)
OTHERS = ("null", "true", "false", "[]", "{}", '""', "[[]]", "[null]", '{"":null}', "", "undefined")
TEXTS = (
    *(r"\u0000", r"a\u001b[31mred", r"two\nlines", r"\r\n", r"\t", r"\u202egnp.exe", r"\u2028"),
    *(r"\ud800", r"\udfff\ud800", r"\ud83d\ude00", r"\uFFFF", "é", "e\u0301", "\ufeff", "😀"),
    *("../../etc/passwd", "/etc/passwd", "a/b", r"a\\b", ".", "..", "C:", "nul", "%s%n", "{0}"),
    *("__class__", "__proto__", "__metadata__", "none", "None", "4", "1.5", "true", "q", "F32"),
    *(r"\x41", r"\q", "\x00", "\x1b[2J", "\n", "\x7f", "\x85"),
)
LONG = (100, 300, 5_000, 70_000)
DEEP = (5, 31, 32, 33, 400, 5_000, 100_000)


def literal(rng: Random) -> str:
    """A JSON value, or what is nearly one."""
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(NUMBERS)
    if kind < 0.65:
        return rng.choice(OTHERS)
    if kind < 0.9:
        return text(rng)
    if kind < 0.97:
        return deep(rng)
    return "[" + ",".join([rng.choice(NUMBERS[:20])] * rng.choice(LONG)) + "]"


def text(rng: Random) -> str:
    """A JSON text in its quotes."""
    content = rng.choice(TEXTS)
    if rng.random() < 0.1:
        content *= max(1, rng.choice(LONG) // len(content))
    return f'"{content}"'


def deep(rng: Random) -> str:
    """Brackets in brackets."""
    depth = rng.choice(DEEP)
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")))
    inside = rng.choice(("", "0", "[]")) if opening == "[" else "0"
    return opening * depth + inside + closing * depth
