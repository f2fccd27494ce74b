"""Signed links out of fastMRI's email: what each leads to and how long it holds."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

from workbench import catalog
from workbench.ingest import mail
from workbench.settings import Secret

WHERE_TO_ASK = "https://fastmri.med.nyu.edu"

# Query parameters of a signed link: Amazon's signature versions 2 and 4. Values that are quoted
# once too often do not match.
_SLASH = r"(?:/|%2[Ff])"
_VERSION_2 = {
    "AWSAccessKeyId": re.compile(r"[A-Za-z0-9]{4,}"),
    # 20 bytes of HMAC-SHA1 in base64, of which the last character is "=".
    "Signature": re.compile(r"(?:[A-Za-z0-9+/=]|%2[BFbf]|%3[Dd]){27}(?:=|%3[Dd])"),
    "Expires": re.compile(r"[0-9]{10}"),
}
_VERSION_4 = {
    "X-Amz-Algorithm": re.compile(r"AWS4-HMAC-SHA256"),
    "X-Amz-Credential": re.compile(
        rf"\w+{_SLASH}\d{{8}}{_SLASH}[\w-]+{_SLASH}s3{_SLASH}aws4_request", re.ASCII
    ),
    "X-Amz-Date": re.compile(r"[0-9]{8}T[0-9]{6}Z"),
    "X-Amz-Expires": re.compile(r"[0-9]{1,7}"),
    "X-Amz-SignedHeaders": re.compile(r"[a-z0-9-]+(?:(?:;|%3[Bb])[a-z0-9-]+)*"),
    "X-Amz-Signature": re.compile(r"[0-9a-fA-F]{64}"),
}
_TOKENS = _VERSION_2 | _VERSION_4
_OTHER = re.compile(r"[\w%/+=.~-]*", re.ASCII)
_OF_AMAZON = re.compile(r"X-Amz-[\w-]+|response-[\w-]+|versionId|x-id", re.IGNORECASE)
_PARTS = re.compile(
    r"(?P<scheme>https?)://(?P<host>[\w.-]+(?::\d+)?)(?P<path>/[\w.~%/!$*,:;@+=-]*)"
    r"(?:\?(?P<query>[^#]*))?",
    re.ASCII,
)
# Words of archives' names: a message shows no others, whatever stands where a name should.
_WORDS = re.compile(
    r"knee|brain|prostate|breast|fastmri|multicoil|singlecoil|train|val|test|full|challenge"
    r"|transfer|batch\d{0,2}|mri|dicoms?|v?\d{1,3}|ids|t[12]|diff|dwi|tar|[gx]z|t[gx]z"
    r"|sha256(?:sums)?|txt",
    re.IGNORECASE,
)
# Gateways that keep the address on their own servers.
_OPAQUE = re.compile(
    r"mimecast(?:protect)?\.com|hornetsecurity\.com|sendgrid\.net|avanan\.click"
    r"|checkpoint\.com|egress\.com|list-manage\.com|bit\.ly|tinyurl\.com"
)


@dataclass(frozen=True)
class SignedLink:
    """One file that the email offers."""

    name: str  # file name that the email gives it, with no folder
    url: Secret
    object_path: str
    """Path of the object in its bucket, such as ``/v2.0/knee_multicoil_val.tar.xz``."""
    dataset: str | None
    expires: datetime | None  # when the signature ends, in UTC, or None where the link does not say

    @property
    def stem(self) -> str:
        """Name without the archive's extensions."""
        return archive_stem(self.name)

    @property
    def object_name(self) -> str:
        """Name of the object in its bucket; it can differ from the name in the email."""
        return self.object_path.rpartition("/")[2]

    @property
    def generation(self) -> str:
        """The links' generation: "2021" at the bucket's root, "2025" under ``/v2.0/`` and later."""
        return "2025" if re.search(r"/v\d+(\.\d+)?/", self.object_path) else "2021"

    @property
    def is_checksums(self) -> bool:
        """Whether this is a list of SHA256 sums, not an archive."""
        return "SHA256" in (self.name + self.object_name).upper()

    @property
    def expired(self) -> bool:
        """Whether the signature has ended."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


def archive_stem(name: str) -> str:
    """Return an archive's name without ``.tar``, ``.tar.gz``, ``.tar.xz``, ``.tgz`` or ``.txz``."""
    return re.sub(r"(\.tar)?(\.gz|\.xz)?$|\.t[gx]z$", "", name, flags=re.IGNORECASE)


