"""The page of kinds of items says what was measured, losing cases too."""

from pathlib import Path

from benchmarks.modalities.page import page, write_page
from benchmarks.report import Figure


def of_pool(pool: str, efficiency: float, peer: str) -> dict[str, Figure]:
    figures: dict[str, Figure] = {
        f"task_{pool}": "simclr",
        f"epochs_{pool}": 3,
        f"rho_supervised_{pool}": -0.125,
        f"supervised_accuracy_{pool}": 0.75,
        f"label_efficiency_{pool}_20": efficiency,
        f"label_efficiency_{pool}_50": 2 * efficiency,
        f"label_efficiency_{pool}_50_is_a_bound": ">",
        f"label_efficiency_{peer}_{pool}_20": 1.0,
    }
    for number, what in enumerate(("raw", "untrained", "trained")):
        figures[f"probe_{pool}_{what}"] = 0.5 + number / 10
    for of in (pool, f"{peer}_{pool}"):
        for end, value in (("", -1.0), ("_low", -2.5), ("_high", 0.5)):
            figures[f"aulc_minus_random_{of}{end}"] = value
    return figures


def lines_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_pool_is_a_line_in_each_table(tmp_path: Path) -> None:
    figures = of_pool("spoken_digits", 0.8, "margin") | of_pool("spoken_digits_by_speaker", 1.5, "typiclust")
    figures |= {
        "probe_spoken_digits_masked_spectrogram": 0.55,
        "probe_spoken_digits_masked_spectrogram_100": 0.4,
    }
    text = page(figures)
    trained, picked, other = lines_of(text, "| spoken digits |")
    assert trained.split("|")[3:6] == [" 50.0 ", " 60.0 ", " 70.0 "]
    assert trained.endswith("| -0.12 (75.0 %) |")
    assert picked == (
        "| spoken digits | 0.8 | >1.6 |  |  |  |  | 1.2 | -1.0 [-2.5, 0.5] | `margin` -1.0 [-2.5, 0.5] |"
    )
    assert other == "| spoken digits | `masked_spectrogram` | 55.0 | 40.0 |"
    assert len(lines_of(text, "| … of two speakers")) == 2
    write_page(figures, tmp_path)
    assert (tmp_path / "kinds-measured.md").read_text() == text
    assert (tmp_path / "kinds-measured.png").stat().st_size > 10_000


def test_pools_that_were_not_run_do_not_stand_there() -> None:
    assert "PROTEINS" not in page(of_pool("mutag", 1.0, "margin"))
