import base64
import html
import json
import quopri
import random
import re
import textwrap
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

import pytest

from workbench.ingest.links import WHERE_TO_ASK, archive_stem, parse_links
from workbench.ingest.offer import completeness

BUCKET = "https://fastmri-dataset.s3.amazonaws.com"
EXPIRES = 1893456000
SIGNATURE = "q%2FyF0Yw%2BLkbT9%2Fh0mN2pXc5vRsE%3D"
V2 = f"AWSAccessKeyId=AKIAJM2LEZ67Y2JL3KRA&Signature={SIGNATURE}&Expires={EXPIRES}"
V4 = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKIAJM2LEZ67Y2JL3KRA%2F20250301%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20250301T101112Z&X-Amz-Expires=604800&X-Amz-SignedHeaders=host"
    "&X-Amz-Security-Token=IQoJb3JpZ2lu/X2Vj+Ez-a_b.c&X-Amz-Signature=" + "0a1b2c3d" * 8
)


def url(path: str, token: str = V2) -> str:
    return f"{BUCKET}{path}?{token}"


def line(path: str, name: str | None = None, token: str = V2) -> str:
    return f'curl -C - "{url(path, token)}" --output {name or path.rpartition("/")[2]}'


LINES_2021 = [
    line("/knee_singlecoil_train.tar.gz"),
    line("/multicoil_val.tar.gz"),
    line("/knee_mri_dicom_batch1.tar"),
    line("/brain_fastMRI_DICOM.tar.gz"),
    line("/SHA256"),
]
LINES_2025 = [
    line("/v2.0/knee_multicoil_train_batch_0.tar.xz"),
    line("/v2.0/knee_multicoil_val.tar.xz", token=V4),
    line("/v2.0/knee_DICOMs_batch1.tar.xz"),
    line("/v2.0/brain_multicoil_val_batch_2.tar.xz"),
    line("/v3.0/fastMRI_prostate_T2.tar.gz"),
    line("/v3.0/SHA256"),
    line("/v4.0/fastMRI_breast_001.tar.gz"),
]
EMAIL = (
    "Dear colleague,\nthank you for registering at https://fastmri.med.nyu.edu/ .\n\nKnee MRI:\n"
    + "\n".join(LINES_2025[:3])
    + "\n\nBrain MRI:\n"
    + "\n".join(LINES_2025[3:])
    + "\n\nBest,\nthe fastMRI team\n"
)


def revealed(text: str) -> list[tuple[str, str]]:
    return [(link.name, link.url.reveal()) for link in parse_links(text)]


EXPECTED = [
    (match[2], match[1])
    for item in LINES_2025
    if (match := re.fullmatch(r'curl -C - "(.*)" --output (.*)', item))
]


def urldefense_2(text: str) -> str:
    def wrap(match):
        coded = quote(match[0], safe="./").replace("_", "%5F").replace("-", "%2D")
        coded = coded.replace("/", "_").replace("%", "-")
        return (
            f"https://urldefense.proofpoint.com/v2/url?u={coded}&d=DwMFaQ&c=slrrB7&r=x_Y&m=z&s=w&e="
        )

    return re.sub(r'https?://[^"\s]+', wrap, text)


def urldefense_3(text: str) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    def wrap(match):
        replaced = []

        def star(run):
            replaced.append(run[0])
            return "*" if len(run[0]) == 1 else f"**{alphabet[len(run[0]) - 2]}"

        body = re.sub(r"[%+*]+", star, match[0])
        coded = base64.urlsafe_b64encode("".join(replaced).encode()).decode().rstrip("=")
        return f"https://urldefense.com/v3/__{body}__;{coded}!!BhJSzQ!MgA_-token$"

    return re.sub(r'https?://[^"\s]+', wrap, text)


def safelinks(text: str, anything: bool = False) -> str:
    return re.sub(
        r'(?<=")https://[^"\s]+' if anything else r'https://(?:fastmri-dataset|urldefense)[^"\s]+',
        lambda m: (
            "https://nam02.safelinks.protection.outlook.com/?url="
            f"{quote(m[0], safe='')}&data=05%7C01&reserved=0"
        ),
        text,
    )


