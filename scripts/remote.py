"""Make URL, a variable of the environment, the default DVC remote, or leave the configuration as it is.

`dvc remote add` empties its configuration when it is given what it cannot write, and writes some of what it cannot
read. Run this as `make remote`.
"""

import os
import re
import shutil

from dvc.config import Config

from ddpm.pipeline.console import UserError, run
from ddpm.pipeline.files import write_whole
from scripts.dvc_state import CONFIG, LOCAL, config_faults, one_line

NAME = "storage"
SCHEMES = ("s3", "ssh", "webdav", "webdavs")  # of which the environment has the clients
TRIAL = CONFIG.with_name("config.trial")  # beside the true one: DVC keeps folders relative to it


def main() -> None:
    """Let DVC write to a copy and read that; if it reads what was typed, the copy becomes the configuration."""
    url = os.environ.get("URL", "")
    if not url:
        raise UserError("URL: missing; say make remote URL=s3://bucket/path, ssh://host/path or /a/folder")
    if not re.fullmatch("[ -~]+", url):
        raise UserError("URL: has a character that DVC cannot write, which are all but ASCII's printable ones")
    scheme, separator, rest = url.partition("://")
    if separator and (scheme not in SCHEMES or not rest.strip("/")):
        raise UserError(f"URL: give a folder, or one of {', '.join(f'{each}://...' for each in SCHEMES)}")
    if separator and ":" in rest.partition("@")[0] and "@" in rest.partition("/")[0]:
        raise UserError("URL: has a password, which git would keep; see dvc remote modify --local storage password")
    if not separator and (re.match(r"\w+:", url) or os.path.isfile(os.path.expanduser(url))):
        raise UserError(f"URL: {url} is no folder; give its path, or {', '.join(f'{each}://...' for each in SCHEMES)}")
    for fault in config_faults():
        raise UserError(fault)
    try:
        shutil.copyfile(CONFIG, TRIAL)
        kept = written(url)
        write_whole(CONFIG, TRIAL.read_bytes())
    finally:
        TRIAL.unlink(missing_ok=True)
    print(f"the default remote is {NAME}, {kept}; commit {CONFIG}, so that others can pull")


def written(url: str) -> str:
    """Write `url` to the copy, and return what DVC takes it for: of a folder, the absolute path.

    Raises:
        UserError: DVC refuses it or would read something else, or the user's own settings overrule it.
    """
    config = Config(".dvc", validate=False)
    config.files["repo"] = str(TRIAL.absolute())
    own = config.read("local")
    try:
        with config.edit("repo") as settings:
            settings["remote"][NAME] = {"url": url, "verify": "true"}
            settings["core"]["remote"] = NAME
        kept = str(config.read("repo")["remote"][NAME]["url"])
    except OSError:
        raise
    except UnicodeError:  # the URL is ASCII
        raise UserError(f"{CONFIG}: has a value that is not ASCII, which DVC cannot write; change it first") from None
    except Exception as error:  # of DVC, or of ConfigObj, which it lets through
        hint = f"; {LOCAL} has settings of {NAME}, which may be for another kind of remote" if own["remote"] else ""
        raise UserError(f"URL: DVC refuses it: {one_line(error)}{hint}") from None
    if resolved(kept) != resolved(url):
        raise UserError("URL: DVC would read something else than was typed; use another")
    if own["core"].get("remote", NAME) != NAME or "url" in own["remote"].get(NAME, {}):
        raise UserError(f"{LOCAL}: has another default remote, or another url of {NAME}; delete that there")
    return kept


def resolved(url: str) -> str:
    """A URL as it is; a folder as an absolute path, in which ~ is the user's home."""
    return url if re.match(r"\w+://", url) else os.path.abspath(os.path.expanduser(url))


if __name__ == "__main__":
    run(main)
