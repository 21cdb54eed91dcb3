"""How a step grows with batch, regions and words, for the kit, the loop of the release and the floor.

The loop is timed where it takes seconds, not minutes. `python benchmarks/growth.py`
"""

import json

import matplotlib.pyplot as plt
from measuring import LOOK, arguments, peak_beyond_now, peak_memory, report, style, take_turns
from step import calls, inputs

GROWTH = {
    "batch": ({"batch": n} for n in (16, 32, 64, 128, 256)),
    "regions": ({"batch": 64, "regions": n} for n in (9, 18, 36, 72)),
    "words": ({"batch": 64, "words": (n, n)} for n in (6, 12, 24, 48)),
}
LOOP_TO = {"batch": 32, "regions": 0, "words": 0}


def main() -> None:
    if (peak := arguments(__doc__).peak) is not None:
        direction, options = peak[0], json.loads(peak[1])
        print(peak_beyond_now(calls(direction, inputs(**options))["kit"]))
        return
    rows, found = [], {}
    for what, settings in GROWTH.items():
        found[what] = {}
        for options in settings:
            size = options[what] if what != "words" else options["words"][0]
            batch = inputs(**options)
            found[what][size] = {}
            for direction in ("i2t", "t2i"):
                measured = calls(direction, batch)
                names = ("floor", "kit", "loop") if size <= LOOP_TO[what] else ("floor", "kit")
                seconds = take_turns({name: measured[name] for name in names}, rounds=1 if "loop" in names else 2)
                peak = peak_memory(direction, json.dumps(options)) if what == "batch" else None
                found[what][size][direction] = {**seconds, **({"peak_bytes": peak} if peak else {})}
                rows.append({
                    "what grows": f"{what}: {size}",
                    "direction": direction,
                    "kit, seconds": f"{seconds['kit']:.3f}",
                    "kit / floor": f"{seconds['kit'] / seconds['floor']:.2f}",
                    "loop / kit": f"{seconds['loop'] / seconds['kit']:.1f}" if "loop" in seconds else "–",
                    "kit's peak memory, MB": f"{peak / 1e6:.0f}" if peak else "–",
                })  # fmt: skip
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True)
        for axis, (what, sizes) in zip(axes, found.items(), strict=True):
            for direction, linestyle in (("i2t", "-"), ("t2i", "--")):
                for name in ("loop", "kit", "floor"):
                    points = {n: by[direction][name] for n, by in sizes.items() if name in by[direction]}
                    look = {**LOOK[name], "linestyle": linestyle}
                    axis.plot(
                        *zip(*points.items(), strict=True) if points else ([], []), label=f"{name}, {direction}", **look
                    )
            axis.set(xscale="log", yscale="log", xlabel=what)
            axis.set_xscale("log", base=2)
        axes[0].set_ylabel("seconds of a step")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    report(
        "growth",
        "How a step grows; regions and words with batches of 64",
        rows,
        figure,
        "Seconds of a step against batch, regions and words, all logarithmic: kit and floor rise side by side.",
        "Kit and floor grow with the batch squared, and with regions and words alike. What is above the floor: Gram "
        "matrices, which grow with the square of what is attended to, and blocks that small batches make too short.",
        seconds=found,
    )  # fmt: skip


if __name__ == "__main__":
    main()
