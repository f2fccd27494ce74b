"""URLs out of an email, whatever happened to it on the way.

fastMRI's email lists lines such as ``curl -C - "URL" --output NAME``. Mail programs wrap them in
mid-word or run them together, lose or add quotes, turn ``&`` into ``&amp;``, and gateways put each
URL into one of their own. All steps take a time that is linear in the length of the text.
"""

import base64
import html
import json
import quopri
import re
from collections.abc import Callable, Iterator
from html.entities import html5
from itertools import pairwise
from urllib.parse import unquote

# Longer than any signed link, in as many gateways as there are.
_LONGEST = 1 << 15
_ROUNDS = 8


def _wrapped(word: str) -> str:
    """Return a pattern for a word that a hard wrap may have cut anywhere."""
    return r"(?:[ \t]*\n[ \t]*)?".join(re.escape(letter) for letter in word)


_URL = re.compile(
    rf"(?<!__)(?<!__\n)(?:{_wrapped('https:/')}|{_wrapped('http:/')})"
    r"|(?:^|(?<=[\s\"'<>(\[{]))https?%(?:25)*3A%(?:25)*2F",
    re.IGNORECASE,
)
_OUTPUT = re.compile(rf"(?:{_wrapped('--')}|[–—]){_wrapped('output')}|(?:(?<=\s)|(?<=%20))-o(?=\s)")
_CURL = re.compile(rf"{_wrapped('curl')}(?=\s+-|\s*[\"'])")
_STOP = re.compile(r"[\"'<>`()\[\]{}|]")
ARCHIVE_NAME = re.compile(
    r"[\w.-]*?(?:\.tar(?:\.[gx]z)?|\.t[gx]z|SHA256(?:SUMS)?(?:\.txt)?)", re.ASCII
)


# ---- the text as a whole -----------------------------------------------------------------

