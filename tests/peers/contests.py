"""Two contenders for `elections`, each with the cluster that decides between them."""

import http.client
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
loader = importlib.machinery.SourceFileLoader("run", str(HERE / "run"))
peers = importlib.util.module_from_spec(importlib.util.spec_from_loader("run", loader))
loader.exec_module(peers)
from_run = (peers.free_port, peers.get, peers.loud, peers.run, peers.start, peers.wait)
free_port, get, loud, run, start, wait = from_run

CONTENDER = HERE / "contender"
# The one that Debian's packages are for.
PYTHON = "/usr/bin/python3"
GRANTS = 200


class Contest:
    """Two contenders, `first` and `second`."""

    def __init__(self, folder, resource, lease):
        self.folder, self.resource, self.lease = folder, resource, lease
        self.contenders = {}

    def enter(self):
        for label in ("first", "second"):
            self.begin(label)
            wait("one that leads", self.resource.leader)

    def begin(self, label):
        words = self.words(label)
        self.contenders[label] = start(words, self.folder / f"{label}.log")

    def touching(self, label):
        return [self.resource.program, label, self.resource.path]

    def client(self, label):
        return [self.contenders[label].pid]

    def everything(self, label):
        return family(self.contenders[label].pid)

    def mend(self, label):
        """The contender as it was in the beginning."""
        for one in self.everything(label) + strays(self.touching(label)):
            kill(one)
        self.contenders[label].kill()
        self.contenders[label].wait()
        time.sleep(self.lease)
        self.repair()
        self.begin(label)

    def repair(self):
        pass

    def settle(self):
        """The other stands too."""
        time.sleep(1.5)

    def stop(self):
        for label, one in self.contenders.items():
            for pid in self.everything(label) + strays(self.touching(label)):
                kill(pid)
            one.kill()
            one.wait()


class Synod(Contest):
    lease_word, name = "2s", "Synod 2+1"

    @staticmethod
    def install(folder, args):
        return peers.Synod.install(folder, args)

    def __init__(self, folder, program, resource):
        super().__init__(folder, resource, 2 if self.lease_word == "2s" else 0.3)
        folder.mkdir()
        self.program, self.cluster = program, peers.Synod(folder / "cluster", program)
        self.enter()

    def words(self, label):
        words = [self.program, "elect", "--cluster", self.folder / "cluster/client.toml", "--keep"]
        return [*words, "--role", "jobs", "--lease", self.lease_word, "--", *self.touching(label)]

    def machine(self, label):
        leader = self.cluster.roles("leader")[0]
        return [self.cluster.nodes[leader]["pid"], *self.everything(label)]

    def repair(self):
        self.cluster.mend(next(iter(self.cluster.nodes)))

    def latencies(self):
        leader = self.cluster.roles("leader")[0]
        host, port = self.cluster.nodes[leader]["http"].split(":")
        node = http.client.HTTPConnection(host, int(port))

        def call(verb, path, body):
            node.request(verb, path, body)
            answer = node.getresponse()
            answer.read()
            assert answer.status in (200, 204), (path, answer.status)

        lease = '{"holder":"one","lease":"60s"}'
        take = lambda: call("PUT", "/roles/grants/lease", lease)
        free = lambda: call("DELETE", "/roles/grants/lease?holder=one", None)
        return median(take, free), median(lambda: call("PUT", "/kv/key", "value"))

    def stop(self):
        super().stop()
        self.cluster.stop()


class SynodShort(Synod):
    lease_word, name = "300ms", "Synod 2+1, lease 300 ms"


class Etcd(Contest):
    name = "etcd 3.5, its election"

    @staticmethod
    def install(folder, args):
        return peers.Etcd.install(folder, args)

    def __init__(self, folder, program, resource):
        super().__init__(folder, resource, 2)
        self.program, self.cluster = program, peers.Etcd(folder, program)
        self.enter()

    def own(self, label):
        """Each has a server of its own."""
        return "e1" if label == "first" else "e2"

    def url(self, label):
        return f"http://{self.cluster.address(self.own(label))}"

    def words(self, label):
        words = [PYTHON, CONTENDER, "etcd", label, self.resource.path, self.lease]
        return [*words, self.url(label)]

    def machine(self, label):
        """With its own server, which leads."""
        own, leader = self.own(label), wait("a leader", self.cluster.leader)
        if leader != own:
            status = get(f"{self.url(label)}/v3/maintenance/status", b"{}")
            to = json.dumps({"targetID": status["header"]["member_id"]}).encode()
            at = f"http://{self.cluster.address(leader)}/v3/maintenance"
            get(f"{at}/transfer-leadership", to)
            wait("a leader", lambda: self.cluster.leader() == own)
        return [self.cluster.servers[own].pid, *self.everything(label)]

    def repair(self):
        for name, server in self.cluster.servers.items():
            if server.poll() is not None:
                self.cluster.begin(name)
        wait("a leader", self.cluster.leader)

    def latencies(self):
        host, port = self.cluster.addresses()[0].split(":")
        node = http.client.HTTPConnection(host, int(port))

        def call(path, **body):
            node.request("POST", path, json.dumps(body))
            return json.loads(node.getresponse().read().splitlines()[0])

        granted = call("/v3/lease/grant", TTL=600)["ID"]
        won = []
        campaign = dict(name="Z3JhbnRz", lease=granted, value="")
        take = lambda: won.append(call("/v3/election/campaign", **campaign)["leader"])
        free = lambda: call("/v3/election/resign", leader=won.pop())
        return median(take, free), median(lambda: call("/v3/kv/put", key="a2V5", value="dmFs"))

    def stop(self):
        super().stop()
        self.cluster.stop()


