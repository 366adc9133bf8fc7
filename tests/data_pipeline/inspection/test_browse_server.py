"""The server over loopback: page, records and pictures, asked for as a browser would."""

import http.client
import json
import threading

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.inspection.browse_records import shown_record
from data_pipeline.inspection.server import BrowseServer
from data_pipeline.records.source import open_records


@pytest.fixture
def server(made):
    with BrowseServer(open_records(made.shard()), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, path, host=None):
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_the_page_knows_how_many_records_there_are(server):
    answer, body = get(server, "/")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/html")
    assert b'{"total": 4}' in body and b"4</label>" in body
    assert "script-src 'sha256-" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_records_come_in_batches(server):
    def indices(path):
        return [row["index"] for row in json.loads(get(server, path)[1])]

    assert indices("/records?start=0&count=3") == [0, 1, 2]
    assert indices("/records?start=3&count=3") == [3]
    (row,) = json.loads(get(server, "/records?start=1&count=1")[1])
    assert row == shown_record(1, server.source[1])


def test_pictures_are_the_very_files(server, made):
    answer, body = get(server, "/picture?record=0")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/jpeg")
    assert body == (made.images / "vg/1.jpg").read_bytes()
    assert get(server, "/picture?record=3")[0].status == 404, "text alone has none"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/records?start=4&count=1", 400),
        ("/records?start=-1&count=1", 400),
        ("/records?start=0", 400),
        ("/records?start=a&count=1", 400),
        ("/picture?record=4", 400),
        ("/picture?record=-1", 400),
        ("/../../etc/passwd", 404),
        ("/manifest-train.jsonl", 404),
    ],
)
def test_what_is_not_there_is_refused(server, path, status):
    assert get(server, path)[0].status == status


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:99", 200), ("127.0.0.1", 200), ("evil.example", 403), ("127.0.0.1.nip.io", 403)],
)
def test_other_names_for_this_machine_are_refused(server, host, status):
    assert get(server, "/", host)[0].status == status


def test_it_listens_on_loopback_alone_and_says_where_a_port_is_taken(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"
    for port in (server.server_address[1], 70_000):
        with pytest.raises(UserError, match=f"port {port} can't be served"):
            BrowseServer(server.source, port)


def test_a_damaged_record_is_said_and_its_neighbours_are_given(made):
    folder = made.shard()
    picture = (made.images / "coco/3.jpg").read_bytes()
    for shard in folder.glob("*.array_record-*"):
        data = bytearray(shard.read_bytes())
        place = data.find(picture[-100:-50])
        if place > 0:
            data[place] ^= 255
            shard.write_bytes(data)
    with BrowseServer(open_records(folder), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        rows = json.loads(get(server, "/records?start=0&count=4")[1])
        status = get(server, "/picture?record=2")[0].status
        server.shutdown()
        thread.join()
    assert ["fault" in row for row in rows] == [False, False, True, False]
    assert "can't be read" in rows[2]["fault"] and status == 404
