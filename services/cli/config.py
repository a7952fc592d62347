"""``edgeseq config``: the settings in force."""

from __future__ import annotations

from cyclopts import App

from .options import OPERATE, Common
from .output import emit, say

app = App(name="config", help="Settings.", group=OPERATE)


@app.command
def show(*, common: Common = Common()) -> None:  # noqa: B008 - frozen
    """Print all settings; passwords are hidden."""
    settings = common.settings().redacted()
    if common.as_json:
        emit(settings)
        return
    for section, values in settings.items():
        say((f"[{section}]", "bold"))
        for name, value in values.items():
            if value is None:
                say((f"# {name} is not set", "dim"))
            else:
                shown = str(value).lower() if isinstance(value, bool) else value
                quoted = f'"{shown}"' if isinstance(value, str) else f"{shown}"
                say(f"{name} = {quoted}")