class Links(list[SignedLink]):
    """The links that an email offers.

    Attributes:
        left_out: links that cannot be used: the archive's name, why, and what to do.
    """

    def __init__(self, links: Iterable[SignedLink] = (), left_out: Iterable[str] = ()) -> None:
        super().__init__(links)
        self.left_out = tuple(left_out)


def parse_links(text: str) -> Links:
    """Read every signed link out of an email's text (plain, HTML, quoted, wrapped or mangled).

    The same object signed twice counts once, with the signature that ends last. Links that are
    broken, or that contradict each other, are left out and named.

    Raises:
        ValueError: there is no link that can be used. The message names files, never a link.
    """
    found: dict[str, tuple[tuple[datetime, bool], SignedLink]] = {}
    broken: dict[str, str] = {}
    for url, output in mail.urls(text, _whole):
        link = _signed_link(url, output)
        if link is None:
            for name, reason in _broken(url, output):
                broken.setdefault(name, reason)
            continue
        rank = (link.expires or datetime.min.replace(tzinfo=UTC), output is not None)
        if link.object_path not in found or rank > found[link.object_path][0]:
            found[link.object_path] = rank, link
    links, left_out = _agreeing([link for _, link in found.values()])
    names = sorted(shown_name(name) for link in links for name in (link.name, link.object_name))
    for name, reason in broken.items():
        # Not where a whole link for it, or for a name that begins so, stands in the text too.
        start = name.rstrip(".…")
        place = bisect_left(names, start)
        if not start or place == len(names) or not names[place].startswith(start):
            left_out.append(f"{name}: {reason}")
    if not links:
        raise ValueError(
            "; ".join(left_out)
            or "no signed link in the text: paste the whole email from fastMRI, with its lines "
            f'`curl -C - "https://...Signature=..." --output NAME`; ask for one at {WHERE_TO_ASK}'
        )
    return Links(links, left_out)


def _agreeing(links: list[SignedLink]) -> tuple[list[SignedLink], list[str]]:
    """Leave out links for one file that lead to different objects; say which."""
    by_file: dict[tuple[str, ...], list[SignedLink]] = {}
    for link in links:
        # Brain and prostate each come with a list of sums of the same name.
        if not link.is_checksums:
            by_file.setdefault((link.name,), []).append(link)
            by_file.setdefault((link.generation, link.stem), []).append(link)
    refused: dict[str, str] = {}
    for one, *others in by_file.values():
        for other in others:
            why = (
                f"{shown_name(one.name)}: two links lead to different objects "
                f"({shown_name(one.object_path)} and {shown_name(other.object_path)}): keep the "
                "line of one of them and remove the other"
            )
            refused |= {one.object_path: why, other.object_path: why}
    kept = [link for link in links if link.object_path not in refused]
    return kept, list(dict.fromkeys(refused.values()))


_CUT = "its link is cut short or damaged: copy its line from the email again, whole"


