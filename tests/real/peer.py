#!/usr/bin/python3
"""A far end that takes apart and builds tunnel packets with scapy, for tests/real.

peer.py far SETTINGS   a device tun0, whose packets it tunnels, until it is ended; ends itself when a packet is wrong
peer.py send SETTINGS  tunnels one packet of each kind, and prints as hexadecimal digits what is to arrive

SETTINGS is JSON: row (of tests/real/matrix.rs), carries, underlay, local, remote, local_mac, remote_mac; send: also
source and destination (inner addresses, [IPv4, IPv6]), source_mac, destination_mac (of what is to arrive).
"""

import fcntl
import json
import logging
import select
import socket
import struct
import subprocess
import sys
import zlib

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.fields import BitField, ByteField, XShortField
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPOption_RR, in4_chksum
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    in6_chksum,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw, bind_layers
from scapy.utils import checksum

TEB = 0x6558


class GUE(Packet):
    """draft-ietf-intarea-gue, 3.1."""

    name = "GUE"
    fields_desc = [
        BitField("version", 0, 2),
        BitField("control", 0, 1),
        BitField("hlen", 0, 5),
        ByteField("proto", 0),
        XShortField("flags", 0),
    ]


bind_layers(UDP, GUE, dport=6080)
bind_layers(GUE, IP, proto=4)
bind_layers(GUE, IPv6, proto=41)

OPTIONS = [(0x0103, 0x05, bytes.fromhex("01020304")), (0xFF01, 0x80, bytes.fromhex("0a0b0c0d0e0f1011"))]


def geneve_options(data):
    """Scapy's own list ends after the first."""
    options = []
    while data:
        option = GeneveOptions(data)
        options.append((option.classid, option.type, bytes(option.data)))
        data = option.payload.original if option.payload else b""
    return options


class Wrong(Exception):
    """A packet is not as it should be."""


def want(what, is_, should):
    if is_ != should:
        raise Wrong(f"{what} is {is_!r}, not {should!r}")