def hard_wrapped(text: str, width: int = 76) -> str:
    return "\n".join(
        row[i : i + width] for row in text.split("\n") for i in range(0, max(len(row), 1), width)
    )


def base64_of(url: str) -> str:
    return base64.b64encode(url.encode()).decode()


def quoted(url: str) -> str:
    return quote(url, safe="")


# What gateways make of a URL; hosts and tokens are invented.
WRAPPERS = {
    "Google": lambda u: f"https://www.google.com/url?q={quoted(u)}&sa=D&source=gmail&usg=A-_x",
    "Google, unquoted": lambda u: f"https://www.google.com/url?q={u}&sa=D&source=gmail&usg=A-_x",
    "Safe Links": lambda u: (
        f"https://nam02.safelinks.protection.outlook.com/ap/w-59/?url={quoted(u)}&data=05%7C01"
    ),
    "urldefense v1": lambda u: (
        f"https://urldefense.proofpoint.com/v1/url?u={quoted(u)}&k=x%3D%3D%0A&r=y&s=z"
    ),
    "Barracuda": lambda u: (
        f"https://linkprotect.cudasvc.com/url?a={quoted(u).replace('%3A', '%3a')}&c=E,1,x&typo=1"
    ),
    "Trend Micro": lambda u: (
        f"https://ca-12.ctp.trendmicro.com:443/wis/clicktime/v1/query?url={quoted(u)}&umid=1&auth=2"
    ),
    "Symantec": lambda u: f"https://clicktime.symantec.com/3AbC/7Vc?u={quoted(u)}",
    "FireEye": lambda u: f"https://protect2.fireeye.com/v1/url?k=1-2&q=1&e=3-4&u={quoted(u)}",
    "Cisco": lambda u: f"https://secure-web.cisco.com/1Ab-_c/{quoted(u)}",
    "Sophos": lambda u: (
        f"https://eu.protection.sophos.com?d=amazonaws.com&u={quoted(base64_of(u))}&i=NWY&t=x&h=1"
    ),
    "Sophos, URL-safe": lambda u: (
        "https://eu.protection.sophos.com?d=x&u="
        f"{base64_of(u).replace('+', '-').replace('/', '_')}&i=NWY"
    ),
    "base64 in the path": lambda u: f"https://linkscan.example/scan/ux/{base64_of(u).rstrip('=')}",
    "underscores in the path": lambda u: f"https://url.avanan.example/v2/___{u}___.YXA",
    "quoted twice": lambda u: f"https://gate.example/?x=1&target={quoted(quoted(u))}&y=https",
    "a fragment": lambda u: f"https://gate.example/page#go={quoted(u)}",
}


def wrapped(text: str, wrapper) -> str:
    return re.sub(r'https?://[^"\s]+', lambda match: wrapper(match[0]), text)


