"""The fonts of documents: those of pinned packages, never those that a machine happens to have."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from errands.core.errors import ConfigurationError

PACKAGES = (
    "justmytype_western_core",
    "justmytype_intl_rtl",
    "justmytype_intl_south_asia",
    "justmytype_intl_sea",
    "justmytype_intl_cjk",
)
"""The modules with the fonts; all come with `errands[documents]`."""

MORE = "manimgx_fonts"
"""A module with fonts for the scripts of `_MORE`; where it is not installed, their letters are refused."""

_SERIF = ("Source Serif 4", "Noto Serif", "Noto Sans")
_SANS = ("Inter", "Noto Sans", "Noto Serif")
_SCRIPTS = (
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Telugu",
    "Noto Sans Thai",
    "Noto Sans Lao",
    "Noto Sans Khmer",
    "Noto Sans Myanmar",
)
_MORE = (
    "Noto Sans Armenian",
    "Noto Sans Ethiopic",
    "Noto Sans Georgian",
    "Noto Sans Gujarati",
    "Noto Sans Gurmukhi",
    "Noto Sans Kannada",
    "Noto Sans Malayalam",
    "Noto Sans Oriya",
    "Noto Sans Sinhala",
)
_HAN = {"SC": "Noto Sans SC", "TC": "Noto Sans TC", "JP": "Noto Sans JP", "KR": "Noto Sans KR"}
_SYMBOLS = ("Noto Sans Symbols 2", "STIX Two Math")

_KANA = re.compile("[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")


def folders() -> list[Path]:
    """The folders with the fonts; raises `ConfigurationError` for a package that is not installed."""
    found = []
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise ConfigurationError(
                f"the fonts of {package.replace('_', '-')} are missing: pip install 'errands[documents]'"
            )
        found.append(Path(spec.origin).parent / "fonts")
    return found


def link_more(folder: Path) -> Path | None:
    """Make `folder` with links to the fonts of `_MORE`, where their package is installed.

    Only to these: it brings other versions of fonts that we have, and one of them would win by chance.
    """
    spec = find_spec(MORE)
    if spec is None or spec.origin is None:
        return None
    folder.mkdir()
    for family in _MORE:
        for path in Path(spec.origin).parent.glob(f"{family.replace(' ', '')}[[]*.ttf"):
            (folder / path.name).symlink_to(path)
    return folder


def families(text: str, language: str) -> dict[str, list[str]]:
    """The order in which fonts are asked for the letters of `text`: of `serif` text and of `sans`.

    Chinese, Japanese and Korean share characters and draw them differently: kana and hangul in the text
    decide, then the language, then simplified Chinese.
    """
    tag = language.lower()
    if _KANA.search(text) or tag.startswith("ja"):
        first = "JP"
    elif _HANGUL.search(text) or tag.startswith("ko"):
        first = "KR"
    elif re.match(r"zh-(hant|tw|hk|mo)\b", tag):
        first = "TC"
    else:
        first = "SC"
    han = [_HAN[first], *(family for script, family in _HAN.items() if script != first)]
    rest = [*_SCRIPTS, *_MORE, *han, *_SYMBOLS]
    return {"serif": [*_SERIF, *rest], "sans": [*_SANS, *rest]}
