# SPDX-License-Identifier: Apache-2.0
"""Which release's overrides a vLLM between releases gets."""

from collections.abc import Callable

import pytest

from vllm_eplb_plugin import compatibility
from vllm_eplb_plugin.compatibility import Support, require_support, support_for
from vllm_eplb_plugin.overrides.binding import OverrideError
from vllm_eplb_plugin.releases import UnsupportedReleaseError, supported_releases

Fit = Callable[..., None]


@pytest.fixture
def fitting(monkeypatch: pytest.MonkeyPatch) -> Fit:
    """Lets the overrides of some releases fit, and no others."""
    support_for.cache_clear()

    def fit(*releases: str, error: type[Exception] | None = None) -> None:
        def overrides_at(release: str, *moments: str) -> tuple[str, ...]:
            if error is not None:
                raise error(f"{release} is elsewhere")
            return () if release in releases else (f"{release} differs",)

        monkeypatch.setattr(compatibility, "overrides_at", overrides_at)
        monkeypatch.setattr(compatibility, "find_mismatches", list)

    return fit


@pytest.mark.parametrize(
    ("fits", "release"),
    [(["0.26.0", "0.27.0"], "0.26.0"), (["0.26.0"], "0.26.0"), (["0.27.0"], "0.27.0")],
)
def test_the_neighbour_that_fits_is_taken_the_older_of_two(
    fitting: Fit, fits: list[str], release: str
) -> None:
    fitting(*fits)
    assert support_for("0.26.1rc1.dev77") == Support("0.26.1rc1.dev77", release, tested=False)


def test_no_release_but_a_neighbour_is_taken(fitting: Fit) -> None:
    fitting("0.25.1", "0.28.0")
    with pytest.raises(UnsupportedReleaseError) as refusal:
        support_for("0.26.1")
    assert "as 0.26.0: 0.26.0 differs" in str(refusal.value)
    assert "as 0.27.0: 0.27.0 differs" in str(refusal.value)


def test_sources_without_a_version_get_the_newest_that_fits(fitting: Fit) -> None:
    fitting(*supported_releases()[:-3])
    assert support_for("0.1.dev20175+gabc").release == supported_releases()[-4]


def test_a_name_that_is_elsewhere_is_a_reason_and_no_crash(fitting: Fit) -> None:
    fitting(error=ImportError)
    with pytest.raises(UnsupportedReleaseError, match=r"as 0.33.0: ImportError: 0.33.0 is else"):
        support_for("0.34.0")


def test_a_warning_names_the_build_and_the_release_that_it_is_like(fitting: Fit) -> None:
    fitting("0.33.0")
    warning = support_for("0.34.0rc1+cu130").warning
    assert "vLLM 0.34.0rc1+cu130 is none of the releases" in warning
    assert "looks as in 0.33.0" in warning


def test_a_known_release_that_was_changed_is_refused_where_eplb_is_asked_for(
    fitting: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting()
    known = Support("0.32.0+patched", "0.32.0", tested=True)
    assert support_for("0.32.0+patched") == known
    monkeypatch.setattr(compatibility, "installed_support", lambda: known)
    with pytest.raises(OverrideError, match=r"0\.32\.0 differs"):
        require_support()
