"""What `pacs.yaml` may say, and that no secret is in it or comes out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from genseg_monai.errors import UserError
from genseg_monai.pacs.settings import Credentials, Limits, PacsSettings, TlsFiles, load_settings, private_file

GOOD = "host: pacs.example.org\nport: 104\ncalled_aet: PACS\naet: US\nmove_port: 1104\ndicomweb: https://pacs.example.org/web//\n"


def read(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> PacsSettings:
    path = tmp_path / "pacs.yaml"
    path.write_text(text)
    return load_settings(path, environment or {})


def test_everything(tmp_path: Path) -> None:
    made = read(tmp_path, GOOD + "limits: {answers: 7}\n", {"GENSEG_PACS_USER": "u", "GENSEG_PACS_PASSWORD": "hidden"})
    assert (made.host, made.port, made.called_aet, made.aet, made.move_port) == (
        "pacs.example.org",
        104,
        "PACS",
        "US",
        1104,
    )
    assert made.dicomweb == "https://pacs.example.org/web"
    assert made.limits == Limits(answers=7)
    assert (made.credentials.user, made.credentials.password) == ("u", "hidden")
    assert "hidden" not in repr(made)


def test_titles_stay_as_typed(tmp_path: Path) -> None:
    assert read(tmp_path, "host: h\nport: 1\ncalled_aet: '1E5'\naet: 'None'\n").called_aet == "1E5"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "mapping"),
        ("[1, 2]", "mapping"),
        ("{", "readable YAML"),
        ("host: h", "port and called_aet"),
        ("aet: US", "host and port, or dicomweb"),
        ("host: h\nport: 99999\ncalled_aet: P", "port number"),
        ("host: h\nport: true\ncalled_aet: P", "port number"),
        ("host: h\nport: 1\ncalled_aet: A_TITLE_THAT_IS_TOO_LONG", "AE title"),
        ("host: h\nport: 1\ncalled_aet: 'A\\B'", "AE title"),
        ("host: h\nport: 1\ncalled_aet: P\nhots: x", "got also hots"),
        ("host: h\nport: 1\ncalled_aet: P\npassword: x", "no secret"),
        ("host: h\nport: 1\ncalled_aet: P\ntoken: x", "no secret"),
        ("dicomweb: ftp://x", "URL like"),
        ("dicomweb: https://u:p@x/y", "no user in the URL"),
        ("dicomweb: https://x/y?z=1", "without a query"),
        ("host: h\nport: 1\ncalled_aet: P\nattempts: 0", "1 to 20"),
        ("host: h\nport: 1\ncalled_aet: P\nlimits: {answers: -1}", "positive whole number"),
        ("host: h\nport: 1\ncalled_aet: P\nlimits: {idle_seconds: .nan}", "positive number"),
        ("host: h\nport: 1\ncalled_aet: P\nlimits: {series_seconds: .inf}", "positive number"),
        ("host: h\nport: 1\ncalled_aet: P\nlimits: {pdu_bytes: 0.5}", "positive whole number"),
        ("host: h\nport: 1\ncalled_aet: P\nlimits: 5", "wanted a mapping"),
        ("host: h\nport: 1\ncalled_aet: P\nretry_seconds: -1", "positive number"),
        ("host: h\nport: 1\ncalled_aet: P\nretry_seconds: x", "positive number"),
        ("host: h\nport: 1\ncalled_aet: P\ntls: true", "tls: wanted a mapping"),
        ("host: h\nport: 1\ncalled_aet: P\ntls: abc", "tls: wanted a mapping"),
        ("host: h\nport: 1\ncalled_aet: P\ntls: {cert: x, pin: y}", "got also pin"),
    ],
)
def test_faults(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read(tmp_path, text)


def test_a_password_never_crosses_the_network_in_the_clear(tmp_path: Path) -> None:
    secret = {"GENSEG_PACS_TOKEN": "hidden"}
    with pytest.raises(UserError, match="https") as caught:
        read(tmp_path, "dicomweb: http://pacs.example.org/web", secret)
    assert "hidden" not in str(caught.value)
    assert read(tmp_path, "dicomweb: http://127.0.0.1:8042/web", secret).credentials == Credentials(token="hidden")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("x")
    key.chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        private_file(key, "tls key")
    with pytest.raises(UserError, match="chmod 600"):
        TlsFiles(cert=key, key=key).context()
    key.chmod(0o600)
    private_file(key, "tls key")
    with pytest.raises(UserError, match="not PEM"):
        TlsFiles(cert=key, key=key).context()


def test_routes_that_the_file_says_nothing_about() -> None:
    dimse, web = PacsSettings(host="h", port=1, called_aet="P"), PacsSettings(dicomweb="https://x/y")
    with pytest.raises(UserError, match="move_port"):
        dimse.need_dimse("c-move")
    with pytest.raises(UserError, match="dicomweb"):
        dimse.need_web("dicomweb")
    with pytest.raises(UserError, match="called_aet"):
        web.need_dimse("c-get")
