"""The kinds of documents that JSON parsers are known to disagree on, one by one.

The questions are those of JSONTestSuite (N. Seriot, "Parsing JSON is a Minefield"), asked anew. Its
"implementation-defined" cases have an answer here: refused, unless the table says otherwise.
"""

from __future__ import annotations

from typing import Any

import pytest

from schemas import strictjson
from schemas.errors import MalformedDocument


def parse(data: bytes) -> Any:
    return strictjson.parse(data, what="it", max_bytes=1 << 20)


ACCEPTED: dict[str, tuple[bytes, Any]] = {
    "array-empty": (b"[]", []),
    "array-with-space": (b"[ ]", []),
    "array-of-arrays": (b"[[ ] ]", [[]]),
    "array-of-all": (b'[null,1,"a",{},[],true]', [None, 1, "a", {}, [], True]),
    "array-ending-with-a-newline": (b"[1\n]", [1]),
    "array-with-space-before-and-behind": (b" [1] ", [1]),
    "array-of-empty-strings": (b'["",""]', ["", ""]),
    "number-0": (b"0", 0),
    "number-minus-0": (b"-0", 0),
    "number-negative": (b"[-123]", [-123]),
    "number-one-digit-negative": (b"-1", -1),
    "number-largest": (b"9223372036854775807", 2**63 - 1),
    "number-smallest": (b"-9223372036854775807", -(2**63) + 1),
    "object-empty": (b"{}", {}),
    "object-with-an-empty-key": (b'{"":0}', {"": 0}),
    "object-of-two": (b'{"a":"b","c":"d"}', {"a": "b", "c": "d"}),
    "object-with-newlines": (b'{\n"a":\n"b"\n}', {"a": "b"}),
    "object-keys-that-differ-in-case": (b'{"a":1,"A":2}', {"a": 1, "A": 2}),
    "object-keys-that-look-alike": (
        '{"\u00e9":1,"e\u0301":2}'.encode(),
        {"\u00e9": 1, "e\u0301": 2},
    ),
    "object-key-with-nul-escaped": (b'{"a\\u0000b":1}', {"a\0b": 1}),
    "object-key-of-another-language": (b'{"__proto__":1}', {"__proto__": 1}),
    "string-empty": (b'""', ""),
    "string-escapes": (b'"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'),
    "string-escaped-letter": (b'"\\u0061"', "a"),
    "string-escapes-in-capitals": (b'"\\u00E9\\u00e9"', "\u00e9\u00e9"),
    "string-escaped-nul": (b'"\\u0000"', "\0"),
    "string-escaped-backslash-and-u": (b'"\\\\u0000"', "\\u0000"),
    "string-surrogate-pair": (b'"\\uD834\\uDD1E"', "\U0001d11e"),
    "string-last-surrogate-pair": (b'"\\uDBFF\\uDFFF"', "\U0010ffff"),
    "string-noncharacter": (b'"\\uFFFF"', "\uffff"),
    "string-noncharacter-pair": (b'"\\uD83F\\uDFFE"', "\U0001fffe"),
    "string-delete": (b'"\x7f"', "\x7f"),
    "string-two-bytes": ('"\u00e9"'.encode(), "\u00e9"),
    "string-three-bytes": ('"\u20ac"'.encode(), "\u20ac"),
    "string-four-bytes": ('"\U0001f600"'.encode(), "\U0001f600"),
    "string-line-separators": ('"\u2028\u2029"'.encode(), "\u2028\u2029"),
    "string-next-line": ('"\x85"'.encode(), "\x85"),
    "string-byte-order-mark-inside": ('"\ufeff"'.encode(), "\ufeff"),
    "string-comment-inside": (b'"/* not */ // one"', "/* not */ // one"),
    "lonely-true": (b"true", True),
    "lonely-false": (b"false", False),
    "lonely-null": (b"null", None),
    "lonely-string": (b'"a"', "a"),
    "spaces-of-all-four-kinds": (b" \t\r\n1\n\r\t ", 1),
}

