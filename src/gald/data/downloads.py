"""Download: one file of a dataset that `gald data prepare` fetches."""

from typing import NamedTuple


class Download(NamedTuple):
    """A file with a published checksum, and where it goes in the dataset's folder.

    Attributes:
        name: file name in the dataset's folder.
        url: http or https.
        size: as printed before the download.
        digest: `sha1:`, `sha256:` or `md5:` and the published checksum in hexadecimal digits.
        folder: folder of the archive to extract, which gets the same name in the dataset's folder;
            the archive is deleted afterwards. Empty keeps the file as it is.
    """

    name: str
    url: str
    size: str
    digest: str
    folder: str = ""
