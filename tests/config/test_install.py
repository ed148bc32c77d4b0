"""The settings of pip reach uv, which installs what is locked."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "config" / "requirements" / "install.py"

LISTED = """\
:env:.cert='/etc/ssl/company.pem'
:env:.disable-pip-version-check='1'
global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
global.find-links='/wheels /more'
global.index-url='https://name:word@host.example/simple?a=b'
install.index-url='https://only-install.example/simple'
"""


def test_uv_is_told_what_pip_is_set_to():
    settings = runpy.run_path(str(SCRIPT))["settings"]
    assert settings(LISTED) == {
        "SSL_CERT_FILE": "/etc/ssl/company.pem",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_DEFAULT_INDEX": "https://only-install.example/simple",
    }
    assert settings("") == {}
