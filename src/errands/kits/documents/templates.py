"""The folder of templates that documents are set from: ours, with a school's own laid over it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from errands.core.errors import ConfigurationError

OURS = Path(__file__).with_name("templates")
_MOST_BYTES = 50_000_000
_PACKAGE = re.compile(r"""["']@[\w-]+/""")


def names() -> list[str]:
    """The names of our files: those that a school can replace."""
    return sorted(path.name for path in OURS.iterdir() if path.suffix == ".typ")


def lay(root: Path, folder: Path | None) -> None:
    """Copy our templates to `root`, and those of `folder` over them.

    It is a copy, so that what is set does not change while an app runs, and a template sees nothing else.

    Raises:
        ConfigurationError: there is no such folder, none of its files takes the place of one of ours, it
            leads out of itself, is larger than 50 MB, or a template asks for a package of a network.
    """
    shutil.copytree(OURS, root, dirs_exist_ok=True)
    if folder is None:
        return
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder of document templates {folder}")
    files = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    if not {path.name for path in files if path.parent == folder} & set(names()):
        raise ConfigurationError(
            f"no file of {folder} has the name of a document template: {', '.join(names())}"
        )
    if sum(path.stat().st_size for path in files) > _MOST_BYTES:
        raise ConfigurationError(f"the files of {folder} are larger than {_MOST_BYTES // 1_000_000} MB")
    for path in files:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ConfigurationError(f"{path} leads out of its folder: copy the file instead")
        if path.suffix == ".typ":
            _check(path)
        target = root / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _check(path: Path) -> None:
    try:
        source = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"document template {path} is not UTF-8: {error}") from error
    for number, line in enumerate(source.splitlines(), start=1):
        if _PACKAGE.search(line.partition("//")[0]):
            raise ConfigurationError(
                f"document template {path}, line {number}, imports a package from a network: copy its files "
                "into the folder and import them by their path"
            )
