"""Where a sweep says that its numbers come from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestration.keep import provenance


def test_the_commit_is_that_of_this_code_and_of_no_repository_around_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "provenance.py"
    copy.touch()
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "of something else"], check=True)
    monkeypatch.setattr(provenance, "__file__", str(copy))
    assert provenance.commit() == {"commit": "unknown", "dirty": False}
    monkeypatch.setenv("MCIT_COMMIT", "abc123")  # as README has it for Ray jobs
    assert provenance.commit()["commit"] == "abc123"
    subprocess.run([*git, "add", "provenance.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "of this"], check=True)
    assert len(str(provenance.commit()["commit"])) == 40
    assert provenance.commit()["dirty"] is False
    copy.write_text("edited")
    assert provenance.commit()["dirty"] is True
