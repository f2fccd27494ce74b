"""Whatever is pasted as NYU's email is read as links or refused, soon and without a secret."""

import html
import json
import quopri
import re

from hypothesis import example, given
from hypothesis import strategies as st

from tests.ingest.test_links import WRAPPERS, hard_wrapped, urldefense_2, urldefense_3
from workbench.ingest.links import parse_links

BUCKET = "https://fastmri-dataset.s3.amazonaws.com"
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SIGNATURE = "q%2FyF0Yw%2BLkbT9%2Fh0mN2pXc5vRsE%3D"
LINK = (
    f"{BUCKET}/v2.0/knee_multicoil_val.tar.xz"
    f"?AWSAccessKeyId=AKIAJM2LEZ67Y2JL3KRA&Signature={SIGNATURE}&Expires=1900000000"
)
ODD = ["\n", " ", '"', "'", "<", ">", "&amp;", "=\n", "%", "&", "[", "]", "(", ")", "\\", "?", "="]
ODD += ["^", "`", "*", "{", "}", "|", "https%3A%2F%2F", "aHR0cHM6Ly9", "/v3/__", "__;", "&#x3D;"]
PIECES = st.sampled_from(
    [LINK, LINK[:60], LINK[60:], "https://", "http:", "curl -C - ", " --output ", "x.tar", *ODD]
)

# ---- links of the real forms ---------------------------------------------------------------

PATHS = st.sampled_from(
    [
        *("/knee_singlecoil_train.tar.gz", "/multicoil_val.tar.gz", "/knee_mri_dicom_batch1.tar"),
        *("/brain_multicoil_challenge_transfer.tar.gz", "/brain_fastMRI_DICOM.tar.gz", "/SHA256"),
        *("/v2.0/knee_multicoil_train_batch_0.tar.xz", "/v2.0/brain_multicoil_val_batch_2.tar.xz"),
        *("/v3.0/fastMRI_prostate_T2.tar.gz", "/v4.0/fastMRI_breast_001.tar.gz"),
    ]
)
KEYS = st.text(BASE64[:26] + "234567", min_size=16, max_size=16).map("AKIA{}".format)
SIGNATURES = st.text(BASE64 + "+/", min_size=27, max_size=27)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


@st.composite
def signed(draw):
    """A link signed by version 2 or 4, its parameters as boto orders them."""
    key = draw(KEYS)
    if draw(st.booleans()):
        signature = draw(SIGNATURES).replace("+", "%2B").replace("/", "%2F")
        expires = draw(st.integers(1_600_000_000, 1_999_999_999))
        query = f"AWSAccessKeyId={key}&Signature={signature}%3D&Expires={expires}"
    else:
        token = draw(st.sampled_from(["", "&X-Amz-Security-Token=IQoJb3JpZ2lu%2FX2Vj%2BEz-a_b.c"]))
        query = (
            f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={key}%2F20250301%2Fus-east-1%2Fs3"
            "%2Faws4_request&X-Amz-Date=20250301T101112Z&X-Amz-Expires=604800"
            f"&X-Amz-SignedHeaders=host{token}&X-Amz-Signature={draw(HEX)}"
        )
    return f"{BUCKET}{draw(PATHS)}?{query}"


