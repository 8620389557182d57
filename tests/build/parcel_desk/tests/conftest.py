import pytest
from fastapi.testclient import TestClient

from app import PARCELS, app


@pytest.fixture
def client():
    PARCELS.clear()
    return TestClient(app)
