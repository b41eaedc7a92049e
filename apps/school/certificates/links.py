"""The two addresses of a certificate: the page for everybody, and the file for whoever holds the link."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from errands.kits.storage import LinkError, link_signer
from school import mail
from school.app import app
from school.certificates.tables import Certificate

LINK_SECONDS = 30 * 24 * 3600


def page(certificate: Certificate) -> str:
    """Where anybody can check the certificate."""
    return mail.page(f"/certificates/{certificate.number}")


def download(certificate: Certificate) -> str:
    """A signed link to the file, good for 30 days."""
    link = link_signer(app.settings).sign(
        certificate.file_key, filename=filename(certificate), expires_in=LINK_SECONDS
    )
    return f"{page(certificate)}.pdf?{urlsplit(link).query}"


def opens(certificate: Certificate, query: Mapping[str, str]) -> bool:
    """Whether the query of a link to this certificate's file holds."""
    try:
        link_signer(app.settings).check(certificate.file_key, query)
    except LinkError:
        return False
    return True


def filename(certificate: Certificate) -> str:
    """What the file is called where it is saved."""
    return f"{certificate.course} {certificate.number}.pdf"