_LETTERS = {ord(letter): '"' for letter in "“”„‟″«»＂"}
_LETTERS |= {ord(letter): "'" for letter in "‘’‚‛′＇"}
_LETTERS |= dict.fromkeys(map(ord, "\u00a0\u1680\u202f\u205f\u3000"), " ")
_LETTERS |= dict.fromkeys(range(0x2000, 0x200B), " ")
_LETTERS |= dict.fromkeys(map(ord, "\u2010\u2011\u2212"), "-")
_LETTERS |= dict.fromkeys(map(ord, "\v\f\x85\u2028\u2029"), "\n")
_LETTERS |= {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | _LETTERS
# Invisible: control and formatting characters, variation selectors, halves of surrogates.
_LETTERS |= dict.fromkeys([*range(9), *range(0x0E, 0x20), *range(0x7F, 0x85)], "")
_LETTERS |= dict.fromkeys([*range(0x86, 0xA0), 0xAD, 0x34F, 0x61C, 0x180E, 0xFEFF], "")
_LETTERS |= dict.fromkeys([*range(0x200B, 0x2010), *range(0x202A, 0x202F)], "")
_LETTERS |= dict.fromkeys([*range(0x2060, 0x2070), *range(0xFE00, 0xFE10)], "")
_LETTERS |= dict.fromkeys(range(0xD800, 0xE000), "")

_ENTITY = re.compile(r"&(?:amp;|#38;|#x26;)+|&(\w{2,8}|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")
_TAG = re.compile(r"</?(?:wbr|span|b|i|u|em|strong|font|mark|code|tt)\b[^<>]*>", re.IGNORECASE)
_BREAK = re.compile(r"</?(?:br|p|div|pre|li|td|tr)\b[^<>]*>", re.IGNORECASE)
# Not an "=" that ends a signature: 28 characters of base64 that nobody quoted.
_SOFT_BREAK = re.compile(
    r"([?&;][\w-]*(?:\n[\w-]*)?)?(?<!=[A-Za-z0-9+/]{27})=[ \t]*\n(?=(\S))(?!curl|https?:)"
)
_NAME = re.compile(
    r"[?&;](?:AWSAccessKeyId|Signature|Expires|url|[auq]"
    r"|X-Amz-(?:Algorithm|Credential|Date|Expires|SignedHeaders|Signature|Security-Token))"
)


def _plain(text: str) -> str:
    """Undo what mail programs, shells and file formats do to the text as a whole."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # A saved email may hold its text in base64.
    blocks = re.findall(r"(?:^[A-Za-z0-9+/]{56,76}\n)+(?:[A-Za-z0-9+/]+={0,2}$)?", text, re.M)
    inside = [_of_base64("".join(block.split())) for block in blocks]
    text = "\n\n".join([text, *(part for part in inside if "http" in part)])
    for _ in range(_ROUNDS):
        before = text
        text = _of_json(text).translate(_LETTERS)
        text = re.sub(r"^[ \t]*(?:>[ \t]?)+", "", text, flags=re.MULTILINE)
        text = _printable(text)
        text = _ENTITY.sub(_character, text)
        text = _BREAK.sub("\n", _TAG.sub("", text))
        text = _unescaped(text)
        if text == before:
            break
    return text


def _of_json(text: str) -> str:
    """Return the strings of a JSON document one after another; other texts as they are."""
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return text
    try:
        left = [json.loads(text)]
    except (ValueError, RecursionError):
        return text
    found: list[str] = []
    while left:
        part = left.pop()
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, dict | list):
            left += reversed(part.values() if isinstance(part, dict) else part)
    return "\n".join(found)


def _printable(text: str) -> str:
    """Undo quoted-printable, or what is left of it."""
    # Not by the signature, which may begin with "3D" by chance; what these begin with is known.
    known = (
        r"=3D(?:A[KSW]|https?|aHR0c)|(?:Expires=3D1|Date=3D2)\d"
        r"|=[C-F][0-9A-F]=[89AB][0-9A-F]"  # a letter beyond ASCII
    )
    if re.search(known, text.replace("=\n", "")) or (
        "=3D" in text and not re.search(r"=(?![0-9A-F]{2}|[ \t]*\n)", text)
    ):
        return quopri.decodestring(text.encode()).decode("utf-8", "replace")
    return _SOFT_BREAK.sub(_joint, text)


def _joint(match: re.Match[str]) -> str:
    """Drop a soft line break; an "=" after a parameter's name belongs to the URL."""
    name = (match[1] or "").replace("\n", "")
    return f"{name}=" if _NAME.fullmatch(name) and match[2] != "=" else name


def _character(entity: re.Match[str]) -> str:
    if not entity[1]:
        return "&"
    # Not html.unescape on everything: it reads "&reg" or "&not" in a query without a semicolon.
    known = entity[1].startswith("#") or f"{entity[1]};" in html5
    return html.unescape(entity[0]) if known else entity[0]


def _unescaped(text: str) -> str:
    """Undo the escapes of JSON, Markdown, Windows' and Unix' shells, and of defanged URLs."""
    if re.search(r"\\\"", text):
        text = re.sub(r"(?<!\\)(?:\\+r)?\\+n", "\n", text)
    text = re.sub(
        r"(?<!\\)\\+(?:u(?!00[01])([0-9a-fA-F]{4})|x([2-7][0-9a-fA-F]))",
        lambda match: chr(int(match[1] or match[2], 16)),
        text,
    )
    text = re.sub(r"(?<!\\)\\+(?=[^\w\s]|[ \t]*\n)", "", text)
    text = re.sub(r"\^+|`(?=[&\n])", "", text)
    text = re.sub(r"(?<!%)%%+(?=[0-9a-fA-F]{2})", "%", text)
    text = re.sub(r"\bhxxp(?=s?[:\[(])", "http", text, flags=re.IGNORECASE)
    return re.sub(r"[\[(]([.:])[\])]", r"\1", text)


# ---- one URL after another ---------------------------------------------------------------


def urls(text: str, whole: Callable[[str], bool]) -> Iterator[tuple[str, str | None]]:
    """Yield each URL of an email, made whole again, with the name after its ``--output``.

    Args:
        text: the email, plain, HTML, quoted, wrapped, or with its lines run together.
        whole: says whether a URL has all that it needs; it tells where a wrapped one ends.
    """
    text = _plain(text)
    starts = [match.start() for match in _URL.finditer(text)]
    for start, stop in pairwise([*starts, len(text)]):
        segment = text[start:stop]
        output, quote, curl = (pattern.search(segment, 8) for pattern in (_OUTPUT, _STOP, _CURL))
        if output and curl and curl.start() < output.start():
            output = None
        end = min((match.start() for match in (output, quote, curl) if match), default=len(segment))
        opened = text[max(0, start - 9) : start].rstrip(" ")[-1:] in tuple("'\"`<([")
        certain = output is not None or (opened and quote is not None and quote.start() == end)
        url = _joined(segment[: min(end, _LONGEST)], certain, whole)
        name = None
        if output:
            name = _output_name(segment[output.end() : curl.start() if curl else len(segment)])
        yield url, name


def _joined(text: str, certain: bool, whole: Callable[[str], bool]) -> str:
    """Join the pieces of a wrapped URL: all of them, or as many as make it whole."""
    pieces = text.split()

    def reading(count: int) -> str:
        return _unwrapped("".join(pieces[:count]), whole)

    url = reading(len(pieces))
    if certain or not whole(url):
        return url if certain else reading(1)
    # Nothing marks its end: the words after it may belong to the letter.
    few, many = 0, len(pieces)
    while many - few > 1:
        middle = (few + many) // 2
        if whole(candidate := reading(middle)):
            many, url = middle, candidate
        else:
            few = middle
    return url


def _output_name(text: str) -> str | None:
    """Read the name after ``--output``, which may be wrapped or run into the next words."""
    text = text[:1000].replace("%20", " ").lstrip(" \t\n=\"'`")
    joined = ""
    for line in text.split("\n")[:3]:
        joined += line.strip(" \"'")
        if match := ARCHIVE_NAME.match(joined):
            return match[0]
        if " " in joined:
            break
    match = re.match(r"[^\s\"'`<>;?&=%()\[\]{}|]+", text)
    return match[0] if match else None


# ---- gateways ----------------------------------------------------------------------------

_VERSION_3 = re.compile(r"/v3/__(?P<url>.+)__;(?P<replaced>[\w-]*)", re.ASCII)
_INNER = re.compile(
    r"(?P<quoted>(?i:https?(?::|%(?:25)*3A)(?:/|%(?:25)*2F)))"
    r"|(?P<dashes>https?-3A_)"
    r"|(?<![A-Za-z0-9+])(?P<base64>aHR0c[\w+/%=-]{16,})"
)


def _unwrapped(url: str, whole: Callable[[str], bool]) -> str:
    """Take a URL out of the gateways' own, whoever they are, and undo quoting once too often."""
    if not re.match(r"https?:", url, re.IGNORECASE):
        url = f"https://-?{url}"  # a quoted one stands as if in a gateway's
    for _ in range(_ROUNDS):
        # Once more, for those that a wrap had cut.
        url = _ENTITY.sub(_character, _unescaped(url))
        inner = _inner(url)
        if inner is None:
            break
        url = "".join(inner.split())
    url = re.sub(r"^(https?):/*", lambda match: f"{match[1].lower()}://", url, flags=re.IGNORECASE)
    reading = url
    for _ in range(_ROUNDS):
        if whole(reading):
            return reading
        reading = "".join(unquote(reading).split())
    return url


def _inner(url: str) -> str | None:
    """Return the URL that another holds in a parameter or in its path, or None."""
    outer = _VERSION_3.search(url)
    for match in _INNER.finditer(url, 8):
        if outer and outer.start() < match.start():
            return _urldefense_3(outer)
        rest = url[match.start() :]
        if match["dashes"]:  # urldefense version 2
            return unquote(rest.partition("&")[0].replace("-", "%").replace("_", "/"))
        if match["base64"]:
            inner = _of_base64(match["base64"])
            if re.match(r"https?(:|%)", inner):
                return inner
            continue
        if "%" not in match[0]:
            return rest.rpartition("___")[0] if url[: match.start()].endswith("___") else rest
        rest = rest.partition("&")[0]
        for _ in range(min(1 + len(max(re.findall(r"%((?:25)*)", match[0]))) // 2, _ROUNDS)):
            rest = unquote(rest)
        return rest
    return None


def _of_base64(coded: str) -> str:
    """Decode base64 of either alphabet, as far as it goes; "" where it is not base64."""
    coded = unquote(coded).replace("-", "+").replace("_", "/").partition("=")[0]
    coded = re.sub(r"[^A-Za-z0-9+/].*", "", coded)
    coded = coded[: len(coded) - (len(coded) % 4 == 1)]
    return base64.b64decode(coded + "=" * (-len(coded) % 4)).decode("utf-8", "replace")


def _urldefense_3(match: re.Match[str]) -> str:
    """Undo version 3: ``__URL__;REPLACED!!TOKEN``, where REPLACED is base64.

    Each ``*`` in the URL stands for the next replaced character, ``**X`` for a run of them whose
    length is X's place in the URL-safe base64 alphabet plus 2.
    """
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    characters = iter(_of_base64(match["replaced"]))

    def restore(star: re.Match[str]) -> str:
        run = 1 if len(star[0]) == 1 else alphabet.index(star[0][2]) + 2
        return "".join(next(characters, "") for _ in range(run))

    return re.sub(r"\*(?:\*[\w-])?", restore, match["url"], flags=re.ASCII)