MANGLED = {
    "as sent": lambda t: t,
    "Windows line ends": lambda t: t.replace("\n", "\r\n"),
    "hard-wrapped at 76": hard_wrapped,
    "hard-wrapped at 61": lambda t: hard_wrapped(t, 61),
    "hard-wrapped at 40, Windows": lambda t: hard_wrapped(t, 40).replace("\n", "\r\n"),
    "wrapped at words": lambda t: "\n".join(
        textwrap.fill(row, 60, break_long_words=False) for row in t.split("\n")
    ),
    "lines run together": lambda t: t.replace("\n", ""),
    "lines joined by blanks": lambda t: t.replace("\n", " "),
    "&amp;": lambda t: t.replace("&", "&amp;"),
    "&amp;amp;": lambda t: t.replace("&", "&amp;amp;"),
    "escaped for HTML": lambda t: html.escape(t),
    "hard-wrapped after &amp;": lambda t: hard_wrapped(t.replace("&", "&amp;")),
    "urldefense v2": urldefense_2,
    "urldefense v3": urldefense_3,
    "urldefense v3, hard-wrapped": lambda t: hard_wrapped(urldefense_3(t), 70),
    "urldefense v2, &amp;": lambda t: urldefense_2(t).replace("&", "&amp;"),
    "Safe Links": safelinks,
    "Safe Links around urldefense": lambda t: safelinks(urldefense_3(t)),
    "quoted reply": lambda t: "".join(f"> {row}\n" for row in t.split("\n")),
    "quoted reply, wrapped": lambda t: "".join(f">> {r}\n" for r in hard_wrapped(t).split("\n")),
    "quoted-printable": lambda t: quopri.encodestring(t.encode()).decode(),
    "curly quotes": lambda t: re.sub(r'"(.*?)"', "“\\1”", t),
    "single quotes": lambda t: t.replace('"', "'"),
    "no quotes": lambda t: t.replace('"', ""),
    "no quotes, wrapped": lambda t: hard_wrapped(t.replace('"', "")),
    "stray quote after the name": lambda t: re.sub(r"(--output \S+)", r'\1"', t),
    "2021's form of curl": lambda t: re.sub(r"-C - (.*--output \S+)", r'-C \1"', t),
    "%20 for blanks at the ends": lambda t: t.replace('" --output ', '%20"%20--output%20'),
    "dashes joined": lambda t: t.replace("--output", "—output"),
    "-o": lambda t: t.replace("--output", "-o"),
    "no-break blanks": lambda t: t.replace(" ", "\u00a0"),
    "zero-width blanks": lambda t: t.replace("tar", "ta\u200br"),
    "continued lines": lambda t: t.replace('" --output', '" \\\n  --output'),
    "no quotes, continued lines": lambda t: re.sub(r'"(.*?)" ', r"\1 \\\n  ", t),
    "bare URLs": lambda t: re.sub(r'curl -C - "(.*)" --output \S+', r"\1", t),
    "HTML links": lambda t: re.sub(
        r'curl -C - "(.*)" --output (\S+)',
        lambda m: f'<p>curl <a href="{html.escape(m[1])}">{html.escape(m[1])}</a></p>',
        t,
    ),
    **{f"through {name}": (lambda t, w=w: wrapped(t, w)) for name, w in WRAPPERS.items()},
    **{
        f"through {name}, then Safe Links": (lambda t, w=w: safelinks(wrapped(t, w), anything=True))
        for name, w in WRAPPERS.items()
    },
    "&sa= appended": lambda t: t.replace('" --', '&sa=D&source=gmail&ust=17&usg=AOv_-x" --'),
    "a tracker's parameters appended": lambda t: t.replace('" --', '&utm_source=x#top" --'),
    "escaped for Windows' cmd": lambda t: t.replace("&", "^&").replace("%", "^%"),
    "in a batch file": lambda t: t.replace("%", "%%"),
    "in a batch file, run by cmd": lambda t: t.replace("%", "%%").replace("&", "^&"),
    "escaped for a Unix shell": lambda t: re.sub(
        r'"(.*?)"', lambda m: re.sub(r"([&?=%])", r"\\\1", m[1]), t
    ),
    "JSON": lambda t: json.dumps({"body": t}),
    "invisible letters in JSON": lambda t: json.dumps({"body": re.sub("([_&])", "\\1\u200b", t)}),
    "wrapped HTML in JSON": lambda t: json.dumps({"body": html.escape(textwrap.fill(t, 67))}),
    "JSON in JSON": lambda t: json.dumps(json.dumps({"body": t})),
    "invisible letters, quoted-printable": lambda t: quopri.encodestring(
        re.sub("_", "_\u200b", t).encode()
    ).decode(),
    "JSON, all escaped": lambda t: json.dumps(t).replace("&", r"\u0026").replace("/", r"\/"),
    "Markdown": lambda t: re.sub(r'curl -C - "(.*)" --output (\S+)', r"- [\2](\1)", t),
    "Markdown, bold": lambda t: re.sub(r'curl -C - "(.*)" --output (\S+)', r"**\1**", t),
    "Markdown, italic": lambda t: re.sub(r'curl -C - "(.*)" --output (\S+)', r"_\1_", t),
    "Slack": lambda t: re.sub(r'"(.*)"', r"<\1|\1>", t),
    "in brackets": lambda t: re.sub(r'curl -C - "(.*)" --output \S+', r"(see [\1]).", t),
    "full stops": lambda t: re.sub(r'curl -C - "(.*)" --output \S+', r"\1.", t),
    "commas": lambda t: re.sub(r'curl -C - "(.*)" --output \S+', r"\1, and", t),
    "numeric entities": lambda t: t.replace("&", "&#38;").replace("=", "&#x3D;"),
    "entities four times over": lambda t: t.replace("&", "&amp;amp;amp;amp;"),
    "HTML in JSON": lambda t: json.dumps(html.escape(t)),
    "HTML breaks": lambda t: html.escape(t).replace("/", "/<wbr>").replace("\n", "<br>\n"),
    "soft line breaks": lambda t: "\n".join(
        "=\n".join(textwrap.wrap(r, 71)) for r in t.split("\n")
    ),
    "quoted-printable, quoted": lambda t: "".join(
        f"> {row}\n" for row in quopri.encodestring(t.encode()).decode().split("\n")
    ),
    "invisible marks": lambda t: "\u200e\u2060".join(re.split(r"(?<=[_&=])", t)) + "\ufeff",
    "full-width": lambda t: t.translate({ord(c): ord(c) + 0xFEE0 for c in "&?=:/%"}),
    "quoted once too often": lambda t: t.replace("%", "%25"),
    "quoted as a whole": lambda t: re.sub(r'"(.*)"', lambda m: f'"{quote(m[1], safe="")}"', t),
    "base64 of a saved email": lambda t: "Subject: x\n\n" + base64.encodebytes(t.encode()).decode(),
    "defanged": lambda t: t.replace("https://f", "hxxps://f").replace(".", "[.]", 90),
    "one line's angle brackets": lambda t: re.sub(r'"(.*)"', r"\1<\1>", t),
    "lost .xz in the name": lambda t: re.sub(r"(--output \S+)\.xz", r"\1", t),
}


