"""Torch stays in the model rooms: what receives, stores and sends starts without it."""

import subprocess
import sys

import pytest

TORCH_FREE = (
    "ai.exam",
    "ai.findings",
    "ai.pixels",
    "ai.breast",
    "ai.models",
    "storage.files",
    "storage.database",
    "storage.jobs",
    "storage.outbox",
    "node.scp",
    "node.service",
    "node.cli",
)


@pytest.fixture(scope="module")
def heavy_imports() -> dict[str, str]:
    """Return what each module has pulled in, told by one fresh interpreter that imports them in turn."""
    program = (
        "import importlib, sys\n"
        f"for name in {TORCH_FREE}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'torchvision', 'segmentation_models_pytorch', 'timm'} & sys.modules.keys()\n"
        "    print(name, ','.join(sorted(heavy)), sep=':')\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return dict(line.split(":") for line in told.splitlines())


@pytest.mark.parametrize("module", TORCH_FREE)
def test_it_imports_without_torch(module: str, heavy_imports: dict[str, str]) -> None:
    assert heavy_imports[module] == ""