GATEWAYS = WRAPPERS | {"urldefense v2": urldefense_2, "urldefense v3": urldefense_3}
ENDS = {
    "nothing": lambda url: url,
    "Google's": lambda url: f"{url}&sa=D&source=gmail&usg=AOv_-x",
    "a tracker's": lambda url: f"{url}&utm_source=x#top",
}
FRAMES = {
    "curl": lambda url, name: f'curl -C - "{url}" --output {name}',
    "curl of 2021": lambda url, name: f'curl -C "{url}" --output {name}"',
    "single quotes": lambda url, name: f"curl -C - '{url}' --output {name}",
    "no quotes": lambda url, name: f"curl -C - {url} --output {name}",
    "smart quotes": lambda url, name: f"curl -C - “{url}” —output {name}",
    "Markdown": lambda url, name: f"- [{name}]({url})",
    "angle brackets": lambda url, name: f"{name} <{url}>",
    "HTML": lambda url, name: f'<p><a href="{html.escape(url)}">{name}</a></p>',
}
MANGLERS = {
    "as it is": lambda text: text,
    "Windows' line ends": lambda text: text.replace("\n", "\r\n"),
    "wrapped": lambda text: hard_wrapped(text, 67),
    "quoted": lambda text: "".join(f"> {row}\n" for row in text.split("\n")),
    "HTML": lambda text: html.escape(text),
    "&amp;amp;amp;": lambda text: text.replace("&", "&amp;amp;amp;"),
    "cmd": lambda text: text.replace("&", "^&"),
    "batch": lambda text: re.sub("%", "%%", text),
    "JSON": lambda text: json.dumps({"body": text}),
    "\\u0026": lambda text: text.replace("&", r"\u0026"),
    "quoted-printable": lambda text: quopri.encodestring(text.encode()).decode(),
    "invisible": lambda text: re.sub("([_&])", "\\1\u200b", text),
    "no-break": lambda text: text.replace(" ", "\u00a0"),
    "stray": lambda text: f"https://[fastmri, https://nyu.edu/?Signature=x \n{text}\nhttps://[::",
}


def mails(gateways, manglers):
    """Draw an email: its links, and its text after so many gateways and manglers at most."""
    return st.builds(
        mail,
        st.lists(signed(), min_size=1, max_size=3, unique_by=lambda url: url.split("?")[0]),
        st.lists(st.sampled_from(sorted(GATEWAYS)), max_size=gateways),
        st.sampled_from(sorted(ENDS)),
        st.sampled_from(sorted(FRAMES)),
        st.lists(st.sampled_from(sorted(MANGLERS)), max_size=manglers, unique=True),
    )


def mail(links, gateways, end, frame, manglers):
    lines = []
    for url in links:
        through = ENDS[end](url)
        for gateway in gateways:
            through = GATEWAYS[gateway](through)
        lines.append(FRAMES[frame](through, url.split("?")[0].rpartition("/")[2]))
    text = (
        "Dear colleague,\nsee https://fastmri.med.nyu.edu/ .\n\n" + "\n".join(lines) + "\n\nBest\n"
    )
    # A wrap may cut anywhere but in an escape that was made before.
    for mangler in sorted(manglers, key=lambda name: name != "wrapped"):
        text = MANGLERS[mangler](text)
    return links, text


@given(mails(gateways=1, manglers=1))
def test_links_of_the_real_forms_survive_mail_programs_and_gateways(email):
    links, text = email
    found = parse_links(text)
    assert [link.url.reveal() for link in found] == links
    assert found.left_out == ()


@given(mails(gateways=3, manglers=4))
def test_whatever_happened_on_the_way_no_link_is_read_wrongly(email):
    links, text = email
    try:
        found = parse_links(text)
    except ValueError:
        return
    assert {link.url.reveal() for link in found} <= set(links)


def parts_of(signature: str) -> set[str]:
    return {signature[i : i + 6] for i in range(len(signature) - 5)}


@given(st.lists(PIECES | st.text(max_size=8), max_size=30).map("".join))
@example(LINK)
def test_text_becomes_links_or_a_refusal(text):
    try:
        links = parse_links(text)
    except ValueError as error:
        shown = str(error)
    else:
        shown = str(links.left_out)
        assert all(link.url.reveal().startswith("http") for link in links)
    assert not any(part in shown for part in parts_of(SIGNATURE))


@given(st.integers(0, len(LINK)), st.integers(0, len(LINK)), st.sampled_from(ODD))
def test_damage_to_one_link_leaves_the_next_and_shows_no_signature(start, stop, odd):
    damaged = LINK[: min(start, stop)] + odd + LINK[max(start, stop) :]
    other = LINK.replace("knee_multicoil_val", "brain_multicoil_val_batch_0")
    text = f'curl -C - "{damaged}" --output knee_multicoil_val.tar.xz\ncurl -C - "{other}"\n'
    links = parse_links(text)
    assert other in [link.url.reveal() for link in links]
    assert not any(part in str(links.left_out) for part in parts_of(SIGNATURE))