@pytest.mark.parametrize("how", MANGLED)
def test_every_link_survives(how):
    assert revealed(MANGLED[how](EMAIL)) == EXPECTED


def random_tokens(draw: random.Random, start: str) -> tuple[str, str]:
    """Tokens of both versions whose signatures begin with ``start``."""
    key = "AKIA" + "".join(draw.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16))
    signature = start + base64.b64encode(draw.randbytes(20)).decode()[len(start) :]
    second = {"AWSAccessKeyId": key, "Signature": signature, "Expires": str(EXPIRES)}
    fourth = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{key}/20250301/us-east-1/s3/aws4_request",
        "X-Amz-Date": "20250301T101112Z",
        "X-Amz-Expires": str(draw.randint(1, 9_999_999)),
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Signature": draw.randbytes(32).hex(),
    }
    orders = []
    for token in (second, fourth):
        items = list(token.items())
        draw.shuffle(items)
        orders.append(urlencode(items, quote_via=quote, safe=""))
    return orders[0], orders[1]


@pytest.mark.parametrize("how", MANGLED)
def test_no_signature_breaks_by_what_it_happens_to_hold(how):
    draw = random.Random(how)
    for start in ["", "3D", "curl", "http", "20", "=3D", "output", "+/", "xz"] * 2:
        second, fourth = random_tokens(draw, start)
        links = {
            "knee_multicoil_val.tar.xz": url("/v2.0/knee_multicoil_val.tar.xz", second),
            "brain_multicoil_val_batch_0.tar.xz": url("/v2.0/b_val_batch_0.tar.xz", fourth),
        }
        if "--output" not in MANGLED[how](LINES_2025[0]) or how == "lost .xz in the name":
            links = {link.partition("?")[0].rpartition("/")[2]: link for link in links.values()}
        lines = [f'curl -C - "{link}" --output {name}' for name, link in links.items()]
        email = "Hello,\n\nKnee MRI:\n" + "\n\nBrain MRI:\n".join(lines) + "\n\nBest\n"
        assert revealed(MANGLED[how](email)) == list(links.items())


