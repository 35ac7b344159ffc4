"""Checks with the real tools of operators, which `make deploy-check` builds; `make test` leaves this folder out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.control_plane import ControlPlane


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A Kubernetes with two nodes that only pretend."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running