class Tunnel:
    """How a row's packets are built and taken apart."""

    def __init__(self, settings):
        self.row = settings["row"]
        self.ethernet = settings["carries"] == "Ethernet"
        self.local, self.remote = settings["local"], settings["remote"]
        self.local_mac, self.remote_mac = settings["local_mac"], settings["remote_mac"]
        # An option that nobody asked for: there is room for it only in small packets.
        self.with_more = sys.argv[1] == "send"
        self.sent = 0
        self.received = -1

    def build(self, inner):
        """The frame for an inner frame or packet."""
        if self.row in ("vlan", "qinq"):
            return self.tagged(inner)
        self.sent += 1
        kind = TEB if self.ethernet else {4: 0x0800, 6: 0x86DD}[inner[0] >> 4]
        number = None if self.ethernet else {4: 4, 6: 41}[inner[0] >> 4]
        payload = Raw(inner)
        port = {
            "vxlan": 4789, "vxlan_gbp": 4789, "geneve": 6081, "geneve_options": 6081, "geneve_ip": 6081,
            "gue": 6080, "gue_1": 6080, "fou": 5555, "gtpu": 2152, "gtpu_qfi": 2152,
        }.get(self.row)
        if self.row == "vxlan":
            payload = VXLAN(vni=42, flags="Instance") / payload
        elif self.row == "vxlan_gbp":
            payload = VXLAN(vni=42, flags=0x88, gpid=0x1234) / payload
        elif self.row in ("geneve", "geneve_ip"):
            payload = GENEVE(vni=42, proto=kind) / payload
        elif self.row == "geneve_options":
            options = [GeneveOptions(classid=c, type=t, data=d) for c, t, d in OPTIONS]
            if self.with_more:
                options.append(GeneveOptions(classid=0x1234, type=0x01, data=b"anything"))
            payload = GENEVE(vni=42, proto=kind, critical=1, options=options) / payload
        elif self.row in ("gre", "gretap"):
            payload = GRE(proto=kind) / payload
        elif self.row in ("gre_all", "gretap_all"):
            payload = GRE(
                proto=kind, chksum_present=1, key_present=1, seqnum_present=1, key=self.key(),
                sequence_number=self.sent,
            ) / payload
        elif self.row == "gue":
            payload = GUE(proto=number) / payload
        elif self.row == "gtpu":
            payload = GTP_U_Header(teid=42, gtp_type=255) / payload
        elif self.row == "gtpu_qfi":
            container = GTPPDUSessionContainer(type=0, QFI=9)
            payload = GTP_U_Header(teid=42, gtp_type=255, E=1, next_ex=0x85) / container / payload
        if port:
            # One port for a flow would do; the checksum may be left out over IPv4.
            source = 0xC000 | zlib.crc32(inner[:40]) & 0x3FFF
            udp = UDP(sport=source, dport=port)
            if ":" not in self.remote and self.sent % 2:
                udp.chksum = 0
            payload = udp / payload
            number = 17
        elif "gre" in self.row:
            number = 47
        if ":" in self.remote:
            outer = IPv6(src=self.local, dst=self.remote, nh=number, hlim=7)
        else:
            outer = IP(src=self.local, dst=self.remote, proto=number, ttl=7, id=self.sent & 0xFFFF)
        return bytes(Ether(src=self.local_mac, dst=self.remote_mac) / outer / payload)

    def key(self):
        return 4000000000 if self.row == "gre_all" else 42

    def tagged(self, inner):
        frame = Ether(inner)
        tag = Dot1Q(vlan=42, prio=1, type=frame.type)
        if self.row == "qinq":
            tag = Dot1AD(vlan=7, prio=2, type=0x8100) / tag
        kind = 0x88A8 if self.row == "qinq" else 0x8100
        return bytes(Ether(dst=frame.dst, src=frame.src, type=kind) / tag / Raw(inner[14:]))

    def take_apart(self, frame):
        """The inner frame or packet of a frame; none if it is not of the tunnel."""
        packet = Ether(frame)
        if self.row in ("vlan", "qinq"):
            return self.untagged(packet, frame)
        ip = packet.payload
        if not isinstance(ip, IPv6 if ":" in self.remote else IP) or ip.src != self.remote:
            return None
        number = ip.nh if isinstance(ip, IPv6) else ip.proto
        if number in (1, 58):
            return None
        want("destination", (packet.dst, ip.dst), (self.local_mac, self.local))
        if isinstance(ip, IP):
            want("IPv4 checksum", checksum(ip.original[: ip.ihl * 4]), 0)
        rest = ip.payload
        if isinstance(rest, UDP):
            self.check_udp(ip, rest)
        return self.inner(rest, number)

    def check_udp(self, ip, udp):
        segment = udp.original[: udp.len]
        want("UDP length", len(udp.original), udp.len)
        if isinstance(ip, IPv6):
            want("a UDP checksum", udp.chksum != 0, True)
            want("sum over UDP", in6_chksum(17, ip, segment), 0)
        elif udp.chksum:
            want("sum over UDP", in4_chksum(17, ip, segment), 0)

    def inner(self, rest, number):
        row = self.row
        if row == "ipip":
            want("protocol", number, {4: 4, 6: 41}[rest.original[0] >> 4])
            return rest.original
        if "gre" in row:
            want("GRE flags", (rest.chksum_present, rest.key_present, rest.seqnum_present), (int("all" in row),) * 3)
            want("GRE version", rest.version, 0)
            self.check_type(rest.proto, rest.payload.original)
            if "all" in row:
                want("GRE key", rest.key, self.key())
                want("GRE checksum", checksum(rest.original), 0)
                want("GRE sequence number", rest.sequence_number, self.received + 1 if self.received >= 0
                     else rest.sequence_number)
                self.received = rest.sequence_number
            return rest.payload.original
        port, header = rest.dport, rest.payload
        want("source port", rest.sport >= 0xC000, True)
        if row in ("gue_1", "fou"):
            want("port", port, 6080 if row == "gue_1" else 5555)
            return header.original
        if row == "gue":
            want("GUE", (port, header.version, header.control, header.hlen, header.flags), (6080, 0, 0, 0, 0))
            want("GUE protocol", header.proto, {4: 4, 6: 41}[header.original[4] >> 4])
        elif row.startswith("vxlan"):
            want("VXLAN", (port, header.vni), (4789, 42))
            want("VXLAN flags", int(header.flags), 0x88 if "gbp" in row else 0x08)
            want("VXLAN group", header.gpid if "gbp" in row else None, 2748 if "gbp" in row else None)
        elif row.startswith("geneve"):
            want("GENEVE", (port, header.version, header.oam, header.vni), (6081, 0, 0, 42))
            options = geneve_options(header.original[8 : 8 + 4 * header.optionlen])
            want("GENEVE options", options, OPTIONS if "options" in row else [])
            want("GENEVE critical", header.critical, int("options" in row))
            self.check_type(header.proto, header.payload.original)
        elif row.startswith("gtpu"):
            want("GTP-U", (port, header.version, header.PT, header.gtp_type, header.teid), (2152, 1, 1, 255, 42))
            want("GTP-U length", header.length, len(header.original) - 8)
            want("GTP-U flags", (header.E, header.S, header.PN), (int("qfi" in row), 0, 0))
            if "qfi" in row:
                header = header.payload
                want("PDU session", (header.type, header.QFI, header.NextExtHdr), (1, 9, 0))
        return header.payload.original

    def check_type(self, kind, inner):
        want("type", kind, TEB if self.ethernet else {4: 0x0800, 6: 0x86DD}[inner[0] >> 4])

    def untagged(self, packet, frame):
        tag = packet.payload
        if self.row == "qinq":
            if not isinstance(tag, Dot1AD):
                return None
            want("S-tag", (packet.type, tag.vlan, tag.prio, tag.type), (0x88A8, 7, 3, 0x8100))
            tag = tag.payload
            want("C-tag", (tag.vlan, tag.prio), (42, 3))
        else:
            if not isinstance(tag, Dot1Q):
                return None
            want("tag", (packet.type, tag.vlan, tag.prio), (0x8100, 42, 5))
        return frame[:12] + tag.original[2:]


