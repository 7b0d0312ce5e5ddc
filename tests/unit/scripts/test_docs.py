# SPDX-License-Identifier: Apache-2.0
"""``scripts/docs`` makes the site with an environment of its own."""

from tests.unit.scripts.checkout import Checkout


def test_the_site_is_made_by_what_its_own_lock_names(checkout: Checkout) -> None:
    checkout.python("python3.12", "3.12.1")
    done = checkout.run("docs", WITH_PIP="yes")

    assert (done.returncode, done.stderr) == (0, "")
    assert "Setting up .venv-docs with Python 3.12.1" in done.stdout
    assert done.stdout.endswith("build/site/index.html\n")
    assert checkout.called()[1:] == [
        "pip sync --quiet --python .venv-docs scripts/locks/docs.txt",
    ]


def test_an_environment_that_is_there_only_gets_what_the_lock_names(checkout: Checkout) -> None:
    checkout.python("python3.12", "3.12.1")
    checkout.run("docs", WITH_PIP="yes")
    before = len(checkout.called())
    again = checkout.run("docs", WITH_PIP="yes")

    assert again.stdout == "build/site/index.html\n"
    assert [line.split()[1] for line in checkout.called()[before:]] == ["sync"]


def test_it_fails_where_sphinx_does(checkout: Checkout) -> None:
    checkout.python("python3.12", "3.12.1")

    # The made-up Python has no modules.
    assert checkout.run("docs").returncode == 1
