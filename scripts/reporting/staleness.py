"""Find the stages of a run that are not up to date: their params, code or inputs differ from dvc.lock."""

from functools import cache

from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc_data.hashfile.hash import hash_file
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree


def pipeline(repo: Repo) -> dict[str, PipelineStage]:
    """Return the stages of dvc.yaml by name, with their entries in dvc.lock.

    The files *.dvc are left out, and `check`, whose output never changes.
    """
    stages = [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]
    return {stage.name: stage for stage in stages if stage.name != "check"}


def stale(repo: Repo) -> dict[str, str]:
    """Return the stages with outdated outputs by name, each with the first cause found: a param, code or an input.

    A stage is also stale if it reads from a stale one, or if its metrics were edited. Absent files are not stale: the
    hashes that DVC recorded stand in for them. So a fresh clone is as good as the original.

    Args:
        repo: the workspace, or a revision.
    """
    stages = pipeline(repo)
    makers = {out.fs_path: (stage, out) for stage in repo.index.stages for out in stage.outs}

    @cache
    def on_disk(path: str) -> HashInfo | None:
        return hashed(repo, path) if repo.fs.exists(path) else None

    def changed(dep: Output) -> bool:
        maker, out = makers.get(dep.fs_path, (None, dep))
        if isinstance(maker, PipelineStage) and maker.name in stages:
            return bool(cause(maker.name)) or out.hash_info != dep.hash_info
        return (on_disk(dep.fs_path) or out.hash_info) != dep.hash_info

    def edited(out: Output) -> bool:
        return not out.use_cache and (on_disk(out.fs_path) or out.hash_info) != out.hash_info

    @cache
    def cause(name: str) -> str:
        stage = stages[name]
        if not any(each.hash_info for each in [*stage.deps, *stage.outs]):
            return "has not run"
        for params in stage.params:
            for keys in params.workspace_status().values():
                return "params.yaml" if isinstance(keys, str) else next(iter(keys))
        found = [dep.def_path for dep in stage.deps if dep not in stage.params and changed(dep)]
        found += [out.def_path for out in stage.outs if edited(out)]
        return found[0] if found else "cmd" if stage.cmd_changed else ""

    return {name: found for name in stages if (found := cause(name))}


def hashed(repo: Repo, path: str) -> HashInfo:
    """Return the hash of a file or folder as in dvc.lock, which ignores what .dvcignore names.

    For a revision, DVC's own function would not ignore it.
    """
    if not repo.fs.isdir(path):
        return hash_file(path, repo.fs, "md5", repo.state)[1]
    tree = Tree()
    for folder, inner, names in repo.fs.walk(path):
        for name in repo.dvcignore(folder, inner, names)[1]:
            file = repo.fs.join(folder, name)
            tree.add(repo.fs.relparts(file, path), None, hash_file(file, repo.fs, "md5", repo.state)[1])
    tree.digest()
    return tree.hash_info
