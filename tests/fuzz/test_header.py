"""Whatever a file holds as its ISMRMRD header is read as possible numbers, or refused."""

from hypothesis import example, given
from hypothesis import strategies as st

from workbench.dataset.describe import Header, UnusableVolumeError, parse_header
from workbench.dataset.volume import MOST_AXIS

SPACE = "<{0}><matrixSize><x>64</x><y>37</y><z>1</z></matrixSize></{0}>"
HEADER = (
    '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>'
    f"{SPACE.format('encodedSpace')}{SPACE.format('reconSpace')}"
    "<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>30</maximum>"
    "<center>15</center></kspace_encoding_step_1></encodingLimits></encoding></ismrmrdHeader>"
)
ODD = st.text(max_size=6) | st.sampled_from(
    ["<x>", "</x>", "<!--", "&a;", "&#0;", "<![CDATA[", "-1", "1e9", "9" * 30, "NaN", "\0", "<?"]
)
CHANGES = st.lists(
    st.tuples(st.integers(0, len(HEADER)), st.integers(0, 12), ODD), min_size=1, max_size=6
)


def changed(changes):
    """Replace some characters of a good header at each of some places."""
    text = HEADER
    for place, length, new in changes:
        text = text[:place] + new + text[place + length :]
    return text


@given(CHANGES.map(changed) | st.text(max_size=200) | st.binary(max_size=200))
@example(HEADER)
def test_text_becomes_a_possible_header_or_a_refusal(xml):
    try:
        header = parse_header(xml)
    except UnusableVolumeError:
        return
    assert isinstance(header, Header)
    assert all(1 <= size <= MOST_AXIS for size in (*header.encoded, *header.recon))
    assert abs(header.padding_left) <= MOST_AXIS
    assert abs(header.padding_right) <= 2 * MOST_AXIS + 1
