"""The page about the gateway says what is true: its commands run, in their order, and print what stands below them."""

from __future__ import annotations

import argparse
import base64
import re
import shlex
from pathlib import Path
from string import Template

import httpx
import yaml

from tests.gateway import GatewayUnderTest
from tests.worker_process import eventually

PAGE = Path(__file__).parents[2] / "deploy" / "docs" / "gateway.md"
TEXT = PAGE.read_text()
FORBIDDEN = 403


def blocks(language: str) -> list[tuple[str, str]]:
    """What stands beside the word, and the content."""
    return re.findall(rf"^```{language} ?(.*)\n((?:.*\n)*?)```$", TEXT, re.MULTILINE)


def curl_arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("-i", action="store_true")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("--user")
    parser.add_argument("--json")
    parser.add_argument("-X")
    parser.add_argument("url")
    return parser


class Shell:
    """As much of a shell as the page needs."""

    def __init__(self, gateway: GatewayUnderTest) -> None:
        self._gateway = gateway
        self._variables = {"GATEWAY_URL": gateway.url}
        for name, content in blocks("json"):
            (gateway.bench.folder / name).write_text(content)

    async def run(self, line: str) -> str:
        """What the command prints."""
        if made := re.fullmatch(r"(\w+)=\$\(cohort-sync (tokens create .*)\)", line):
            self._variables[made[1]] = await self._token(shlex.split(made[2]))
            return ""
        program, *arguments = shlex.split(Template(line).substitute(self._variables))
        assert program == "curl"
        return await self._curl(curl_arguments().parse_args(arguments))

    async def _token(self, arguments: list[str]) -> str:
        done = await self._gateway.bench.run(*map(self._path, arguments))
        assert done.returncode == 0, done.stderr
        token = done.stdout.decode().strip()

        async def is_known() -> bool:
            asked = await self._gateway.client.get("/api/v2/versions", headers={"authorization": token})
            return asked.status_code != FORBIDDEN

        await eventually(is_known, 5)
        return token

    async def _curl(self, asked: argparse.Namespace) -> str:
        headers = dict(each.split(": ", 1) for each in asked.H)
        content = None
        if asked.json:
            content = self._content(asked.json)
            headers["Content-Type"] = "application/json"
        else:
            await self._gateway.bench.catch_up()  # what is asked for is what the worker has read
        if asked.user:
            headers["Authorization"] = "Basic " + base64.b64encode(asked.user.encode()).decode()
        method = asked.X or ("POST" if content else "GET")
        answered = await self._gateway.client.request(method, asked.url, content=content, headers=headers)
        return f"{head(answered)}\n\n{answered.text}" if asked.i else answered.text

    def _content(self, text: str) -> str:
        return Path(self._path(text[1:])).read_text() if text.startswith("@") else text

    def _path(self, name: str) -> str:
        path = self._gateway.bench.folder / name
        return str(path) if path.is_file() else name


def head(answered: httpx.Response) -> str:
    lines = [f"{name}: {value}" for name, value in answered.headers.items()]
    return "\n".join([f"HTTP/1.1 {answered.status_code} {answered.reason_phrase}", *lines])


async def test_every_command_of_the_page_prints_what_the_page_says(gateway: GatewayUnderTest) -> None:
    [(_, settings)] = blocks("yaml")
    said = yaml.safe_load(settings)
    gateway.bench.settings |= {"environments": said["environments"], "feeds": said["feeds"]}
    await gateway.bench.create_topics({topic: 1 for feed in said["feeds"] for topic in feed["topics"]})
    await gateway.start()
    shell = Shell(gateway)

    for _, session in blocks("console"):
        for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
            line, _, expected = part.partition("\n")
            printed = (await shell.run(line)).splitlines()
            for each in expected.splitlines():
                wanted = ".*".join(map(re.escape, each.split("...")))
                assert any(re.fullmatch(wanted, found) for found in printed), "\n".join([line, each, *printed])


async def test_every_route_and_every_answer_is_on_the_page(gateway: GatewayUnderTest) -> None:
    await gateway.start()
    paths = (await gateway.client.get("/openapi.json")).json()["paths"]
    told = {status for row in re.findall(r"^\| ([\d, ]+) \|", TEXT, re.MULTILINE) for status in row.split(", ")}

    statuses = {status for path in paths.values() for method in path.values() for status in method["responses"]}

    assert statuses - told == set()
    assert [path for path in paths if path.split("/{")[0] not in TEXT] == []
