"""Licences from a machine-readable copyright file."""

import pytest

from training.photos.licences import CopyrightFile, Licence

TEXT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2014 The Authors
License: GPL-3+

Files: photos/*
       other/lake.jpg
Copyright: 2010 Ann <ann@example.org>
           2011 Bob
License: CC-BY-4.0
 You are free to share.
Comment: found on the web

Files: photos/hill.jpg
Copyright: 2012 Cid
License: public-domain

License: GPL-3+
 On Debian systems see the common licences.
"""


def test_the_last_matching_stanza_counts():
    parsed = CopyrightFile(TEXT)
    assert parsed.of("photos/tree.jpg") == Licence("CC-BY-4.0", "2010 Ann; 2011 Bob")
    assert parsed.of("photos/hill.jpg") == Licence("public-domain", "2012 Cid")
    assert parsed.of("readme") == Licence("GPL-3+", "2014 The Authors")


def test_a_picture_converted_to_another_format_keeps_its_licence():
    parsed = CopyrightFile(TEXT)
    assert parsed.of("photos/hill.webp").name == "public-domain"
    assert parsed.of("other/lake.webp").name == "CC-BY-4.0"


def test_a_file_without_a_stanza_is_an_error():
    with pytest.raises(LookupError, match=r"x\.jpg"):
        CopyrightFile("Format: none").of("x.jpg")
