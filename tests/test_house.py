"""The house: which file may import which (read from the sources, lazy imports too), how long files are; links."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from commands import ROOT

ORDER = ("netspec", "sims", "analysis")  # each may import those before it
CODE = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for folder in ORDER
    for file in sorted((ROOT / folder).rglob("*.py"))
}
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Modules that a file imports anywhere: of this project's, the very file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{file} has relative imports"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in CODE else node.module for name in names)


IMPORTS = {module: set(imported(file)) for module, file in CODE.items()}
COMMANDS = {module for module, file in CODE.items() if 'if __name__ == "__main__"' in file.read_text()}


def test_arrows_point_one_way():
    for module, others in IMPORTS.items():
        above = ORDER[ORDER.index(module.split(".")[0]) + 1 :]
        assert not [other for other in others if other.split(".")[0] in above], module


def test_brian2_is_imported_in_one_folder_and_the_examples_alone():
    importing = {m for m, others in IMPORTS.items() if any(o.split(".")[0].startswith("brian2") for o in others)}
    assert importing and all(module.startswith(("sims.brian.", "sims.examples.")) for module in importing)
    assert not any(other.startswith("sims.examples") for others in IMPORTS.values() for other in others)


def test_nobody_imports_a_command():
    assert {"sims.run", "sims.evaluate", "netspec.train", "analysis.make_figures"} < COMMANDS
    assert {f"sims.{file.stem}" for file in (ROOT / "sims").glob("[!_]*.py")} <= COMMANDS
    importing = {module: others & COMMANDS for module, others in IMPORTS.items() if others & COMMANDS}
    assert importing == {"sims.run_vgg": {"sims.run"}, "sims.run_resnet": {"sims.run"}}


def test_no_files_import_each_other_in_a_circle():
    TopologicalSorter({module: others & set(CODE) for module, others in IMPORTS.items()}).prepare()


def test_no_folders_of_sims_import_each_other_in_a_circle():
    folders: dict[str, set[str]] = {}
    for module, others in IMPORTS.items():
        if module.startswith("sims.") and module.count(".") == 2:
            folders.setdefault(module.rpartition(".")[0], set()).update(other.rpartition(".")[0] for other in others)
    TopologicalSorter({folder: others & set(folders) - {folder} for folder, others in folders.items()}).prepare()


def test_files_are_short():
    templates = [file for part in ("templates", "include") for file in (ROOT / "sims/brian" / part).iterdir()]
    for most, files in ((400, [*CODE.values(), *templates]), (500, TESTS)):
        lines = {file.relative_to(ROOT): len(file.read_text().splitlines()) for file in files}
        assert not {file: n for file, n in lines.items() if n > most}


def test_links_between_documents_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_search_path_is_left_alone():
    notebooks = [file for folder in ORDER for file in (ROOT / folder).rglob("*.ipynb")]
    touching = [file for file in (*CODE.values(), *notebooks) if "sys.path" in file.read_text()]
    assert notebooks and touching == [CODE["netspec.importing.__main__"]]  # where a user's file finds what is beside it


def test_nothing_unpickles_or_evaluates_text():
    """What loads files cannot run code; see test_damaged_files.py, too."""
    for module, file in CODE.items():
        for node in ast.walk(ast.parse(file.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("eval", "exec", "compile", "pd.read_pickle", "yaml.load"), module
            keywords = {k.arg: k.value for k in getattr(node, "keywords", ())}
            weights_only = isinstance(only := keywords.get("weights_only"), ast.Constant) and only.value is True
            assert called != "torch.load" or weights_only, module
            allowed = [k.value for k in getattr(node, "keywords", ()) if k.arg == "allow_pickle"]
            assert all(isinstance(value, ast.Constant) and value.value is False for value in allowed), module
            assert called != "np.load" or allowed, module
        assert not {"pickle", "marshal", "shelve", "joblib", "dill"} & IMPORTS[module], module
