"""Check that DVC tracks the images of a folder."""

import os
from pathlib import Path

from dvc.exceptions import NotDvcRepoError
from dvc.fs import localfs
from dvc.ignore import DvcIgnoreFilter
from dvc.repo import Repo

from ddpm.images.folders import Folder
from exact_stages.console import UserError, shown


def check_tracked(root: Path, folder: Folder) -> None:
    """Check that no .dvcignore hides an image of the folder at `root` from DVC; outside of its repositories none does.

    Raises:
        UserError: DVC would neither notice a change of an image, nor share it.
    """
    try:
        dvcignore = DvcIgnoreFilter(localfs, Repo.find_root())
    except NotDvcRepoError:
        return
    tracked = {*dvcignore.find(localfs, str(root))}  # without the .. of data/../data
    if hidden := [str(file) for file in folder.files if os.path.normpath(file) not in tracked]:
        more = f" and {len(hidden) - 1} more images" if hidden[1:] else ""
        raise UserError(f"{shown(hidden[0])}{more}: ignored by a .dvcignore; rename them, or change its patterns")
