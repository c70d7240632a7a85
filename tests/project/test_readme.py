"""The README's code runs, and its two commands are the ones that continuous integration runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^python -m pip install (.*)$", README, re.MULTILINE)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, capsys):
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {"__name__": "readme"})
    assert "nan" not in capsys.readouterr().out.lower()


def test_readme_has_the_blocks_that_are_tested():
    assert len(BLOCKS) == 5
    assert len(COMMANDS) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_continuous_integration_runs_the_command(command):
    script = re.sub(r" -q\b", "", (ROOT / ".ci" / "run").read_text())
    assert command in script