class Wire:
    """A packet socket that gives VLAN tags back to their frames."""

    AUXDATA = 8
    VLAN_VALID, TPID_VALID = 1 << 4, 1 << 6

    def __init__(self, device):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind((device, 0))
        self.socket.setsockopt(263, self.AUXDATA, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)

    def receive(self):
        frame, controls, _, address = self.socket.recvmsg(1 << 16, 256)
        if address[2] == socket.PACKET_OUTGOING:
            return None
        for level, kind, data in controls:
            if (level, kind) == (263, self.AUXDATA):
                status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", data[:20])
                if status & self.VLAN_VALID:
                    tpid = tpid if status & self.TPID_VALID else 0x8100
                    frame = frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
        return frame


def device(ethernet):
    """Makes tun0, a TAP or a TUN device that is up: one that is down would refuse what is already on its way."""
    tun = open("/dev/net/tun", "r+b", buffering=0)
    flags = (2 if ethernet else 1) | 0x1000
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun0", flags))
    subprocess.run(["ip", "link", "set", "tun0", "up"], check=True)
    return tun


def far(tunnel, wire):
    tun = device(tunnel.ethernet)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([tun, wire.socket], [], [])
        if tun in ready:
            wire.socket.send(tunnel.build(tun.read(1 << 16)))
        if wire.socket in ready:
            frame = wire.receive()
            inner = frame and tunnel.take_apart(frame)
            if inner:
                try:
                    tun.write(inner)
                except OSError as error:
                    raise Wrong(f"tun0 does not take {inner.hex()}: {error}") from error


