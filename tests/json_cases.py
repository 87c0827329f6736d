"""JSON texts in the families of JSONTestSuite: right (y), and left to the reader (i); json_wrong has n.

The names are those of the public cases, so that a result can be compared; the texts are spelled here.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

RIGHT: Final[dict[str, bytes]] = {
    "array_arraysWithSpaces": b"[[]   ]",
    "array_empty-string": b'[""]',
    "array_empty": b"[]",
    "array_ending_with_newline": b'["a"]\n',
    "array_false": b"[false]",
    "array_heterogeneous": b'[null, 1, "1", {}]',
    "array_null": b"[null]",
    "array_with_1_and_newline": b"[1\n]",
    "array_with_leading_space": b" [1]",
    "array_with_several_null": b"[1,null,null,null,2]",
    "array_with_trailing_space": b"[2] ",
    "number": b"[123e65]",
    "number_0e+1": b"[0e+1]",
    "number_0e1": b"[0e1]",
    "number_after_space": b"[ 4]",
    "number_double_close_to_zero": b"[-0.%s1]" % (b"0" * 76),
    "number_int_with_exp": b"[20e1]",
    "number_minus_zero": b"[-0]",
    "number_negative_int": b"[-123]",
    "number_negative_one": b"[-1]",
    "number_negative_zero": b"-0",
    "number_real_capital_e": b"[1E22]",
    "number_real_capital_e_neg_exp": b"[1E-2]",
    "number_real_capital_e_pos_exp": b"[1E+2]",
    "number_real_exponent": b"[123e45]",
    "number_real_fraction_exponent": b"[123.456e78]",
    "number_real_neg_exp": b"[1e-2]",
    "number_real_pos_exponent": b"[1e+2]",
    "number_simple_int": b"[123]",
    "number_simple_real": b"[123.456789]",
    "object": b'{"one":"two","three":"four"}',
    "object_basic": b'{"one":"two"}',
    "object_duplicated_key": b'{"a":"first","a":"second"}',
    "object_duplicated_key_and_value": b'{"a":"b","a":"b"}',
    "object_empty": b"{}",
    "object_empty_key": b'{"":0}',
    "object_escaped_null_in_key": b'{"a\\u0000b":1}',
    "object_extreme_numbers": b'{"min":-1.0e+28,"max":1.0e+28}',
    "object_long_strings": b'{"x":[{"id":"%s"}],"id":"%s"}' % (b"x" * 40, b"y" * 40),
    "object_simple": b'{"a":[]}',
    "object_string_unicode": '{"имя":"\\u041f\\u043e"}'.encode(),
    "object_with_newlines": b'{\n"a":"b"\n}',
    "string_1_2_3_bytes_UTF-8_sequences": b'["\\u0060\\u012a\\u12AB"]',
    "string_accepted_surrogate_pair": b'["\\uD801\\udc37"]',
    "string_accepted_surrogate_pairs": b'["\\ud83d\\ude39\\ud83d\\udc8d"]',
    "string_allowed_escapes": b'["\\"\\\\\\/\\b\\f\\n\\r\\t"]',
    "string_backslash_and_u_escaped_zero": b'["\\\\u0000"]',
    "string_backslash_doublequotes": b'["\\""]',
    "string_comments": b'["a/*b*/c/*d//e"]',
    "string_double_escape_a": b'["\\\\a"]',
    "string_double_escape_n": b'["\\\\n"]',
    "string_escaped_control_character": b'["\\u0012"]',
    "string_escaped_noncharacter": b'["\\uFFFF"]',
    "string_in_array": b'["word"]',
    "string_in_array_with_leading_space": b'[ "word"]',
    "string_last_surrogates_1_and_2": b'["\\uDBFF\\uDFFF"]',
    "string_nbsp_uescaped": b'["a\\u00A0b"]',
    "string_nonCharacterInUTF-8_U+10FFFF": b'["\xf4\x8f\xbf\xbf"]',
    "string_nonCharacterInUTF-8_U+FFFF": b'["\xef\xbf\xbf"]',
    "string_null_escape": b'["\\u0000"]',
    "string_one-byte-utf-8": b'["\\u002c"]',
    "string_pi": '["π"]'.encode(),
    "string_reservedCharacterInUTF-8_U+1BFFF": b'["\xf0\x9b\xbf\xbf"]',
    "string_simple_ascii": b'["ascii "]',
    "string_space": b'" "',
    "string_surrogates_U+1D11E_MUSICAL_SYMBOL_G_CLEF": b'["\\uD834\\uDd1e"]',
    "string_three-byte-utf-8": b'["\\u0821"]',
    "string_two-byte-utf-8": b'["\\u0123"]',
    "string_u+2028_line_sep": b'["\xe2\x80\xa8"]',
    "string_u+2029_par_sep": b'["\xe2\x80\xa9"]',
    "string_uEscape": b'["\\u0061\\u30af\\u30EA\\u30b9"]',
    "string_uescaped_newline": b'["a\\u000Ab"]',
    "string_unescaped_char_delete": b'["\x7f"]',
    "string_unicode": b'["\\uA66D"]',
    "string_unicodeEscapedBackslash": b'["\\u005C"]',
    "string_unicode_escaped_double_quote": b'["\\u0022"]',
    "string_unicode_U+10FFFE_nonchar": b'["\\uDBFF\\uDFFE"]',
    "string_unicode_U+2064_invisible_plus": b'["\\u2064"]',
    "string_unicode_U+FDD0_nonchar": b'["\\uFDD0"]',
    "string_utf8": '["€𝄞"]'.encode(),
    "string_with_del_character": b'["a\x7fa"]',
    "structure_lonely_false": b"false",
    "structure_lonely_int": b"42",
    "structure_lonely_negative_real": b"-0.1",
    "structure_lonely_null": b"null",
    "structure_lonely_string": b'"word"',
    "structure_lonely_true": b"true",
    "structure_string_empty": b'""',
    "structure_trailing_newline": b'["a"]\n',
    "structure_true_in_array": b"[true]",
    "structure_whitespace_array": b" [] ",
}


class Left(NamedTuple):
    """A text that a reader may take or refuse, and what ingestd does with it as a value.

    `small` is for a body up to `strict_bytes_max`, `large` for one beyond: a code of 400, or what is
    read back from the line.
    """

    text: bytes
    small: object
    large: object


REFUSED: Final = ("number_out_of_range", "invalid_utf8", "invalid_json", "too_deep")


def _same(text: bytes, outcome: object) -> Left:
    return Left(text, outcome, outcome)


_TOO_BIG: Final = "number_out_of_range"
_HUGE: Final = 10**47
LEFT: Final[dict[str, Left]] = {
    # A double cannot hold it, and Polars refuses the file. Large bodies are not looked at so closely.
    "number_huge_exp": Left(
        b"[0.4e00669999999999999999999999999999999999999999999999999969999999006]", _TOO_BIG, [math.inf]
    ),
    "number_neg_int_huge_exp": Left(b"[-1e+9999]", _TOO_BIG, [-math.inf]),
    "number_pos_double_huge_exp": Left(b"[1.5e+9999]", _TOO_BIG, [math.inf]),
    "number_real_neg_overflow": Left(b"[-123123e100000]", _TOO_BIG, [-math.inf]),
    "number_real_pos_overflow": Left(b"[123123e100000]", _TOO_BIG, [math.inf]),
    "number_very_big_negative_int": Left(b"[-%d]" % _HUGE, _TOO_BIG, [-_HUGE]),
    # Kept as they are spelled: readers round them, none refuses them.
    "number_double_huge_neg_exp": _same(b"[123.456e-789]", [0.0]),
    "number_real_underflow": _same(b"[123e-10000000]", [0.0]),
    "number_too_big_neg_int": _same(b"[-123123123123123123123123123123]", [-123123123123123123123123123123]),
    "number_too_big_pos_int": _same(b"[100000000000000000000]", [10**20]),
    # JavaScript clients cut emoji in two; one must not cost the batch.
    "object_key_lone_2nd_surrogate": _same(b'{"\\uDFAA":0}', {"\ufffd": 0}),
    "string_1st_surrogate_but_2nd_missing": _same(b'["\\uDADA"]', ["\ufffd"]),
    "string_1st_valid_surrogate_2nd_invalid": _same(b'["\\uD888\\u1234"]', ["\ufffd\u1234"]),
    "string_incomplete_surrogate_and_escape_valid": _same(b'["\\uD800\\n"]', ["\ufffd\n"]),
    "string_incomplete_surrogate_pair": _same(b'["\\uDd1ea"]', ["\ufffda"]),
    "string_incomplete_surrogates_escape_valid": _same(b'["\\uD800\\uD800\\n"]', ["\ufffd\ufffd\n"]),
    "string_invalid_lonely_surrogate": _same(b'["\\ud800"]', ["\ufffd"]),
    "string_invalid_surrogate": _same(b'["\\ud800abc"]', ["\ufffdabc"]),
    "string_inverted_surrogates_U+1D11E": _same(b'["\\uDd1e\\uD834"]', ["\ufffd\ufffd"]),
    "string_lone_second_surrogate": _same(b'["\\uDFAA"]', ["\ufffd"]),
    # RFC 8259 §8.1: JSON between systems is UTF-8, and one that begins with no byte order mark.
    "string_invalid_utf-8": _same(b'["\xff"]', "invalid_utf8"),
    "string_iso_latin_1": _same(b'["\xe9"]', "invalid_utf8"),
    "string_lone_utf8_continuation_byte": _same(b'["\x81"]', "invalid_utf8"),
    "string_not_in_unicode_range": _same(b'["\xf4\xbf\xbf\xbf"]', "invalid_utf8"),
    "string_overlong_sequence_2_bytes": _same(b'["\xc0\xaf"]', "invalid_utf8"),
    "string_overlong_sequence_6_bytes": _same(b'["\xfc\x83\xbf\xbf\xbf\xbf"]', "invalid_utf8"),
    "string_overlong_sequence_6_bytes_null": _same(b'["\xfc\x80\x80\x80\x80\x80"]', "invalid_utf8"),
    "string_truncated-utf-8": _same(b'["\xe0\xff"]', "invalid_utf8"),
    "string_UTF-8_invalid_sequence": _same(b'["\xe6\x97\xa5\xd1\x88\xfa"]', "invalid_utf8"),
    "string_UTF8_surrogate_U+D800": _same(b'["\xed\xa0\x80"]', "invalid_utf8"),
    "string_UTF-16LE_with_BOM": _same(b"\xff\xfe" + '["é"]'.encode("utf-16-le"), "invalid_utf8"),
    "string_utf16BE_no_BOM": _same('["é"]'.encode("utf-16-be"), "invalid_utf8"),
    "string_utf16LE_no_BOM": _same('["é"]'.encode("utf-16-le"), "invalid_utf8"),
    "structure_UTF-8_BOM_empty_object": _same(b"\xef\xbb\xbf{}", "invalid_json"),
    # DuckDB and jq refuse a file with more than 127 levels; large bodies are not looked at so closely.
    "structure_500_nested_arrays": Left(b"[" * 500 + b"]" * 500, "too_deep", None),
}
"""`None` stands for a value that is kept, but not read back: readers of the line may recurse."""
