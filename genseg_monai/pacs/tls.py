"""Certificates that are refused, here or by the archive, told apart from an archive that is not there.

Neither pynetdicom nor httpx hands the reason on by itself, and nobody should wait for a back-off to be told that a
certificate is wrong.
"""

from __future__ import annotations

import ssl

from genseg_monai.pacs.faults import ArchiveError, NetFault

__all__ = ["tls_fault", "watch"]

# what OpenSSL found (X509_V_ERR_*) -> how to say it, and what to do
_TRUST = "set ca under tls in pacs.yaml to the PEM file of the authority that signed it"
_FOUND = {
    9: ("it is not valid yet", "look at the clocks"),
    10: ("it has expired", "have the archive's certificate renewed"),
    18: ("it is signed by itself", _TRUST),
    19: ("its authority is not trusted", _TRUST),
    20: ("its authority is not trusted", _TRUST),
    21: ("its authority is not trusted", _TRUST),
    62: ("it is for another host name", "write the name of the certificate into pacs.yaml (host, dicomweb)"),
    64: ("it is for another address", "write the name of the certificate into pacs.yaml (host, dicomweb)"),
}
_OURS = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED", "DECRYPT_ERROR")
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")


def watch(context: ssl.SSLContext, faults: list[BaseException]) -> ssl.SSLContext:
    """Have a context note why a handshake failed; pynetdicom only logs it.

    Args:
        context: changed and returned.
        faults: takes the exceptions.
    """

    class Watched(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            try:
                super().do_handshake(block)
            except ssl.SSLError as error:
                faults.append(error)
                raise

    context.sslsocket_class = Watched
    return context


def tls_fault(route: str, error: BaseException | None) -> ArchiveError | None:
    """Return what to tell of an error that a certificate, or the lack of one, is behind; None if none is.

    Args:
        route: to name in the message.
        error: with the chain of those that caused it.

    Example:
        >>> print(tls_fault("c-echo", ssl.SSLCertVerificationError("no")).problem)
        wanted a certificate to trust, refused that of the archive: it is not trusted; set ca under tls in pacs.yaml \
to the PEM file of the authority that signed it
        >>> tls_fault("c-echo", ConnectionResetError()) is None
        True
    """
    while error is not None:
        reason = str(getattr(error, "reason", "") or "").upper()
        if isinstance(error, ssl.SSLCertVerificationError):
            found, advice = _FOUND.get(getattr(error, "verify_code", 0), ("it is not trusted", _TRUST))
            problem = f"wanted a certificate to trust, refused that of the archive: {found}; {advice}"
            return ArchiveError(route, NetFault.CERTIFICATE, problem)
        if isinstance(error, ssl.SSLError) and any(word in reason for word in _OURS):
            problem = "wanted to be trusted, the archive refused our certificate; set cert and key under tls in "
            problem += "pacs.yaml to files signed by an authority it trusts"
            return ArchiveError(route, NetFault.CERTIFICATE, problem)
        if isinstance(error, ssl.SSLError) and any(word in reason for word in _NO_TLS):
            problem = "wanted TLS, the other side speaks none at this port; is the port the one for TLS?"
            return ArchiveError(route, NetFault.CERTIFICATE, problem)
        error = error.__cause__ or error.__context__
    return None
