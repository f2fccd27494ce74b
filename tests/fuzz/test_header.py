"""Whatever stands in ismrmrd_header is read as a header or refused, soon."""

from hypothesis import example, given
from hypothesis import strategies as st

from workbench.data.header import parse_header
from workbench.data.volume import MOST_AXIS, UnusableVolumeError
from workbench_demo.phantom.header import Geometry, header_xml

VALID = header_xml(
    Geometry(encoded=(20, 14), recon=(10, 10), acquired=(2, 13)),
    slices=2,
    coils=3,
    acquisition="AXT2",
    repetition_time=3000,
    echo_time=30,
).decode()
EXPECTED = parse_header(VALID)
PIECES = st.sampled_from(
    [
        *("<", ">", "</", "/>", "<!DOCTYPE a [", "]>", '<!ENTITY e "eee">', "&e;", "&#0;", "&amp;"),
        *("<![CDATA[", "]]>", "<!--", "-->", '<?xml version="1.0" encoding="utf-16"?>', "\0"),
        *("encoding", "encodedSpace", "matrixSize", "<x>", "</x>", "<y>-1</y>", "1e9", "9" * 5000),
        *('xmlns="http://www.ismrm.org/ISMRMRD"', 'xmlns:a="b"', "<a>" * 200, "\ud800", "\ufeff"),
    ]
)


def parsed(xml):
    try:
        header = parse_header(xml)
    except UnusableVolumeError as error:
        assert str(error).startswith("its ismrmrd_header ")
        assert len(str(error)) < 500
        return None
    assert all(1 <= size <= MOST_AXIS for size in (*header.encoded, *header.recon))
    assert header.padding_right > header.padding_left
    return header


@given(st.integers(0, len(VALID)), st.integers(0, 40), PIECES | st.text(max_size=4))
@example(0, 0, "")
def test_header_with_another_piece_is_a_header_or_a_refusal(place, length, piece):
    found = parsed(VALID[:place] + piece + VALID[place + length :])
    if not piece and not length:
        assert found == EXPECTED


@given(st.integers(0, len(VALID) - 1), st.binary(max_size=8))
def test_header_of_other_bytes_is_a_header_or_a_refusal(place, content):
    xml = VALID.encode()
    parsed(xml[:place] + content + xml[place + len(content) :])


@given(st.lists(PIECES | st.text(max_size=8), max_size=30).map("".join))
def test_text_is_a_header_or_a_refusal(text):
    parsed(text)


@given(st.sampled_from(["a:", "ismrmrd:", ""]), st.sampled_from(["ISMRMRD", "Ismrmrd", ""]))
def test_namespace_changes_nothing(prefix, namespace):
    bare = VALID.replace(' xmlns="http://www.ismrm.org/ISMRMRD"', "")
    start = bare.index("<ismrmrdHeader")
    body = bare[start:].replace("</", "\0").replace("<", f"<{prefix}").replace("\0", f"</{prefix}")
    if prefix or namespace:
        attribute = f"xmlns:{prefix[:-1]}" if prefix else "xmlns"
        uri = f"http://www.ismrm.org/{namespace}"
        body = body.replace("ismrmrdHeader", f'ismrmrdHeader {attribute}="{uri}"', 1)
    assert parsed(body) == EXPECTED
