"""Where the token comes from, and that programs started later do not inherit it. Against a real Envoy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TOKEN
from envoy_process import EnvoyProcess

from pixell_envoy import EnvoyManager, InvalidArgument, RouteApiClient, Unauthorized

VARIABLE, FILE = "PIXELL_ADMIN_TOKEN", "PIXELL_ADMIN_TOKEN_FILE"


def inherited() -> str:
    """What an agent finds in its environment, started as PAR starts it."""
    program = f"import os; print(os.environ.get({VARIABLE!r}))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


async def is_accepted(client: RouteApiClient) -> bool:
    async with client:
        try:
            await client.status()
        except Unauthorized:
            return False
        return True


async def test_a_manager_hides_the_variable_before_its_first_call(
    guarded_envoy: EnvoyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert inherited() == TOKEN
    manager = EnvoyManager(guarded_envoy.url)
    assert inherited() == "None"
    assert await manager.register_agent("a", 50054) is True
    await manager.close()
    # Later clients in this process still get it, however they are made.
    assert await is_accepted(RouteApiClient(guarded_envoy.url))
    again = EnvoyManager(guarded_envoy.url)
    assert await again.register_agent("a", 50054) is True
    await again.close()


async def test_a_client_hides_the_variable_unless_told_not_to(
    guarded_envoy: EnvoyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert await is_accepted(RouteApiClient(guarded_envoy.url, hide_token=False))
    manager = EnvoyManager(guarded_envoy.url, hide_token=False)
    assert await manager.register_agent("a", 50054) is True
    await manager.close()
    assert inherited() == TOKEN
    # A token of its own is not read from there, so nothing is hidden.
    assert not await is_accepted(RouteApiClient(guarded_envoy.url, token="another"))
    assert inherited() == TOKEN
    assert await is_accepted(RouteApiClient(guarded_envoy.url))
    assert inherited() == "None"


async def test_a_variable_that_is_set_later_is_read(
    guarded_envoy: EnvoyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "an-old-one")
    assert not await is_accepted(RouteApiClient(guarded_envoy.url))
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert await is_accepted(RouteApiClient(guarded_envoy.url))
    monkeypatch.setenv(VARIABLE, "")
    assert not await is_accepted(RouteApiClient(guarded_envoy.url))


@pytest.mark.parametrize("end", ["", "\n"])
async def test_a_file_may_be_gone_once_it_was_read(
    guarded_envoy: EnvoyProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    place = tmp_path / "admin-token"
    place.write_text(TOKEN + end)
    monkeypatch.setenv(FILE, str(place))
    manager = EnvoyManager(guarded_envoy.url)
    place.unlink()
    assert await manager.register_agent("a", 50054) is True
    await manager.close()
    assert await is_accepted(RouteApiClient(guarded_envoy.url))
    # A file that was written later is read.
    place.write_text("another")
    assert not await is_accepted(RouteApiClient(guarded_envoy.url))


async def test_a_file_that_comes_late_is_read_at_the_first_call(
    guarded_envoy: EnvoyProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "admin-token"
    monkeypatch.setenv(FILE, str(place))
    manager = EnvoyManager(guarded_envoy.url)
    assert await manager.register_agent("a", 50054) is False
    assert FILE in caplog.text and str(place) in caplog.text
    place.write_text(TOKEN)
    assert await manager.register_agent("a", 50054) is True
    await manager.close()


def test_variable_and_file_together_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setenv(FILE, str(tmp_path / "admin-token"))
    with pytest.raises(InvalidArgument, match="both"):
        RouteApiClient()
    # An empty name counts as not set.
    monkeypatch.setenv(FILE, "")
    RouteApiClient()
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("content", [b"two words", "geheimes-Wört".encode(), b"geheim\xff", b"a\nb"])
def test_the_error_about_a_bad_file_does_not_show_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    place = tmp_path / "admin-token"
    place.write_bytes(content)
    monkeypatch.setenv(FILE, str(place))
    with pytest.raises(InvalidArgument, match=FILE) as raised:
        RouteApiClient()
    assert "geheim" not in str(raised.value) and raised.value.__cause__ is None