class EtcdLock(Etcd):
    name = "`etcdctl lock -- PROGRAM`"

    def words(self, label):
        etcdctl = pathlib.Path(self.program).with_name("etcdctl")
        etcdctl.chmod(0o755)
        words = [etcdctl, "--endpoints", self.url(label), "lock", "--ttl", self.lease, "jobs", "--"]
        # It ends when it loses its leader, and is wanted again.
        again = ["sh", "-c", 'while :; do "$@"; done', "again"]
        return [*again, *words, *self.touching(label)]

    def client(self, label):
        return self.everything(label)[:2]


class Kazoo(Contest):
    name = "ZooKeeper 3.8, kazoo"

    @staticmethod
    def install(_folder, _args):
        jar = pathlib.Path("/usr/share/java/zookeeper.jar")
        if not jar.exists():
            debian("zookeeper", "python3-kazoo")
        return jar

    def __init__(self, folder, jar, resource):
        super().__init__(folder, resource, 2)
        folder.mkdir()
        self.jar, self.servers = jar, {}
        self.ports = {number: [free_port() for _ in range(3)] for number in (1, 2, 3)}
        for number in self.ports:
            self.serve(number)
        wait("ZooKeeper", self.leading)
        self.enter()

    def serve(self, number):
        data = self.folder / str(number)
        data.mkdir(exist_ok=True)
        (data / "myid").write_text(f"{number}\n")
        lines = ["tickTime=200", "initLimit=20", "syncLimit=10", f"dataDir={data}"]
        lines += [f"clientPort={self.ports[number][0]}", "admin.enableServer=false"]
        lines += ["4lw.commands.whitelist=*", "minSessionTimeout=400"]
        for one, (_, peer, election) in self.ports.items():
            lines.append(f"server.{one}=127.0.0.1:{peer}:{election}")
        (data / "zoo.cfg").write_text("\n".join(lines))
        classes = f"{self.jar}:/usr/share/java/*:/etc/zookeeper/conf"
        words = ["java", "-Xmx128m", "-Dlog4j.rootLogger=ERROR", "-cp", classes]
        words += ["org.apache.zookeeper.server.quorum.QuorumPeerMain", data / "zoo.cfg"]
        self.servers[number] = start(words, self.folder / f"{number}.log")

    def leading(self):
        """The number of the server that leads, once all serve."""
        modes = {number: self.mode(ports[0]) for number, ports in self.ports.items()}
        whole = sorted(modes.values()) == ["follower", "follower", "leader"]
        return next(number for number in modes if modes[number] == "leader") if whole else None

    @staticmethod
    def mode(port):
        with socket.create_connection(("127.0.0.1", port), 1) as server:
            server.settimeout(1)
            server.sendall(b"srvr")
            said = server.makefile().read()
        return next((line[6:] for line in said.splitlines() if line.startswith("Mode: ")), "")

    def hosts(self):
        return ",".join(f"127.0.0.1:{client}" for client, _, _ in self.ports.values())

    def words(self, label):
        return [PYTHON, CONTENDER, "kazoo", label, self.resource.path, self.lease, self.hosts()]

    def machine(self, label):
        leader = wait("a leader", self.leading)
        return [self.servers[leader].pid, *self.everything(label)]

    def repair(self):
        for number, server in self.servers.items():
            if server.poll() is not None:
                self.serve(number)
        wait("ZooKeeper", self.leading)

    def latencies(self):
        words = [PYTHON, "-c", KAZOO_LATENCIES, self.hosts(), GRANTS]
        return tuple(json.loads(run(words)))

    def stop(self):
        super().stop()
        for server in self.servers.values():
            server.kill()
            server.wait()