REFUSED: dict[str, bytes] = {
    # arrays
    "array-without-a-comma": b"[1 true]",
    "array-with-a-colon": b"[1:2]",
    "array-comma-after-its-end": b"[1],",
    "array-comma-first": b"[,1]",
    "array-two-commas": b"[1,,2]",
    "array-two-commas-at-the-end": b"[1,,]",
    "array-comma-at-the-end": b'["",]',
    "array-only-a-comma": b"[,]",
    "array-not-closed": b"[1",
    "array-not-closed-with-a-comma": b"[1,\n1\n,1",
    "array-not-opened": b"1]",
    "array-closed-twice": b"[1]]",
    "array-closed-as-an-object": b"[1}",
    "array-of-a-word": b"[a",
    "array-of-a-star": b"[*]",
    "array-with-a-minus": b"[-]",
    # numbers: integers of 64 bits only
    "number-with-a-fraction": b"1.0",
    "number-with-an-exponent": b"1e1",
    "number-with-a-capital-exponent": b"1E+2",
    "number-with-a-negative-exponent": b"1e-2",
    "number-minus-0-as-a-float": b"-0.0",
    "number-tiny": b"123e-10000000",
    "number-huge": b"0.4e00669999999999999999999999999999999999999999999999999999999999999999",
    "number-beyond-64-bits": b"9223372036854775808",
    "number-below-64-bits": b"-9223372036854775809",
    "number-of-400-digits": b"1" * 400,
    "number-of-a-million-digits": b"1" * 1_000_000,
    "number-with-leading-0": b"012",
    "number-negative-with-leading-0": b"-012",
    "number-with-two-leading-zeros": b"00",
    "number-plus": b"+1",
    "number-plus-plus": b"++1",
    "number-minus-minus": b"--1",
    "number-minus-alone": b"-",
    "number-minus-space": b"- 1",
    "number-fraction-only": b".5",
    "number-minus-fraction-only": b"-.5",
    "number-point-at-the-end": b"1.",
    "number-point-and-exponent": b"2.e3",
    "number-exponent-without-digits": b"1e",
    "number-exponent-with-a-sign-alone": b"1e+",
    "number-two-points": b"1.2.3",
    "number-two-signs-inside": b"1-1",
    "number-hexadecimal": b"0x1F",
    "number-octal": b"0o17",
    "number-binary": b"0b1",
    "number-with-underscores": b"1_000",
    "number-with-a-comma-inside": b"1,000",
    "number-with-a-letter-behind": b"1a",
    "number-full-width": "\uff11".encode(),
    "number-arabic-indic": "\u0661".encode(),
    "nan": b"NaN",
    "minus-nan": b"-NaN",
    "infinity": b"Infinity",
    "minus-infinity": b"-Infinity",
    "inf": b"inf",
    # objects
    "object-key-twice": b'{"a":"b","a":"c"}',
    "object-key-and-value-twice": b'{"a":"b","a":"b"}',
    "object-key-twice-once-escaped": b'{"a":1,"\\u0061":2}',
    "object-empty-key-twice": b'{"":1,"":2}',
    "object-key-twice-deep-inside": b'[{"x":{"a":1,"b":2,"a":3}}]',
    "object-without-a-value": b'{"a"}',
    "object-without-a-value-behind-the-colon": b'{"a":}',
    "object-without-a-colon": b'{"a" 1}',
    "object-with-two-colons": b'{"a"::1}',
    "object-with-a-comma-for-a-colon": b'{"a",1}',
    "object-comma-at-the-end": b'{"a":0,}',
    "object-two-commas": b'{"a":0,,"b":1}',
    "object-comma-first": b'{,"a":0}',
    "object-key-unquoted": b"{a:1}",
    "object-key-single-quoted": b"{'a':1}",
    "object-key-a-number": b"{1:1}",
    "object-key-null": b"{null:1}",
    "object-key-an-array": b"{[]:1}",
    "object-not-closed": b'{"a":1',
    "object-closed-as-an-array": b'{"a":1]',
    "object-and-another": b'{"a":1}{"b":2}',
    "object-and-a-hash": b'{"a":1}#',
    "object-and-a-comment": b'{"a":1}/**/',
    "object-with-a-comment-inside": b'{"a":/*x*/1}',
    # strings
    "string-single-quotes": b"'a'",
    "string-without-quotes": b"abc",
    "string-not-closed": b'"abc',
    "string-closed-by-an-escape": b'"\\"',
    "string-unknown-escape": b'"\\a"',
    "string-escaped-x": b'"\\x00"',
    "string-escaped-newline": b'"\\\n"',
    "string-escape-cut-off": b'"\\u00A"',
    "string-escape-without-digits": b'"\\u"',
    "string-escape-with-a-capital-u": b'"\\U0061"',
    "string-escape-with-a-sign": b'"\\u+061"',
    "string-escape-with-spaces": b'"\\u 061"',
    "string-escape-with-full-width-digits": '"\\u\uff10\uff10\uff16\uff11"'.encode(),
    "string-newline": b'"a\nb"',
    "string-tab": b'"a\tb"',
    "string-nul": b'"a\0b"',
    "string-unit-separator": b'"\x1f"',
    "string-high-surrogate-alone": b'"\\uD800"',
    "string-low-surrogate-alone": b'"\\uDC00"',
    "string-surrogates-swapped": b'"\\uDD1E\\uD834"',
    "string-two-high-surrogates": b'"\\uD800\\uD800"',
    "string-surrogate-and-a-letter": b'"\\uD800a"',
    "string-surrogate-and-a-cut-off-one": b'"\\uD800\\u"',
    "string-surrogate-in-a-key": b'{"\\uD800":1}',
    # bytes
    "byte-lonely-continuation": b'"\x81"',
    "byte-cut-off-sequence": b'"\xe2\x82"',
    "byte-overlong-slash": b'"\xc0\xaf"',
    "byte-overlong-nul": b'"\xc0\x80"',
    "byte-overlong-of-six": b'"\xfc\x83\xbf\xbf\xbf\xbf"',
    "byte-surrogate-encoded": b'"\xed\xa0\x80"',
    "byte-surrogate-pair-encoded": b'"\xed\xa0\xb4\xed\xb4\x9e"',
    "byte-beyond-unicode": b'"\xf4\x90\x80\x80"',
    "byte-ff": b'"\xff"',
    "byte-latin-1": b'"\xe9"',
    "byte-in-a-key": b'{"\xff":1}',
    "byte-outside-a-string": b"[\xff]",
    "byte-order-mark": b"\xef\xbb\xbf{}",
    "byte-order-mark-alone": b"\xef\xbb\xbf",
    "utf-16": "{}".encode("utf-16"),
    "utf-16-big-endian": '["\u00e9"]'.encode("utf-16-be"),
    "utf-16-little-endian": '["\u00e9"]'.encode("utf-16-le"),
    "utf-32": "[]".encode("utf-32"),
    # structure
    "nothing": b"",
    "a-space": b" ",
    "a-nul": b"\0",
    "nul-behind": b"{}\0",
    "form-feed": b"[\x0c]",
    "vertical-tab": b"[\x0b]",
    "no-break-space": "[\u00a0]".encode(),
    "word-joiner": "[\u2060]".encode(),
    "line-separator-outside": "[1]\u2028".encode(),
    "true-in-capitals": b"[True]",
    "true-all-capitals": b"TRUE",
    "null-of-another-language": b"None",
    "undefined": b"undefined",
    "word-cut-off": b"[nul]",
    "words-together": b"truetrue",
    "two-documents": b"[1][2]",
    "two-documents-on-two-lines": b"[1]\n[2]",
    "comment-first": b"// x\n1",
    "angle-brackets": b"<null>",
    "escape-outside-a-string": b"[\\u000A]",
    "semicolon-behind": b"[1];",
    "100000-brackets": b"[" * 100_000,
    "100000-brackets-closed": b"[" * 100_000 + b"]" * 100_000,
    "50000-objects": b'{"":' * 50_000,
    "33-levels": b"[" * 33 + b"]" * 33,
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    data, value = ACCEPTED[name]
    found = parse(data)
    assert found == value
    assert type(found) is type(value)
    assert parse(strictjson.dumps(found)) == found


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(MalformedDocument) as caught:
        parse(REFUSED[name])
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
