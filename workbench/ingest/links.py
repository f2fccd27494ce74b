"""Signed links out of fastMRI's email: what each leads to and how long it holds."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

from workbench import catalog
from workbench.ingest import mail
from workbench.settings import Secret

WHERE_TO_ASK = "https://fastmri.med.nyu.edu"

# Query parameters of a signed link: Amazon's signature versions 2 and 4.
_VERSION_2 = {
    "AWSAccessKeyId": re.compile(r"[\w%/+=.-]{4,}"),
    "Signature": re.compile(r"(?:[\w/+=-]|%[0-9A-Fa-f]{2}){8,}"),
    "Expires": re.compile(r"\d{10}"),
}
_VERSION_4 = {
    "X-Amz-Credential": re.compile(r"[\w%/+=.-]{8,}"),
    "X-Amz-Date": re.compile(r"\d{8}T\d{6}Z"),
    "X-Amz-Expires": re.compile(r"\d+"),
    "X-Amz-Signature": re.compile(r"[0-9a-fA-F]{64}"),
}


@dataclass(frozen=True)
class SignedLink:
    """One file that the email offers.

    Attributes:
        name: file name that the email gives it, with no folder.
        url: the signed link itself.
        object_path: path of the object in its bucket, such as ``/v2.0/knee_multicoil_val.tar.xz``.
        dataset: the dataset that it belongs to, or None.
        expires: when the signature ends, in UTC, or None where the link does not say.
    """

    name: str
    url: Secret
    object_path: str
    dataset: str | None
    expires: datetime | None

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

    def expired(self, now: datetime) -> bool:
        """Say whether the signature has ended at ``now`` (aware, any zone)."""
        return self.expires is not None and self.expires <= now


def archive_stem(name: str) -> str:
    """Return an archive's name without ``.tar``, ``.tar.gz``, ``.tar.xz``, ``.tgz`` or ``.txz``."""
    return re.sub(r"(\.tar)?(\.gz|\.xz)?$|\.t[gx]z$", "", name, flags=re.IGNORECASE)


def parse_links(text: str) -> list[SignedLink]:
    """Read every signed link out of an email's text (plain, HTML, quoted, wrapped or mangled).

    The same object signed twice counts once, with the signature that ends last.

    Raises:
        ValueError: there is no signed link, a link is cut short, or two links for one file lead
            to different objects. The message names files, never a link.
    """
    found: dict[str, SignedLink] = {}
    cut: dict[str, str] = {}
    for url, name in mail.urls(text, lambda url: _whole(urlsplit(url).query)):
        try:
            link = _signed_link(url, name)
        except _CutShortError as error:
            cut[error.object_path] = str(error)
            continue
        if link is None:
            continue
        known = found.get(link.object_path)
        if known is None or _ends(link) > _ends(known):
            found[link.object_path] = link
    for path in cut.keys() - found.keys():
        raise ValueError(f"{cut[path]}: copy its line from the email again, whole")
    if not found:
        raise ValueError(
            "no signed link in the text: paste the whole email from fastMRI, with its lines "
            f'`curl -C - "https://...Signature=..." --output NAME`; ask for one at {WHERE_TO_ASK}'
        )
    links = list(found.values())
    _refuse_disagreement(links)
    return links


def _ends(link: SignedLink) -> datetime:
    return link.expires or datetime.min.replace(tzinfo=UTC)


def _refuse_disagreement(links: list[SignedLink]) -> None:
    by_name: dict[str, SignedLink] = {}
    for link in links:
        # Brain and prostate each come with a list of sums of the same name.
        if link.is_checksums:
            continue
        other = by_name.setdefault(link.name, link)
        if other is not link:
            raise ValueError(
                f"{link.name}: two links lead to different objects ({other.object_path} and "
                f"{link.object_path}): keep the line of one of them and remove the other"
            )


class _CutShortError(Exception):
    def __init__(self, name: str, object_path: str) -> None:
        super().__init__(f"{name}: its link is cut short, parts of the signature are missing")
        self.object_path = object_path


def _signed_link(url: str, output: str | None) -> SignedLink | None:
    """Make a link of a URL; None where it has nothing to do with the data."""
    parts = urlsplit(url)
    path = re.sub(r"(?:%20|\s)+$", "", parts.path)
    object_name = _file_name(unquote(path))
    name = _file_name(output) if output else object_name
    # A name that lost its ".xz" on the way gets it back from the object.
    if not name or object_name.startswith(name):
        name = object_name
    dataset = catalog.dataset_of_archive(name) or catalog.dataset_of_archive(object_name)
    signed = re.search(r"(?:^|&)(?:AWSAccessKeyId|Signature|X-Amz-\w+)=", parts.query)
    if not signed and not mail.ARCHIVE_NAME.fullmatch(object_name):
        return None
    if not name or not parts.hostname:
        return None
    if not _whole(parts.query):
        raise _CutShortError(name, unquote(path))
    query = _cleaned(parts.query)
    return SignedLink(
        name=name,
        url=Secret(f"{parts.scheme}://{parts.netloc}{path}?{query}"),
        object_path=unquote(path),
        dataset=dataset,
        expires=_expiry(parse_qs(query)),
    )


def _file_name(text: str) -> str:
    """Reduce a name to a plain, visible file name without folders."""
    name = re.split(r"[/\\]", text.strip(" \"'"))[-1].strip()
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).lstrip(".")


def _whole(query: str) -> bool:
    """Say whether a query holds every part of a signature of either version."""
    values = _values(query)
    return any(
        all(pattern.match(values.get(key, "")) for key, pattern in version.items())
        and _signature_ends(values, version is _VERSION_2)
        for version in (_VERSION_2, _VERSION_4)
    )


def _signature_ends(values: dict[str, str], version_2: bool) -> bool:
    # 20 bytes of HMAC-SHA1 in base64 are 28 characters: a wrap may have cut them.
    return not version_2 or len(unquote(values["Signature"])) >= 28


def _values(query: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in query.split("&"))
    return {key: value.replace("%20", "") for key, _, value in pairs}


def _cleaned(query: str) -> str:
    """Drop what mail programs add to a signature's values; other parameters stay as they are."""
    tokens = _VERSION_2 | _VERSION_4
    values = _values(query)
    cleaned = []
    for part in re.sub(r"(?:%20)+$", "", query).split("&"):
        key = part.partition("=")[0]
        match = tokens[key].match(values[key]) if key in tokens else None
        cleaned.append(f"{key}={match[0]}" if match else part)
    return "&".join(cleaned)


def _expiry(values: dict[str, list[str]]) -> datetime | None:
    if "X-Amz-Date" in values:
        signed = datetime.strptime(values["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return signed + timedelta(seconds=int(values["X-Amz-Expires"][0]))
    return datetime.fromtimestamp(int(values["Expires"][0]), UTC)