def test_bare_urls_wrapped_end_before_the_letter_goes_on():
    text = hard_wrapped(MANGLED["bare URLs"](EMAIL), 50)
    assert revealed(text) == EXPECTED


def test_links_know_their_dataset_and_generation():
    text = "\n".join(re.sub(r"-C - (.*)", r'-C \1"', item) for item in LINES_2021)
    old, new = parse_links(text), parse_links(EMAIL)
    assert [(link.name, link.dataset) for link in old] == [
        ("knee_singlecoil_train.tar.gz", "knee_singlecoil"),
        ("multicoil_val.tar.gz", "knee_multicoil"),
        ("knee_mri_dicom_batch1.tar", "knee_DICOMs"),
        ("brain_fastMRI_DICOM.tar.gz", "brain_DICOMs"),
        ("SHA256", None),
    ]
    assert [link.is_checksums for link in old] == [False] * 4 + [True]
    assert old[0].url.reveal() == url("/knee_singlecoil_train.tar.gz")
    knees = ["knee_multicoil", "knee_multicoil", "knee_DICOMs"]
    others = ["brain_multicoil", "prostate_raw", None, "breast"]
    assert [link.dataset for link in new] == knees + others
    assert {link.generation for link in old} == {"2021"}
    assert {link.generation for link in new} == {"2025"}


def test_expiry_of_both_signature_versions():
    second, fourth = parse_links(EMAIL)[:2]
    assert second.expires == datetime.fromtimestamp(EXPIRES, UTC)
    assert fourth.expires == datetime(2025, 3, 8, 10, 11, 12, tzinfo=UTC)
    assert fourth.expired
    in_an_hour = int((datetime.now(UTC) + timedelta(hours=1)).timestamp())
    (still,) = parse_links(LINES_2025[0].replace(str(EXPIRES), str(in_an_hour)))
    assert not still.expired


@pytest.mark.parametrize(
    ("object_name", "output", "name"),
    [
        ("batch7.tar.xz", "brain_multicoil_train_batch_7.tar.xz", None),
        ("knee_multicoil_val.tar.xz", "download.bin", None),
        # It lost its ".xz" on the way.
        ("knee_multicoil_val.tar.xz", "knee_multicoil_val.tar", "knee_multicoil_val.tar.xz"),
        # It must not lead out of the folder.
        ("knee_multicoil_val.tar.xz", "../../.ssh/knee_multicoil.tar", "knee_multicoil.tar"),
    ],
)
def test_name_comes_from_the_email_and_the_dataset_from_either(object_name, output, name):
    (link,) = parse_links(line(f"/v2.0/{object_name}", output))
    assert (link.name, link.object_name) == (name or output, object_name)
    assert link.dataset == ("brain_multicoil" if "brain" in output else "knee_multicoil")


def test_several_lists_of_sums_are_kept_apart():
    links = parse_links("\n".join([LINES_2021[4], LINES_2025[5]]))
    assert [(link.is_checksums, link.object_path) for link in links] == [
        (True, "/SHA256"),
        (True, "/v3.0/SHA256"),
    ]


def test_same_object_signed_twice_counts_once_with_the_later_end():
    later = V2.replace(str(EXPIRES), str(EXPIRES + 1000))
    path = "/v2.0/knee_multicoil_val.tar.xz"
    for tokens in ((V2, later), (later, V2)):
        (link,) = parse_links("\n".join(line(path, token=token) for token in tokens))
        assert link.expires == datetime.fromtimestamp(EXPIRES + 1000, UTC)


def test_two_links_for_one_file_that_disagree_are_refused_by_name():
    text = "\n".join(
        [line("/brain_fastMRI_DICOM.tar.gz"), line("/v2.0/brain_fastMRI_DICOM.tar.gz")]
    )
    with pytest.raises(ValueError, match=r"^brain_fastMRI_DICOM.tar.gz: two links") as error:
        parse_links(text)
    assert "AKIA" not in str(error.value)
    assert "Signature" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "hello", "see https://fastmri.med.nyu.edu/ and https://example.org/a?b=c"]
)
def test_text_without_links_says_what_to_paste_and_where_to_ask(text):
    with pytest.raises(ValueError, match=r"no signed link.*fastmri\.med\.nyu\.edu"):
        parse_links(text)


