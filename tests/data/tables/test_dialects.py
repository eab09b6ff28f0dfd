"""CSV files are read however they are written, where that is plain; else the option is named."""

import gzip

import pytest

from batchensemble.data.tables.dialects import Dialect, layout_of

ROWS = [(1.5, "größe"), (2.25, "x"), (-3.0, "y")]


def written(separator=",", decimal=".", encoding="utf-8", before="", header="a{}y"):
    rows = "".join(f"{a}".replace(".", decimal) + separator + f"{y}\n" for a, y in ROWS)
    return (before + header.format(separator) + "\n" + rows).encode(encoding)


def found(folder, content, known=None, **given):
    path = folder / "table.csv"
    path.write_bytes(content)
    return layout_of(path, Dialect(**given), known or Dialect())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_what_is_plain_is_found(tmp_path, separator, encoding):
    decimal = "." if separator == "," else ","
    layout = found(tmp_path, written(separator, decimal, encoding))
    assert layout.header == ("a", "y")
    assert (layout.dialect.separator, layout.dialect.decimal) == (separator, decimal)
    assert layout.lines == 1


def test_utf_16_without_a_mark_is_plain_too(tmp_path):
    for encoding in ("utf-16-le", "utf-16-be"):
        assert found(tmp_path, written(encoding=encoding)).dialect.encoding == encoding


@pytest.mark.parametrize("before", ["sep=;\n", "\n\nsep=;\r\n", '"sep=;"\n', "SEP=;\n"])
def test_the_line_that_excel_writes_says_the_separator(tmp_path, before):
    layout = found(tmp_path, written(";", before=before))
    assert (layout.header, layout.dialect.separator) == (("a", "y"), ";")
    assert layout.lines == 1 + before.count("\n")


@pytest.mark.parametrize(
    ("content", "decimal"),
    [
        ("a;y\n1,5;x\n", ","),
        ("a;y\n1,5;x\n2.5;x\n", "."),
        ("a;y\n1,234;x\n", "."),  # which may be a thousand
        ("a;y\n0,234;x\n", ","),
        ('a,y\n"1,5",x\n', "."),
        ("a;y\n1;x\n", "."),
    ],
)
def test_the_decimal_sign_is_a_comma_only_where_that_is_plain(tmp_path, content, decimal):
    assert found(tmp_path, content.encode()).dialect.decimal == decimal


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (written(encoding="cp1252"), r"not text in UTF-8; .* such as --encoding cp1252"),
        (b"a,b;y\n1,2;3\n", r"separator is ambiguous, , or ;; give it with --separator"),
        (b"a|b\ty\n1|2\t3\n", r"separator is ambiguous, a tab or \|; give it with --separator"),
        (b"a,y\n1,5,2\n3,2,1\n", r"more fields than the header, .* row 1 \(line 2\)"),
    ],
)
def test_what_is_not_plain_is_refused_with_the_option(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=sentence):
        found(tmp_path, content)


def test_what_is_given_counts_and_what_is_known_helps_where_the_file_is_not_plain(tmp_path):
    not_plain = b"a,b;y\n1,2;3\n"
    assert found(tmp_path, not_plain, separator=";").header == ("a,b", "y")
    assert found(tmp_path, not_plain, Dialect(separator=",")).header == ("a", "b;y")
    old = Dialect(";", ",", "cp1252")
    layout = found(tmp_path, written(encoding="cp1252"), old)
    assert (layout.dialect.encoding, layout.dialect.separator) == ("cp1252", ",")
    assert found(tmp_path, written(), old).dialect.encoding == "utf-8"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"separator": ";;"}, "separator must be one character, or tab, got ';;'"),
        ({"separator": '"'}, "separator must be one character"),
        ({"decimal": ";"}, "decimal must be . or , got ';'"),
        ({"separator": ",", "decimal": ","}, "must differ, got ',' for both"),
        ({"encoding": "latin-99"}, "encoding must be a name such as .* got 'latin-99'"),
        ({"encoding": "base64"}, "encoding must be a name"),
    ],
)
def test_what_cannot_be_a_dialect_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        Dialect(**given)


def test_a_compressed_file_is_read(tmp_path):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(written(";", ",")))
    assert layout_of(path, Dialect(), Dialect()).dialect.decimal == ","
