"""The part of the hub's HTTP API that pushing and loading a pack uses, kept in memory.

Written by what the hub's own client sends and expects; large files go the way of Git LFS, small
ones into the commit.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = (".safetensors",)


@dataclass
class Repository:
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch, files):
        facts = [
            len(self.commits),
            sorted((n, hashlib.sha1(c).hexdigest()) for n, c in files.items()),
        ]
        oid = hashlib.sha1(json.dumps(facts).encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def resolve(self, revision):
        oid = self.branches.get(revision, revision)
        return oid if oid in self.commits else None


class Hub:
    """A server at ``url``; ``repositories`` by name; ``requests`` that came, as method and path."""

    def __init__(self, token="hf_secret"):
        self.token = token
        self.repositories = {}
        self.objects = {}
        self.requests = []
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_error):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def files(self, name, revision="main"):
        repository = self.repositories[name]
        return repository.commits[repository.resolve(revision)]


class _Handler(BaseHTTPRequestHandler):
    hub = None
    protocol_version = "HTTP/1.1"
    routes = (
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/branch/(?P<branch>[^/]+)", "branch"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)", "paths"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)", "info"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)", "tree"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)", "info"),
        ("POST", r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/objects/(?P<oid>[0-9a-f]{64})", "upload"),
        ("POST", r"/objects/verify", "verify"),
        ("HEAD", r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "resolve"),
        ("GET", r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "resolve"),
    )

    def log_message(self, *_arguments):
        pass

    def do_GET(self):
        self.answer()

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815  (the server looks for these names)

    def answer(self):
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self.chunks()
        for method, pattern, action in self.routes:
            found = re.fullmatch(pattern, path)
            if method == self.command and found:
                given = {key: unquote(value) for key, value in found.groupdict().items()}
                return getattr(self, action)(**given)
        return self.send(404, {"error": f"no route {self.command} {path}"})

    def chunks(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def send(self, status, content=None, headers=None):
        data = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        given = {"Content-Length": str(len(data)), **(headers or {})}
        for key, value in given.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def json(self):
        return json.loads(self.body)

    def may_write(self):
        if self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            return True
        self.send(401, {"error": "Invalid username or password."})
        return False

    def repository(self, name):
        found = self.hub.repositories.get(name)
        hidden = found is not None and found.private
        if found is None or (
            hidden and self.headers.get("Authorization") != f"Bearer {self.hub.token}"
        ):
            self.send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def revision(self, name, revision):
        """Repository and commit, or None after an answer that there is none."""
        repository = self.repository(name)
        if repository is None:
            return None
        oid = repository.resolve(revision)
        if oid is None:
            self.send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository, oid

    # What the client asks for, by the names in `routes`

    def validate(self):
        text = self.json()["content"]
        errors = []
        try:
            data = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}
            if not data.get("license"):
                errors.append({"message": '"license" is required'})
        except yaml.YAMLError as error:
            errors.append({"message": str(error)})
        self.send(400 if errors else 200, {"errors": errors, "warnings": []})

    def create(self):
        if not self.may_write():
            return None
        asked = self.json()
        name = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
        if name in self.hub.repositories:
            return self.send(409, {"error": "You already created this model repo", **url})
        repository = Repository(private=asked.get("visibility") == "private")
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.hub.repositories[name] = repository
        return self.send(200, url)

    def branch(self, name, branch):
        repository = self.repository(name)
        if repository is None or not self.may_write():
            return None
        if branch in repository.branches:
            return self.send(409, {"error": "Reference already exists"})
        repository.branches[branch] = repository.branches["main"]
        return self.send(201)

    def preupload(self, name, revision):
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in self.json()["files"]
        ]
        self.send(200, {"files": modes})

    def batch(self, name):
        if not self.may_write():
            return None
        objects = []
        for item in self.json()["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.objects:
                entry["actions"] = {
                    "upload": {"href": f"{self.hub.url}/objects/{item['oid']}"},
                    "verify": {"href": f"{self.hub.url}/objects/verify"},
                }
            objects.append(entry)
        return self.send(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.send(400)
        self.hub.objects[oid] = self.body
        return self.send(200)

    def verify(self):
        self.send(200 if self.json()["oid"] in self.hub.objects else 404)

    def commit(self, name, revision):
        repository = self.repository(name)
        if repository is None or not self.may_write():
            return None
        files = dict(repository.commits[repository.branches[revision]])
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        oid = repository.commit(revision, files)
        url = f"{self.hub.url}/{name}/commit/{oid}"
        return self.send(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def entry(self, path, content):
        entry = {
            "type": "file",
            "path": path,
            "size": len(content),
            "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
        }
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        return entry

    def paths(self, name, revision):
        found = self.revision(name, revision)
        if found is None:
            return None
        files = found[0].commits[found[1]]
        asked = parse_qs(self.body.decode())["paths"]
        return self.send(200, [self.entry(path, files[path]) for path in asked if path in files])

    def info(self, name, revision="main"):
        found = self.revision(name, revision)
        if found is None:
            return None
        siblings = [{"rfilename": path} for path in found[0].commits[found[1]]]
        return self.send(200, {"id": name, "sha": found[1], "siblings": siblings, "tags": []})

    def tree(self, name, revision):
        found = self.revision(name, revision)
        if found is None:
            return None
        files = found[0].commits[found[1]]
        return self.send(200, [self.entry(path, content) for path, content in files.items()])

    def resolve(self, name, revision, file):
        found = self.revision(name, revision)
        if found is None:
            return None
        content = found[0].commits[found[1]].get(file)
        if content is None:
            return self.send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        entry = self.entry(file, content)
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": found[1], "Accept-Ranges": "bytes"}
        return self.send(200, content, headers)


def log_in(monkeypatch, hub, home):
    """Have the hub's client in this process know ``hub`` alone, with empty caches in ``home``."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    files = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
