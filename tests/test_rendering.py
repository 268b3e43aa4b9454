from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled

from reptile_env.rendering import Frame, Renderer
from tests.helpers import make, run_python

FRAME = Frame(
    task="a-task",
    metric_name="accuracy",
    names=("stem", "body.0", "body.1"),
    sizes=(16, 128, 8),
    widths=(8, 128, 1),
    current=1,
    metric=0.9,
    dense_metric=0.95,
    cost_name="macs",
    relative_cost=0.625,
    budget=None,
    total=0.75,
    history=((1.0, 1.0), (0.98, 0.8), (0.95, 0.625)),
)


def image(**changes: Any) -> np.ndarray:
    return np.asarray(Renderer("rgb_array").render(dataclasses.replace(FRAME, **changes), 4))


def colours(picture: np.ndarray) -> dict[tuple[int, ...], int]:
    found, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    return dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True))


BLUE, ORANGE, VERMILION = (0, 114, 178), (230, 159, 0), (213, 94, 0)


def test_text_shows_every_group_and_the_numbers() -> None:
    assert Renderer("ansi").render(FRAME, 4).splitlines() == [
        "a-task | accuracy 0.9 (dense 0.95) | macs 0.625 | return 0.750",
        "  stem   [############............]   8/16",
        "> body.0 [########################] 128/128",
        "  body.1 [###.....................]   1/8",
    ]


def test_bits_and_ranks_are_shown_where_they_are_decided_on() -> None:
    joint = dataclasses.replace(FRAME, bits=(32, 4, 8), ranks=(1.0, 0.5, 0.25))
    assert [line.split("] ")[1].strip() for line in Renderer("ansi").render(joint, 4).splitlines()[1:]] == [
        "8/16, 32 bits, rank 1",
        "128/128, 4 bits, rank 0.5",
        "1/8, 8 bits, rank 0.25",
    ]
    assert image(bits=(32, 4, 8)).shape == image().shape
    assert not np.array_equal(image(bits=(32, 4, 8)), image(bits=(32, 4, 2)))
    env = make("digits-mlp", id="ReptileCompress-v0", evaluator="live", measure="round", render_mode="ansi")
    env.reset(seed=0)
    env.step(env.action_for(0.5, 4, 0.5))
    assert ", 4 bits, rank 0.5" in env.render().splitlines()[1]
    plain = make("digits-mlp", render_mode="ansi")
    plain.reset(seed=0)
    assert "bits" not in plain.render()


def test_text_shows_the_cap_and_the_end() -> None:
    text = Renderer("ansi").render(dataclasses.replace(FRAME, budget=0.5, current=None), 4)
    assert "macs 0.625 (cap 0.5)" in text
    assert ">" not in text


def test_a_bar_is_full_only_where_nothing_is_gone() -> None:
    text = Renderer("ansi").render(dataclasses.replace(FRAME, sizes=(1000,) * 3, widths=(999, 1000, 1)), 4)
    assert [line.count("#") for line in text.splitlines()[1:]] == [23, 24, 1]


def test_the_image_shows_what_is_kept() -> None:
    whole, cut = (colours(image(current=None, widths=widths)) for widths in ((16, 128, 8), (8, 128, 8)))
    assert 0.8 < cut[BLUE] / whole[BLUE] < 0.87  # one of three bars is half as long; the path is blue too


def test_the_image_marks_the_current_group() -> None:
    marked, ended = colours(image()), colours(image(current=None))
    assert marked[ORANGE] > 10 * ended[ORANGE]  # the last point of the path stays orange


def test_the_image_draws_the_cap() -> None:
    assert VERMILION not in colours(image())
    picture = image(budget=0.25)
    columns = np.flatnonzero((picture == VERMILION).all(2).sum(0) > 50)
    assert 520 + 0.25 * 256 - 2 <= columns.mean() <= 520 + 0.25 * 256 + 2


def test_the_path_goes_from_the_dense_network_to_the_present() -> None:
    def present(quality: float, cost: float) -> tuple[float, float]:
        picture = image(current=None, history=((1.0, 1.0), (quality, cost)))
        rows, columns = np.nonzero((picture[:, 480:] == ORANGE).all(2))
        return rows.mean(), columns.mean()

    (high, right), (low, left) = present(0.99, 0.9), present(0.91, 0.3)
    assert low - high > 100
    assert right - left > 100


@pytest.mark.parametrize("groups", [1, 2, 26, 27, 52, 53, 200])
def test_any_number_of_groups_fits(groups: int) -> None:
    names = tuple(f"features.layer{k}.some.very.long.name.conv{k}" for k in range(groups))
    picture = image(names=names, sizes=(4096,) * groups, widths=(4096,) * groups, current=groups - 1)
    assert picture.shape == (480, 800, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert colours(picture)[ORANGE] > 50
    assert (picture[-20:] == 255).all(), "something runs over the lower margin"


@pytest.mark.parametrize("point", [(0.0, 0.01), (3.0, 0.5), (-2.0, 0.5), (1.0, 1.2)])
def test_any_history_fits(point: tuple[float, float]) -> None:
    assert ORANGE in colours(image(history=((1.0, 1.0), point), current=None))


def test_equal_frames_give_equal_images() -> None:
    first = image()
    first[:] = 0  # an image belongs to who asked for it
    assert (image() == image()).all()
    assert (image() != first).any()


def test_a_window_opens_once_and_closes() -> None:
    import pygame

    renderer = Renderer("human")
    assert renderer.render(FRAME, 1000) is None
    assert pygame.display.get_init()
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).transpose(1, 0, 2)
    np.testing.assert_array_equal(shown, image())
    renderer.close()
    assert not pygame.display.get_init()
    renderer.close()
    renderer.render(FRAME, 1000)
    renderer.close()


def test_without_pygame_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "reptile_env.drawing", raising=False)
    monkeypatch.delattr("reptile_env.drawing", raising=False)
    monkeypatch.setitem(sys.modules, "pygame", None)
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(DependencyNotInstalled, match=r'pip install "reptile-env\[render\]"'):
        env.render()
    env.step(env.action_for(0.5))  # the episode goes on
    assert make(render_mode="ansi").reset(seed=0)


def test_without_a_render_mode_a_warning_tells(env: Any) -> None:
    with pytest.warns(UserWarning, match="render mode"):
        assert env.render() is None


def test_images_need_no_display_and_pygame_stays_silent() -> None:
    found = run_python(
        """
        import os
        for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY", "PYGAME_HIDE_SUPPORT_PROMPT"):
            os.environ.pop(name, None)
        import gymnasium as gym, reptile_env
        env = gym.make("ReptilePrune-v0", task="digits-mlp", render_mode="rgb_array")
        env.reset(seed=0)
        print(env.render().shape)
        env.close()
        """
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout == "(480, 800, 3)\n"
    assert found.stderr == ""
