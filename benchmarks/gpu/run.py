"""Run the sections in order while time is left. A failed section does not stop the others."""

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.gpu import beside, speed
from benchmarks.gpu.report import Report
from benchmarks.gpu.setting import TINY, Setting

Section = Callable[[speed.Bench], None]
# In order, with the seconds that each may need on an H100.
SECTIONS: dict[str, tuple[Section, float]] = {
    "ceilings": (beside.ceilings, 5),
    "step": (speed.step, 40),
    "largest": (speed.largest, 60),
    "cached": (speed.cached, 25),
    "reconstruction": (speed.reconstruction, 15),
    "precision": (beside.precision, 25),
    "compiled": (speed.compiled, 130),
    "loader": (beside.loader, 40),
    "fbank": (beside.fbank, 15),
    "ranking": (beside.ranking, 20),
    "long_captions": (speed.long_captions, 15),
    "resident": (speed.resident, 10),
    "fused": (beside.fused, 40),
    "compiled_1d": (speed.compiled_1d, 60),
}


def main(
    out: Annotated[Path | None, typer.Option(help="file for the same JSON, indented")] = None,
    minutes: Annotated[float, typer.Option(help="time after which nothing is begun")] = 7,
    sections: Annotated[str, typer.Option(help="names, comma-separated; all if empty")] = "",
    tiny: Annotated[bool, typer.Option(help="small sizes, as tests need them")] = False,
) -> None:
    """Measure training and what goes with it on this machine's GPU."""
    asked = sections.split(",") if sections else list(SECTIONS)
    if unknown := set(asked) - set(SECTIONS):
        raise typer.BadParameter(f"{', '.join(unknown)}: known are {', '.join(SECTIONS)}")
    torch.manual_seed(0)
    setting = TINY if tiny else Setting()
    report = Report(setting, out)
    bench = speed.Bench(setting, report)
    for name, (section, needed) in SECTIONS.items():
        if name not in asked:
            continue
        if report.elapsed + (0 if tiny else needed) > 60 * minutes:
            report.skipped.append(name)
            report.say(f"{name}: skipped")
        else:
            _run(name, section, bench)
        report.write()
    print(json.dumps(report.whole()))


def _run(name: str, section: Section, bench: speed.Bench) -> None:
    report, start = bench.report, bench.report.elapsed
    try:
        section(bench)
    except Exception as error:
        report.errors[name] = f"{type(error).__name__}: {error}"[:500]
        traceback.print_exc(limit=-6)
    report.seconds[name] = report.elapsed - start
    report.say(f"{name}: {'failed' if name in report.errors else 'done'}")
