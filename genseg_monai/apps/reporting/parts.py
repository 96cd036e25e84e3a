"""The sections of a report, each made of numbers that were measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from genseg_monai.apps.reporting.charts import (
    alpha_chart,
    distance_chart,
    genotype_drawing,
    history_chart,
    interval_bar,
    pair_chart,
    reliability_chart,
)
from genseg_monai.apps.reporting.compare import Comparison
from genseg_monai.apps.reporting.look import CaseLook, SyntheticLook, Tested
from genseg_monai.apps.reporting.page import Cases, Chart, Estimate, Figures, Noted, Panel, Table, Text
from genseg_monai.apps.reporting.sources import CaseResult, Run, arm_style, arm_title
from genseg_monai.apps.reporting.svg import legend
from genseg_monai.metrics.statistics import Interval

__all__ = ["calibration", "cases", "curves", "generator", "results", "synthetic"]

_TITLES = {"dice": "Dice", "jaccard": "Jaccard", "hd95": "HD95", "surface_dice": "Surface Dice"}
_LOSSES = (("loss", "segmenter, real pairs", 0), ("synthetic_loss", "segmenter, synthetic pairs", 1),
           ("generator_loss", "generator", 3), ("discriminator_loss", "discriminator", 4))  # fmt: skip


def results(
    comparison: Comparison, arms: Mapping[str, Sequence[CaseResult]], *, ours: str = "genseg", note: bool = True
) -> list[Any]:
    """Return the table of all arms, and case against case for the arm that is judged.

    Args:
        comparison: of the arms.
        arms: scores of every case by arm.
        ours: the arm that is judged.
        note: whether to say how the table is made.
    """
    metrics = [m for m in _TITLES if any(m in one.intervals for one in comparison.arms)]
    ends = [one.intervals["dice"] for one in comparison.arms]
    scale = (min(e.low for e in ends), max(e.high for e in ends))
    reference = arm_title(comparison.reference)
    titles = [f"HD95 ({comparison.unit})" if m == "hd95" else _TITLES[m] for m in metrics]
    head = ["arm", "", *titles, f"Dice, less {reference.lower()}", "p, after Holm"]
    rows = []
    for one in comparison.arms:
        dice = one.intervals["dice"]
        cells = [_interval(one.intervals[m], 1 if m == "hd95" else 3) if m in one.intervals else "-" for m in metrics]
        test = one.test
        last: list[Any] = ["", ""]
        if test is not None:
            told = f"{test.wins} better, {test.losses} worse"
            last = [_interval(test.difference, 3, signed=True), Noted(_p(one.p), told)]
        bar = interval_bar(dice.mean, dice.low, dice.high, scale, arm_style(one.arm))
        rows.append([arm_title(one.arm), bar, *cells, *last])
    strong = [i for i, one in enumerate(comparison.arms) if one.arm == ours]
    caption = (
        f"{comparison.name}: {_counted(comparison)}, at their own size; "
        f"{comparison.size} training cases. Mean [95 % bootstrap interval over patients]; "
        f"the bars run from {scale[0]:.2f} to {scale[1]:.2f}."
    )
    blocks: list[Any] = [Table(head, rows, caption, strong=strong)]
    pairs = _pairs(arms.get(ours, ()), arms.get(comparison.reference, ()))
    if pairs and ours != comparison.reference:
        names = (arm_title(ours), reference)
        about = f"Each dot is a held-out case. Above the dotted line {names[0]} did better than {names[1].lower()}."
        blocks.append(Figures([Chart(pair_chart(*zip(*pairs, strict=True), names=names), about)]))  # type: ignore[misc]
    told = (
        f"p: two-sided Wilcoxon signed-rank test on Dice, paired by patient, against {reference.lower()}, corrected "
        "after Holm for all arms in the table. HD95: 95th percentile of the distance between the outlines, lower is "
        "better."
    )
    if note:
        blocks.append(Text(told, small=True))
    return blocks


def _counted(comparison: Comparison) -> str:
    """Return how many cases there are, and of whom."""
    told = f"{comparison.cases} case{'s' if comparison.cases > 1 else ''}"
    if comparison.groups == comparison.cases:
        return f"{told}, each counted as a patient of its own"
    return f"{told} of {comparison.groups} patient{'s' if comparison.groups > 1 else ''}"


def cases(looks: Sequence[CaseLook], ours: str = "genseg") -> list[Any]:
    """Return the best, the median and the worst case of an arm."""
    if not looks:
        return []
    shown = [
        {
            "rank": one.rank.capitalize(),
            "name": one.case,
            "dice": f"{one.dice.get(ours, float('nan')):.3f}",
            "others": ", ".join(f"{arm_title(a)} {d:.3f}" for a, d in one.dice.items() if a != ours),
            "image": one.image,
            "overlay": one.overlay,
        }
        for one in looks
    ]
    return [Cases(shown)]


def synthetic(look: SyntheticLook | None) -> list[Any]:
    """Return the panel, and what the images are worth."""
    if look is None:
        return []
    mean = statistics.fmean
    blocks: list[Any] = [
        Panel(["real", "its mask", "synthetic", "mask moved and bent", "synthetic of that"], look.panel)
    ]
    rows = [[kind, f"{mean(values):.3f}", f"{min(values):.3f}", str(len(values))] for kind, values in
            look.obeyed.items()]  # fmt: skip
    rows.append(["real held-out images", f"{mean(look.real):.3f}", f"{min(look.real):.3f}", str(len(look.real))])
    about = (
        f"Do the images obey their masks? The segmenter of the arm {look.judge.lower()} looks at each synthetic image; "
        "Dice of what it sees against the mask the image was made from. The last row is what it can do on real images."
    )
    blocks.append(Table(["images made from", "mean Dice", "lowest", "images"], rows, about))
    if look.copies:
        about = (
            "Do they repeat training images? First the distance to the nearest training image, over the same distance "
            "among training images of different patients: near 0 they are copies; smooth images are below 1 too. Then "
            "how often the nearest real image is a training image and not a held-out one: copies push it far above "
            "chance. Images made from a training mask may come close to its own image: they were trained to."
        )
        if look.scenes:
            about += " These images are real ones but for the objects drawn into them: they are copies by design."
        rows = [
            [kind, f"{m.ratio:.2f}", f"{m.closer:.0%}", f"{look.trained[kind]:.0%} ({look.chance:.0%})"]
            for kind, m in look.copies.items()
        ]
        head = [
            "images made from",
            "distance, ratio",
            "closer than any two patients",
            "nearest was trained on (chance)",
        ]
        blocks.append(Table(head, rows, about))
        moved = list(look.copies.values())[-1]
        dots = [("training images", moved.real, 2)]
        dots += [(kind, m.nearest, style) for style, (kind, m) in enumerate(look.copies.items())]
        about = (
            "One dot an image. Distances see copies, not a patient's features in another pose: this is no proof of "
            "anonymity."
        )
        blocks.append(Figures([Chart(distance_chart(dots), about)]))
    if look.apart:
        about = (
            "Do they look like images that nobody has shown the generator? Squared kernel distance (standard error) "
            "from the held-out ones, in brightness and detail of each part: about 0 for more images of the same kind. "
            "Blur and checkerboards raise it."
        )
        blocks.append(
            Table(["images", "distance (error)"], [[kind, str(one)] for kind, one in look.apart.items()], about)
        )
    spread = look.spread
    ratio = spread["synthetic"] / spread["real"] if spread["real"] else float("nan")
    alone = "one mask always gives one image" if spread["one mask"] == 0 else f"{spread['one mask']:.3f} from one mask"
    blocks.append(Text(
        f"Diversity, the mean distance between two images: {spread['synthetic']:.3f} of synthetic ones from different "
        f"masks, {spread['real']:.3f} of real ones (ratio {ratio:.2f}); {alone}."
    ))  # fmt: skip
    return blocks


def curves(run: Run) -> list[Any]:
    """Return losses and validation Dice over the run."""
    if not run.history:
        return []
    used = [(c, n, s) for c, n, s in _LOSSES if any(row.get(c) for row in run.history)]
    charts = [Chart(history_chart(run.history, used, "loss"), "Losses, mean of each epoch; the phases of the run are "
                    "shaded.", legend([(n, s) for _, n, s in used]))]  # fmt: skip
    if any(row.get("validation") for row in run.history):
        about = "Dice of GenSeg's segmenter on the validation cases, at the working size."
        charts.append(Chart(history_chart(run.history, [("validation", "GenSeg", 0)], "validation Dice"), about))
    return [Figures(charts)]


def generator(run: Run) -> list[Any]:
    """Return the architecture found, and how the search went."""
    blocks: list[Any] = []
    if run.genotype is not None:
        last = {k: float(v) for k, v in (run.alpha[-1] if run.alpha else {}).items() if ":" in k and v}
        about = "The candidate kept in each cell (its kernel size) and its share of the mixture when the search ended; "
        about += "an even share is one divided by the number of candidates."
        blocks.append(Figures([Chart(genotype_drawing(run.genotype, last), about)]))
    if len(run.alpha) > 1:
        svg, names = alpha_chart(run.alpha)
        about = "Shares of the candidates, softmax(alpha), over the iterations of the search, one small chart a cell."
        blocks.append(Figures([Chart(svg, about, legend([(n.replace("_", " "), s) for n, s in names]))]))
    return blocks


def calibration(run: Run, tested: Tested | None) -> list[Any]:
    """Return reliability curves and scores before and after the temperature."""
    fitted = run.temperature
    rows, charts = [], []
    sources = []
    if fitted:
        sources.append((f"validation ({fitted['cases']} cases, temperature fitted here)", fitted["before"],
                        fitted["after"]))  # fmt: skip
    if tested is not None:
        sources.append((f"held-out ({tested.cases} cases)", tested.before.as_dict(), tested.after.as_dict()))
    for name, before, after in sources:
        for kind, told in (("as trained", before), ("with temperature", after)):
            rows.append([f"{name}, {kind}", *(f"{told[m]:.4f}" for m in ("ece", "brier", "nll"))])
        drawn = [("as trained", before["foreground"], 1), ("with temperature", after["foreground"], 0)]
        about = f"Reliability on {name}: on the dotted line a probability means what it says."
        charts.append(Chart(reliability_chart(drawn), about, legend([("as trained", 1), ("with temperature", 0)])))
    if not rows:
        return []
    head = ["voxels at the working size", "ECE", "Brier", "log loss"]
    if fitted:
        t = float(fitted["temperature"])
        lean = "too sure of itself" if t > 1.02 else "not sure enough" if t < 0.98 else "about right"
        told = (
            f"Temperature {t:.2f}: the model was {lean}. It is stored with the model and applied wherever predict "
            "gives probabilities; masks do not change."
        )
    else:
        told = "No temperature: the training had no validation cases to fit it on."
    note = "ECE: expected calibration error of the most probable class, 15 bins. Most voxels are plain background, "
    note += "which keeps all three numbers small: compare rows, not with an absolute bar."
    return [Text(told), Table(head, rows), Figures(charts), Text(note, small=True)]


def _pairs(ours: Sequence[CaseResult], theirs: Sequence[CaseResult]) -> list[tuple[float, float]]:
    other = {case.case: case.scores["dice"] for case in theirs}
    return [(case.scores["dice"], other[case.case]) for case in ours if case.case in other]


def _interval(value: Interval, digits: int, *, signed: bool = False) -> Estimate:
    return Estimate(value.mean, value.low, value.high, digits, signed)


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