@pytest.mark.parametrize(
    "token",
    [
        "",
        V2.partition("&Expires")[0],
        V2.replace(SIGNATURE, SIGNATURE[:12]),
        V2[:-5],
        V4[:-3],
        V4.partition("&X-Amz-Signature")[0],
    ],
)
def test_link_that_is_cut_short_is_named_and_the_others_are_read(token):
    cut = line("/v2.0/knee_multicoil_val.tar.xz", token=token)
    links = parse_links(cut + "\n" + LINES_2025[0])
    assert [link.name for link in links] == ["knee_multicoil_train_batch_0.tar.xz"]
    (left_out,) = links.left_out
    assert left_out.startswith("knee_multicoil_val.tar.xz: its link is cut short")
    with pytest.raises(ValueError, match=r"^knee_multicoil_val.tar.xz: its link is cut short"):
        parse_links(cut)


def test_broken_link_beside_a_whole_one_for_the_same_archive_does_not_count():
    whole = line("/v2.0/knee_multicoil_val.tar.xz")
    shortened = url("/v2.0/knee_multicoil_val.tar.xz")[:65] + "..."
    assert parse_links(f"{shortened}\n{whole}").left_out == ()


@pytest.mark.parametrize(
    "stray",
    [
        "https://[fastmri",
        "https://[::1/x y",
        "https://a]b.example/?q=[",
        "http://",
        "https://\u2100.example/",
        "https://x.example:99999999/a.tar.gz",
        "https://list.example/unsubscribe?Signature=abc&u=1",
        "https://fastmri.med.nyu.edu/#knee_multicoil",
        "https://x.example/a.tar.gz",
        "\ud800https://\ud800",
        "&#99999999;&#xD800; https://&amp;&bogus;?%%%ZZ",
    ],
)
def test_stray_url_is_passed_over(stray):
    links = parse_links(f"{stray}\n{EMAIL}\n{stray} {stray}")
    assert [(link.name, link.url.reveal()) for link in links] == EXPECTED
    assert links.left_out == ()


@pytest.mark.parametrize("odd", "[](){}|<>\"'`é¶\u2100")
def test_odd_character_costs_one_link_at_most_and_shows_no_signature(odd):
    for place in range(18, len(LINES_2025[0]), 7):
        broken = LINES_2025[0][:place] + odd + LINES_2025[0][place:]
        links = parse_links("\n".join([LINES_2025[1], broken, *LINES_2025[2:]]))
        others = [item for item in EXPECTED if item[0] != EXPECTED[0][0]]
        found = [(link.name, link.url.reveal()) for link in links]
        assert [item for item in found if item in others] == others
        assert all(item in others or item == EXPECTED[0] for item in found)
        assert len(found) == len(EXPECTED) or links.left_out
        assert not any(part in str(links.left_out) for part in ("AKIA", "q%2F", "Signature"))


@pytest.mark.parametrize(
    ("date", "seconds"), [("99999999T999999Z", "1"), ("20250301T101112Z", "9" * 5000)]
)
def test_date_that_does_not_exist_is_a_damaged_link(date, seconds):
    token = V4.replace("20250301T101112Z", date).replace("=604800", f"={seconds}")
    text = line("/v2.0/knee_multicoil_val.tar.xz", token=token)
    with pytest.raises(ValueError, match=r"^knee_multicoil_val.tar.xz: its link is cut short"):
        parse_links(text)


def test_gateway_that_hides_its_links_is_named_with_what_to_do():
    opaque = 'curl -C - "https://protect-eu.mimecast.com/s/AbCdEf?domain=x" --output '
    links = parse_links(opaque + "knee_multicoil_val.tar.xz\n" + LINES_2025[0])
    assert len(links) == 1
    (left_out,) = links.left_out
    assert left_out.startswith("knee_multicoil_val.tar.xz: mimecast.com hides where its link leads")
    assert "ask for it at another address" in left_out


