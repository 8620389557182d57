import os
from uuid import uuid4

import humanize
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

TARIFF_CENTS = int(os.environ.get("TARIFF_CENTS", "450"))
DEPOT = os.getenv("DEPOT", "north")

app = FastAPI(title="Parcel desk")
PARCELS: dict[str, dict] = {}


class Parcel(BaseModel):
    to: str
    grams: int


@app.get("/health")
def health():
    return {"ok": True, "depot": DEPOT}


@app.get("/quote")
def quote(grams: int):
    cents = TARIFF_CENTS * max(1, -(-grams // 1000))
    return {"cents": cents, "weight": humanize.naturalsize(grams, format="%.0f")}


@app.post("/parcels", status_code=201)
def send(parcel: Parcel):
    number = str(uuid4())
    PARCELS[number] = {"number": number, **parcel.model_dump()}
    return PARCELS[number]


@app.get("/parcels/{number}")
def track(number: str):
    if number not in PARCELS:
        raise HTTPException(404, "no such parcel")
    return PARCELS[number]