def _signed_link(url: str, output: str | None) -> SignedLink | None:
    """Make a link of a URL; None where it is not one, or damaged."""
    parts = _PARTS.match(url)
    path = re.sub(r"(?:%20)+$", "", parts["path"]) if parts else ""
    object_name = _file_name(unquote(path))
    name = _file_name(output) if output and output.isascii() else object_name
    # A name that lost its ".xz" on the way gets it back from the object.
    if not name or object_name.startswith(name):
        name = object_name
    if not parts or not name or not _whole(url):
        return None
    query = _cleaned(parts["query"])
    return SignedLink(
        name=name,
        url=Secret(f"{parts['scheme']}://{parts['host']}{path}?{query}"),
        object_path=unquote(path),
        dataset=catalog.dataset_of_archive(name) or catalog.dataset_of_archive(object_name),
        expires=_expiry(_values(query)),
    )


def _broken(url: str, output: str | None) -> Iterator[tuple[str, str]]:
    """Name the archive of fastMRI's, if any, that a damaged URL was for, and say what to do."""
    address, _, query = url[:2000].partition("?")
    host = re.sub(r"^https?://", "", address).partition("/")[0]
    object_name = address.rpartition("/")[2]
    for text in (output or "", object_name):
        match = mail.ARCHIVE_NAME.match(text)
        if match and (catalog.dataset_of_archive(match[0]) or "SHA256" in match[0]):
            hider = _OPAQUE.search(host)
            hidden = hider and (
                f"{hider[0]} hides where its link leads: open the email where that gateway does "
                f"not rewrite it, or ask for it at another address ({WHERE_TO_ASK})"
            )
            yield shown_name(match[0]), hidden or _CUT
            return
    if "fastmri-dataset" in host and ("Signature" in query or "AWSAccessKeyId" in query):
        yield shown_name(object_name) or "an archive", _CUT


def shown_name(name: str) -> str:
    """Return a file's name or path for a message: words that archives' names have, no others."""
    kept = re.sub(
        r"[^\W_]+", lambda word: word[0] if _WORDS.fullmatch(word[0]) else "…", name[:200]
    )
    return re.sub(r"[^\w./…-]+", "…", kept, flags=re.ASCII)


def _file_name(text: str) -> str:
    """Reduce a name to a plain, visible file name without folders."""
    name = re.split(r"[/\\]", text.strip(" \"'"))[-1].strip()
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).lstrip(".")


def _whole(url: str) -> bool:
    """Say whether a URL holds every part of a signature of either version."""
    parts = _PARTS.match(url)
    return parts is not None and _expiry(_values(_cleaned(parts["query"] or ""))) is not None


def _values(query: str) -> dict[str, str]:
    """Return the parameters' values as they stand; of several of one name, the first."""
    pairs = [part.partition("=") for part in query.split("&")]
    return {key: value for key, _, value in reversed(pairs)}


def _cleaned(query: str) -> str:
    """Return a query as it was signed, without what stands behind; "" where parts are missing.

    Behind the signature's last value there may be anything; the others are exact.
    """
    seen: set[str] = set()
    cleaned: list[str] = []
    signed = 0
    for part in query.split("&"):
        key, _, value = part.partition("=")
        value = value.replace("%20", "")
        pattern = _TOKENS.get(key) or (_OTHER if _OF_AMAZON.fullmatch(key) else None)
        match = pattern.match(value) if pattern else None
        cleaned.append(f"{key}={match[0]}" if match else part)
        if match:
            seen.add(key)
            if _VERSION_2.keys() <= seen or _VERSION_4.keys() <= seen:
                signed = len(cleaned)
        if pattern and (match is None or match[0] != value):
            break
    return "&".join(cleaned[:signed])


def _expiry(values: dict[str, str]) -> datetime | None:
    """Return when a signature ends, or None where the values do not say."""
    date, seconds, ends = (
        _TOKENS[key].match(values.get(key, ""))
        for key in ("X-Amz-Date", "X-Amz-Expires", "Expires")
    )
    try:
        if date and seconds:
            signed = datetime.strptime(date[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            return signed + timedelta(seconds=int(seconds[0]))
        return datetime.fromtimestamp(int(ends[0]), UTC) if ends else None
    except (ValueError, OverflowError):
        return None