def samples(settings):
    """Inner packets of all kinds, as scapy objects."""
    source4, source6 = settings["source"]
    destination4, destination6 = settings["destination"]
    v4 = IP(src=source4, dst=destination4, id=77, ttl=9)
    v6 = IPv6(src=source6, dst=destination6, hlim=9)
    options = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
    fragment = bytes(UDP(sport=1, dport=2, len=1008, chksum=0x1234) / Raw(b"f" * 1000))
    for ip in (v4, v6):
        yield ip / UDP(sport=5, dport=6) / Raw(b"datagram")
        yield ip / UDP(sport=5, dport=6)
        yield ip / UDP(sport=5, dport=7) / Raw(bytes(range(256)) * 5)
        yield ip / TCP(sport=5, dport=8, flags="S", options=[("MSS", 1400), ("SAckOK", b""), ("WScale", 7)])
        yield ip / TCP(sport=5, dport=8, flags="PA", seq=1, ack=1) / Raw(b"odd")
        yield ip / SCTP(sport=5, dport=9) / SCTPChunkData(data=b"chunk")
    yield IP(src=source4, dst=destination4, id=78, ttl=9, proto=253) / Raw(b"no known protocol")
    yield IPv6(src=source6, dst=destination6, hlim=9, nh=253) / Raw(b"no known protocol")
    yield v4 / ICMP(type=8, id=1, seq=2) / Raw(b"echo")
    yield v6 / ICMPv6EchoRequest(id=1, seq=2, data=b"echo")
    for ecn in range(4):
        yield IP(src=source4, dst=destination4, id=79, ttl=9, tos=0xB8 | ecn) / UDP(sport=1, dport=ecn + 1)
        yield IPv6(src=source6, dst=destination6, hlim=9, tc=0xB8 | ecn, fl=0xABCDE) / UDP(sport=1, dport=ecn + 1)
    yield IP(src=source4, dst=destination4, ttl=9, flags="DF", options=[IPOption_RR(length=11)]) / UDP(sport=1, dport=9)
    yield IP(src=source4, dst=destination4, ttl=9, id=80, flags="MF", proto=17) / Raw(fragment[:504])
    yield IP(src=source4, dst=destination4, ttl=9, id=80, frag=63, proto=17) / Raw(fragment[504:])
    yield v6 / IPv6ExtHdrFragment(id=81, m=1, nh=17) / Raw(fragment[:504])
    yield v6 / IPv6ExtHdrFragment(id=81, offset=63, nh=17) / Raw(fragment[504:])
    yield v6 / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) / UDP(sport=1, dport=10)
    yield v6 / options / UDP(sport=1, dport=11) / Raw(b"behind options")
    yield v6 / IPv6ExtHdrRouting(type=4, segleft=0, addresses=[destination6]) / options / TCP(sport=1, dport=12)
    yield v6 / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)], nh=59)


def arrived(packet, tunnel, settings):
    """What a packet is when it arrives."""
    packet = packet.__class__(bytes(packet))
    if not tunnel.ethernet:
        # It was routed.
        if isinstance(packet, IP):
            packet.ttl -= 1
            packet.chksum = None
        else:
            packet.hlim -= 1
    frame = Ether(src=settings["source_mac"], dst=settings["destination_mac"])
    return bytes(frame / packet)


def send(tunnel, wire, settings):
    for packet in samples(settings):
        inner = bytes(packet)
        if tunnel.ethernet:
            inner = bytes(Ether(src=settings["source_mac"], dst=settings["destination_mac"]) / packet)
        wire.socket.send(tunnel.build(inner))
        print(arrived(packet, tunnel, settings).hex())


def main():
    settings = json.loads(sys.argv[2])
    tunnel, wire = Tunnel(settings), Wire(settings["underlay"])
    try:
        if sys.argv[1] == "far":
            far(tunnel, wire)
        else:
            send(tunnel, wire, settings)
    except Wrong as wrong:
        sys.exit(f"peer.py: {tunnel.row}: {wrong}")


main()
