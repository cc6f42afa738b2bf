"""The site of the documents: it builds without a warning, its links lead somewhere, and it asks no other host."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
IN_CSS = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""")


class Page(HTMLParser):
    """What a page loads by itself, and where its links lead."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links = [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "href" and tag == "a":
                self.links.append(value)
            elif name in ("src", "href", "data", "poster", "action"):
                self.loads.append(value)
            elif name == "srcset":
                self.loads += [part.split()[0] for part in value.split(",")]
            elif name == "style":
                self.loads += IN_CSS.findall(value)


def there(page, address):
    """Whether what a page names is a file of the site."""
    parts = urlsplit(address)
    return not parts.scheme and not parts.netloc and (not parts.path or (page.parent / unquote(parts.path)).is_file())


def test_the_site_builds_strictly_and_asks_no_other_host(tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", "-d", tmp_path / "trees"]
    built = subprocess.run([*command, ".", site], cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "README.html", "CONTRIBUTING.html"} <= {page.name for page in pages}
    assert len(pages) > len(list(ROOT.glob("docs/*.md")))
    for path in pages:
        page = Page(path)
        assert page.loads or path.name == "index.html", path
        for address in page.loads:
            assert address.startswith(("data:", "0; url=")) or there(path, address), (path.name, address)
        for address in page.links:
            assert urlsplit(address).scheme in ("https", "http") or there(path, address), (path.name, address)
    sheets = list(site.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        for address in IN_CSS.findall(sheet.read_text()):
            assert address.startswith(("data:", "#")) or there(sheet, address), (sheet.name, address)
