def test_health(client):
    assert client.get("/health").json() == {"ok": True, "depot": "north"}


def test_quote(client):
    assert client.get("/quote?grams=1001").json()["cents"] == 900


def test_send_and_track(client):
    sent = client.post("/parcels", json={"to": "Utrecht", "grams": 300})
    assert sent.status_code == 201
    assert client.get(f"/parcels/{sent.json()['number']}").json() == sent.json()


def test_unknown_parcel(client):
    assert client.get("/parcels/none").status_code == 404
