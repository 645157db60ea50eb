"""An API with FastAPI."""

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

app = FastAPI(title="python-fastapi")


@app.get("/")
def index() -> dict[str, str]:
    return {"application": "python-fastapi", "documentation": "/docs"}


@app.get("/health", response_class=PlainTextResponse)
def health() -> str:
    return "ok\n"


@app.get("/primes/{limit}")
def primes(limit: int) -> dict[str, list[int]]:
    limit = min(limit, 10_000)
    sieve = [True] * (limit + 1)
    found = []
    for number in range(2, limit + 1):
        if sieve[number]:
            found.append(number)
            for multiple in range(number * number, limit + 1, number):
                sieve[multiple] = False
    return {"primes": found}
