"""`python -m onnxpress.models NAME [--out PATH]`: fetch a model; without a name, list them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from onnxpress.models.fetch import whole_file
from onnxpress.models.zoo import ZOO, describe, path
from onnxpress.rewriter.errors import InputError

app = typer.Typer(add_completion=False)


@app.command()
def main(
    name: Annotated[str | None, typer.Argument(help="model to fetch; without it, all are listed")] = None,
    out: Annotated[Path | None, typer.Option(help="copy the model to this file")] = None,
) -> None:
    """Fetch or build a model and print its path."""
    if name is None:
        for known in ZOO:
            print(f"{known:10}  {describe(known)}")
        return
    try:
        found = path(name)
    except InputError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    print(_copied(found, out) if out else found)


def _copied(found: Path, out: Path) -> Path:
    with whole_file(out) as part:
        shutil.copyfile(found, part)
    return out


if __name__ == "__main__":
    app(prog_name="python -m onnxpress.models")
