"""What holds for the tree as a whole: packaging that shadows nobody, a light command line, a README that tells the truth."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ("slm", "tokenizers", "vocoders", "recipes")
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".jsonl", ".yml", ".yaml", ".cfg", ".css", ".js", ".html", ""}


@cache
def files() -> list[Path]:
    """Every file that is, or would be, in the repository."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def python_files(*folders: str) -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def run(code: str) -> str:
    """What `code` prints when Python runs it with the repository's root in front of sys.path."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("folder", ["tokenizers", "vocoders", "recipes", "tests"])
def test_a_plain_folder_is_no_package(folder):
    assert not (ROOT / folder / "__init__.py").exists()


def test_recipes_are_files_and_not_a_package():
    assert not [path for path in python_files("recipes") if path.name == "__init__.py"]


def test_at_the_root_tokenizers_is_still_hugging_faces():
    assert run("import tokenizers; print(tokenizers.Tokenizer.__module__)").strip() == "tokenizers"


def test_only_the_short_import_names_are_written():
    long = re.compile(r"\b(tokenizers\.slm_tokenizers|vocoders\.slm_vocoders|(from|import) recipes)\b")
    others = [path for path in files() if path.suffix in TEXT and path != Path(__file__)]
    assert [path.name for path in others if long.search(path.read_text("utf-8"))] == []


def test_help_needs_no_heavy_import_and_under_a_second_of_processor():
    heavy = ["torch", "numpy", "transformers", "torchaudio", "lhotse", "gradio", "matplotlib", "accelerate"]
    program = (
        "import json, sys, time; sys.argv = ['slm', '--help']\n"
        "from slm.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        f"heavy = [name for name in {heavy} if name in sys.modules]\n"
        "print(json.dumps([code or 0, heavy, time.process_time()]))"
    )
    code, imported, seconds = json.loads(run(program).splitlines()[-1])
    assert code == 0 and imported == []
    assert seconds < 1.0


def tree() -> dict[str, str]:
    """path -> meaning, of the map in CONTRIBUTING.md: two spaces of indent a level, folders end in a slash."""
    block = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## The tree", 1)[1].split("```")[1]
    meanings, folders = {}, []
    for line in block.splitlines():
        if match := re.match(r"( *)(\S+)\s+(\S.*)", line):
            depth = len(match[1]) // 2
            path = "".join(folders[:depth]) + match[2]
            meanings[path] = match[3]
            if path.endswith("/"):
                folders = [*folders[:depth], match[2]]
    return meanings


def test_the_map_lists_only_what_exists():
    assert len(tree()) > 20
    assert [path for path in tree() if not (ROOT / path).exists()] == []
    assert [path for path in tree() if path.endswith("/") != (ROOT / path).is_dir()] == []


def test_every_source_file_has_a_line_in_the_map():
    source = {str(path.relative_to(ROOT)) for path in python_files(*CODE) if path.name != "__init__.py"}
    assert sorted(source - tree().keys()) == []


def test_every_link_in_a_page_leads_somewhere():
    broken = []
    for page in (path for path in files() if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            if not re.match(r"[a-z]+:|#", target) and not (page.parent / target.split("#")[0]).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_no_file_names_a_machines_folder_or_a_package_registry():
    folders = r"(?<![\w.~$}/-])/(?:work|root|home/\w+|Users/\w+)/\w"
    hosts = "|".join(rf"\b{name}\.org" for name in ("pypi", "pythonhosted", "npmjs", "download.pytorch"))
    private = re.compile(f"{folders}|{hosts}")
    found = []
    for path in files():
        if path.suffix in TEXT and path.name != "LICENSE":
            found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in private.finditer(path.read_text("utf-8"))]
    assert found == []


def test_files_are_small_enough_to_read():
    """A smell and no law: a page of straight mathematics may be longer than most, but not this long."""
    long = {path.name: n for path in python_files(*CODE) if (n := len(path.read_text("utf-8").splitlines())) > 450}
    assert long == {}


def test_nothing_large_is_kept():
    models = ROOT / "slm" / "models"
    assert sum(path.stat().st_size for path in files() if path.is_relative_to(models)) <= 40 * 2**20
    assert [path.name for path in files() if not path.is_relative_to(models) and path.stat().st_size > 2**20] == []


def test_the_constraints_are_plain_versions_and_torch_goes_with_torchaudio():
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    pinned = dict(line.split("==") for line in lines)
    assert pinned["torch"] == pinned["torchaudio"]


def test_every_direct_dependency_is_constrained():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-") for line in asked}
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()}
    assert sorted(names - pinned) == []