def test_no_link_is_shown_by_repr_or_str():
    shown = repr(parse_links(EMAIL)) + str(parse_links(EMAIL)[0])
    assert "AKIA" not in shown
    assert "Signature" not in shown


def test_stem_is_the_name_without_the_archive_s_extensions():
    names = ["a_val.tar.xz", "a.tar.gz", "a.tar", "a.tgz", "a", "v2.0.tar"]
    assert [archive_stem(name) for name in names] == ["a_val", "a", "a", "a", "a", "v2.0"]


@pytest.mark.parametrize(
    "piece",
    [
        *("https://", "https://a ", "&amp;", "&amp;amp;lt;", "aHR0cHM6", "https%253A%252F", "h\n"),
        *("=\n", "> ", "\\", "curl ", "--output ", " ", "<b", "[", "^", "%%", "/v3/__x__;", "**"),
        *("https://x.example/?u=https%3A%2F%2F", "-", "\n ", "Signature=", "&Signature", "a.tar"),
    ],
)
def test_long_line_of_anything_takes_no_time_that_grows_with_its_square(piece):
    # Of 200 kB: steps that each look at the rest of the text would take hours.
    text = piece * (200_000 // len(piece)) + "\n" + LINES_2025[0]
    assert [(link.name, link.url.reveal()) for link in parse_links(text)][-1:] == EXPECTED[:1]


def letter(*paths):
    return parse_links("\n".join(line(path) for path in paths))


KNEE_2021 = [
    *(f"/knee_singlecoil_{part}.tar.gz" for part in ("train", "val", "test_v2", "challenge")),
    *("/multicoil_train.tar.gz", "/multicoil_val.tar.gz"),
    *("/knee_multicoil_test_v2.tar.gz", "/knee_multicoil_challenge.tar.gz"),
    *("/knee_mri_dicom_batch1.tar", "/knee_mri_dicom_batch2.tar"),
]
BRAIN_2021 = [
    *(f"/brain_multicoil_{part}.tar.gz" for part in ("train", "val", "test", "challenge")),
    *("/brain_multicoil_challenge_transfer.tar.gz", "/brain_fastMRI_DICOM.tar.gz", "/SHA256"),
]
KNEE_2025 = [
    *(f"/v2.0/knee_singlecoil_{part}.tar.xz" for part in ("train", "val", "test")),
    *(f"/v2.0/knee_multicoil_train_batch_{number}.tar.xz" for number in range(5)),
    *("/v2.0/knee_multicoil_val.tar.xz", "/v2.0/knee_multicoil_test.tar.xz"),
    *("/v2.0/knee_DICOMs_batch1.tar.xz", "/v2.0/knee_DICOMs_batch2.tar.xz"),
]


def test_whole_letter_of_2021_counts_ten_and_seven_lines():
    assert completeness(letter(*KNEE_2021, *BRAIN_2021)) == (
        "knee: 10 of 10 lines of 2021, complete",
        "brain: 7 of 7 lines of 2021, complete",
        "SHA256: the line is there",
    )


def test_what_a_letter_lacks_is_said_section_by_section_and_nothing_is_refused():
    lost = "SHA256: the line is missing: archives are unpacked without a check by hash"
    assert completeness(letter(*KNEE_2021[:8])) == (
        "knee: 8 of 10 lines of 2021",
        f"brain: the whole section is missing; ask for it at {WHERE_TO_ASK}",
        lost,
    )
    assert completeness(letter(*BRAIN_2021[:-1]))[1:] == ("brain: 6 of 7 lines of 2021", lost)


def test_later_letters_are_counted_by_their_own_lists():
    both = letter(*KNEE_2025, *KNEE_2021[:2], "/v4.0/fastMRI_breast_001.tar.gz", "/v3.0/SHA256")
    assert completeness(both) == (
        "knee: 12 of 12 lines of 2025, complete",
        f"brain: the whole section is missing; ask for it at {WHERE_TO_ASK}",
        "breast: 1 line (2025); nobody has published how many",
        "SHA256: the line is there",
    )
