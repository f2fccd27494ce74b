"""URLs out of an email, whatever happened to it on the way.

fastMRI's email lists lines such as ``curl -C - "URL" --output NAME``. Mail programs wrap them in
mid-word or run them together, lose or add quotes, turn ``&`` into ``&amp;``, and gateways put each
URL into one of their own.
"""

import base64
import binascii
import html
import quopri
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from urllib.parse import unquote, urlsplit


def _wrapped(word: str) -> str:
    """Return a pattern for a word that a hard wrap may have cut anywhere."""
    return r"(?:[ \t]*\n[ \t]*)?".join(re.escape(letter) for letter in word)


_URL = re.compile(rf"(?<!__)(?<!__\n)(?:{_wrapped('https:/')}|{_wrapped('http:/')})")
_OUTPUT = re.compile(rf"(?:{_wrapped('--')}|[–—]){_wrapped('output')}|(?:(?<=\s)|(?<=%20))-o(?=\s)")
_CURL = re.compile(rf"{_wrapped('curl')}(?=\s+-|\s*[\"'])")
_QUOTE = re.compile(r"[\"'<>`]")
ARCHIVE_NAME = re.compile(
    r"[\w.-]*?(?:\.tar(?:\.[gx]z)?|\.t[gx]z|SHA256(?:SUMS)?(?:\.txt)?)", re.ASCII
)


def _plain(text: str) -> str:
    """Undo what a mail program does to the text as a whole."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Not by the signature, which may begin with "3D" by chance; what these begin with is known.
    if re.search(r"(?:AWSAccessKeyId=3DA|X-Amz-Algorithm=3DA)", text.replace("=\n", "")):
        text = quopri.decodestring(text.encode()).decode("utf-8", "replace")
    text = _unescaped(text)
    text = re.sub("[\u200b\u200c\u200d\u2060\ufeff\u00ad]", "", text).replace("\u00a0", " ")
    text = re.sub("[“”„‟″]", '"', text)
    text = re.sub("[‘’‚]", "'", text)
    text = re.sub(r"[\\^][ \t]*\n", "\n", text)
    return re.sub(r"^[ \t]*(?:>[ \t]?)+", "", text, flags=re.MULTILINE)


def _unescaped(text: str) -> str:
    # Not html.unescape on everything: it reads "&reg" or "&not" in a query without a semicolon.
    entity = re.compile(r"&(?:amp|quot|apos|lt|gt|nbsp|#\d+|#x[0-9a-fA-F]+);")
    while (changed := entity.sub(lambda match: html.unescape(match[0]), text)) != text:
        text = changed
    return text


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
        output, quote, curl = (pattern.search(segment, 8) for pattern in (_OUTPUT, _QUOTE, _CURL))
        if output and curl and curl.start() < output.start():
            output = None
        end = min((match.start() for match in (output, quote, curl) if match), default=len(segment))
        opened = text[:start].rstrip(" ")[-1:] in ("'", '"', "`", "<")
        certain = output is not None or (opened and quote is not None and quote.start() == end)
        url = _joined(segment[:end], None if certain else whole)
        name = None
        if output:
            name = _output_name(segment[output.end() : curl.start() if curl else len(segment)])
        yield _unwrapped(_unescaped(url)), name


def _joined(text: str, whole: Callable[[str], bool] | None) -> str:
    """Join the pieces of a wrapped URL: all of them, or as many as make it whole."""
    pieces = text.split()
    if whole is None:
        return "".join(pieces)
    # Nothing marks its end: the words after it may belong to the letter.
    url = ""
    for piece in pieces:
        url += piece
        if whole(_unwrapped(url)):
            break
    return url


def _output_name(text: str) -> str | None:
    """Read the name after ``--output``, which may be wrapped or run into the next words."""
    text = text.replace("%20", " ").lstrip(" \t\n=\"'")
    joined = ""
    for line in text.split("\n")[:3]:
        joined += line.strip(" \"'")
        if match := ARCHIVE_NAME.match(joined):
            return match[0]
        if " " in joined:
            break
    match = re.match(r"[^\s\"'<>;]+", text)
    return match[0] if match else None


# ---- gateways ----------------------------------------------------------------------------


def _unwrapped(url: str) -> str:
    """Take a URL out of the gateways' own: urldefense versions 2 and 3, Outlook's Safe Links."""
    for _ in range(5):
        parts = urlsplit(url)
        host = parts.hostname or ""
        query = dict(pair.split("=", 1) for pair in parts.query.split("&") if "=" in pair)
        if host.startswith("urldefense.") and "/v3/" in parts.path:
            inner = _urldefense_3(url)
        elif host.startswith("urldefense.") and "u" in query:
            inner = unquote(query["u"].replace("-", "%").replace("_", "/"))
        elif host.endswith("safelinks.protection.outlook.com") and "url" in query:
            inner = unquote(query["url"])
        else:
            break
        if inner is None:
            break
        url = inner
    return url


def _urldefense_3(url: str) -> str | None:
    """Undo version 3: ``__URL__;REPLACED!!TOKEN``, where REPLACED is base64.

    Each ``*`` in the URL stands for the next replaced character, ``**X`` for a run of them whose
    length is X's place in the URL-safe base64 alphabet plus 2.
    """
    match = re.search(r"/v3/__(?P<url>.+?)__;(?P<replaced>[\w-]*)", url, re.ASCII)
    if not match:
        return None
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    try:
        coded = match["replaced"]
        replaced = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    characters = iter(replaced)

    def restore(star: re.Match[str]) -> str:
        run = 1 if len(star[0]) == 1 else alphabet.index(star[0][2]) + 2
        return "".join(next(characters, "") for _ in range(run))

    inner = re.sub(r"\*(?:\*[\w-])?", restore, match["url"], flags=re.ASCII)
    return re.sub(r"^(https?:/)(?!/)", r"\1/", inner)