KAZOO_LATENCIES = """
import json, statistics, sys, time
from kazoo.client import KazooClient
client = KazooClient(hosts=sys.argv[1]); client.start(); client.ensure_path("/key")
def timed(call):
    began = time.monotonic(); call(); return (time.monotonic() - began) * 1000
grants, writes = [], []
for _ in range(int(sys.argv[2])):
    lock = client.Lock("/grants"); grants.append(timed(lock.acquire)); lock.release()
    writes.append(timed(lambda: client.set("/key", b"value")))
print(json.dumps([round(statistics.median(grants), 2), round(statistics.median(writes), 2)]))
"""


class Keepalived(Contest):
    name, address = "keepalived, adverts every 0.5 s", "10.98.0.9"

    @staticmethod
    def install(_folder, _args):
        if not shutil.which("keepalived"):
            debian("keepalived")
        return shutil.which("keepalived")

    def __init__(self, folder, program, resource):
        super().__init__(folder, resource, 2)
        folder.mkdir()
        self.program, self.daemons = program, {}
        self.spaces = {label: f"synod-{os.getpid()}-{label}" for label in ("first", "second")}
        for space in self.spaces.values():
            run(["ip", "netns", "add", space])
        one, two = self.spaces.values()
        run(["ip", "link", "add", "v0", "netns", one, "type", "veth", "peer", "v0", "netns", two])
        for number, (label, space) in enumerate(self.spaces.items(), 1):
            self.inside(space, "ip", "address", "add", f"10.98.0.{number}/24", "dev", "v0")
            self.inside(space, "ip", "link", "set", "v0", "up")
            self.daemon(label, 100 + number)
        self.enter()

    @staticmethod
    def inside(space, *words):
        run(["ip", "netns", "exec", space, *words])

    def daemon(self, label, priority):
        file = self.folder / f"{label}.conf"
        file.write_text(
            "global_defs { vrrp_version 3\n vrrp_garp_master_refresh 1 }\n"
            "vrrp_instance jobs {\n state BACKUP\n nopreempt\n interface v0\n"
            f" virtual_router_id 51\n priority {priority}\n advert_int 0.5\n"
            f" virtual_ipaddress {{ {self.address}/24 }}\n}}\n"
        )
        words = ["ip", "netns", "exec", self.spaces[label], self.program, "--dont-fork"]
        words += ["--log-console", "--vrrp", "-f", file, "-p", self.folder / f"{label}.pid"]
        words += ["-r", self.folder / f"{label}.vrrp"]
        self.daemons[label] = (start(words, self.folder / f"{label}.daemon.log"), priority)

    def words(self, label):
        words = ["ip", "netns", "exec", self.spaces[label], PYTHON, CONTENDER, "address", label]
        return [*words, self.resource.path, self.address]

    def client(self, label):
        return family(self.daemons[label][0].pid)

    def machine(self, label):
        return self.client(label) + self.everything(label)

    def mend(self, label):
        daemon, priority = self.daemons[label]
        for one in self.client(label):
            kill(one)
        daemon.wait()
        try:
            self.inside(self.spaces[label], "ip", "address", "del", f"{self.address}/24", "dev", "v0")
        except RuntimeError:
            pass  # it had given it up
        super().mend(label)
        self.daemon(label, priority)
        time.sleep(3)

    def latencies(self):
        return None, None

    def stop(self):
        super().stop()
        for label, (daemon, _) in self.daemons.items():
            for one in self.client(label):
                kill(one)
            daemon.wait()
            run(["ip", "netns", "del", self.spaces[label]])


def median(call, after=lambda: None):
    """Milliseconds, of two hundred in turn."""
    took = []
    for _ in range(GRANTS):
        began = time.monotonic()
        call()
        took.append((time.monotonic() - began) * 1000)
        after()
    return round(statistics.median(took), 2)


def debian(*packages):
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    words = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    subprocess.run(words, check=True, capture_output=True, env=environment)


def family(pid):
    """A process and all that descend from it, if they are there."""
    try:
        # Each thread has children of its own.
        texts = [one.read_text() for one in pathlib.Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [pid, *(one for text in texts for child in text.split() for one in family(int(child)))]


def strays(words):
    """Programs that lost their parents."""
    words, found = " ".join(map(str, words)), []
    for one in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = one.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if line.startswith(words):
            found.append(int(one.parent.name))
    return found


def send(kind, pid):
    try:
        os.kill(pid, kind)
    except ProcessLookupError:
        pass  # one that was hit before took it along


def kill(pid):
    send(signal.SIGKILL, pid)


CONTESTS = {
    "synod": Synod,
    "synod-300ms": SynodShort,
    "etcd": Etcd,
    "etcdctl": EtcdLock,
    "zookeeper": Kazoo,
    "keepalived": Keepalived,
}
