/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What crosses the boundary between the programs and user space: the structs of the maps, and the enums.
 *
 * Addresses are 16 bytes in network byte order; an IPv4 address stands as its IPv4-mapped form ::ffff:a.b.c.d
 * (RFC 4291, 2.5.5.2), so that both families share every key. All other integers are in host byte order
 * unless their comment says otherwise. Padding is explicit everywhere (-Wpadded): a hidden byte in a hash key
 * would be undefined. src/kernel/abi.rs mirrors these structs and compares sizes and offsets with this file's
 * BTF at compile time. A change here that an older mptm could not read takes a new MPTM_LAYOUT.
 * So does any other meaning of what the programs keep for each other (flows.h): two builds may share it while
 * one replaces the other. Newer ones migrate it: but `saved`, `names` and `meta` must never change, and what
 * counts may only grow.
 */
#ifndef MPTM_ABI_H
#define MPTM_ABI_H

#include <linux/types.h>

#define MPTM_LAYOUT 4

/* Sizes of single entries; those of the maps follow the file. */
#define MPTM_MAX_HEADER 192
#define MPTM_MAX_FLOOD_MEMBERS 256
#define MPTM_NAME_SIZE 64
#define MPTM_PORTS 65536

/* Tunnel protocols. Numbers are never reused. */
enum mptm_protocol {
    MPTM_PROTOCOL_NONE = 0,
    MPTM_PROTOCOL_VLAN = 1,
    MPTM_PROTOCOL_VXLAN = 2,
    MPTM_PROTOCOL_GENEVE = 3,
    MPTM_PROTOCOL_QINQ = 4,
    MPTM_PROTOCOL_GRE = 5,
    MPTM_PROTOCOL_GRETAP = 6,
    MPTM_PROTOCOL_IPIP = 7,
    MPTM_PROTOCOL_GUE = 8,
    MPTM_PROTOCOL_FOU = 9,
    MPTM_PROTOCOL_GTPU = 10,
    MPTM_PROTOCOL_COUNT = 11,
};

/* The programs, as rows of the `actions` map: of XDP, but for the last one, which is of tc. Numbers are never
 * reused. */
enum mptm_program {
    MPTM_PROGRAM_ENCAP = 0,
    MPTM_PROGRAM_DECAP = 1,
    MPTM_PROGRAM_REDIRECT = 2,
    MPTM_PROGRAM_PASS = 3,
    MPTM_PROGRAM_FLOOD = 4,
    MPTM_PROGRAM_COUNT = 5,
};

/* XDP_ABORTED to XDP_REDIRECT, and room. */
#define MPTM_ACTIONS 8

/*
 * Why a packet was dropped, or was left to the host's stack although it is of a kind that tunnels carry: the
 * index of the `drops` map. Numbers are never reused.
 */
enum mptm_reason {
    MPTM_DROP_NONE = 0,            /* never counted */
    MPTM_DROP_MALFORMED = 1,       /* a workload's packet whose own headers or lengths are wrong */
    MPTM_DROP_SOURCE = 2,          /* a workload's packet from an address that is not its own */
    MPTM_DROP_TOO_BIG = 3,         /* larger than its tunnel's MTU: the sender is told */
    MPTM_DROP_NO_TUNNEL = 4,       /* its route names a tunnel that is not there */
    MPTM_DROP_NO_NEIGHBOUR = 5,    /* the tunnel's next hop has no MAC address yet */
    MPTM_DROP_NO_ROOM = 6,         /* the driver left no headroom for the outer header */
    MPTM_DROP_NO_DEVICE = 7,       /* the interface it should leave by is gone */
    MPTM_DROP_OUTER_LENGTH = 8,    /* outer lengths disagree with each other or with the frame */
    MPTM_DROP_OUTER_CHECKSUM = 9,  /* outer IPv4 header or UDP checksum */
    MPTM_DROP_OUTER_FRAGMENT = 10, /* an outer fragment that carries a tunnel header */
    MPTM_DROP_TUNNEL_VERSION = 11, /* tunnel header version */
    MPTM_DROP_TUNNEL_FLAGS = 12,   /* tunnel header flags */
    MPTM_DROP_TUNNEL_PAYLOAD = 13, /* the tunnel header announces another payload than the tunnel has */
    MPTM_DROP_CRITICAL_OPTION =
        14, /* GENEVE: a critical option that the tunnel does not have (RFC 8926, 3.5) */
    MPTM_DROP_INNER_MALFORMED = 15,   /* the inner packet's headers or lengths are wrong */
    MPTM_DROP_INNER_SOURCE = 16,      /* an inner source that this tunnel may not bring in */
    MPTM_DROP_INNER_NO_ROUTE = 17,    /* an inner destination that is no workload of the tunnel's segment */
    MPTM_DROP_INNER_UNSUPPORTED = 18, /* neither IP, ARP nor ND */
    MPTM_DROP_STRAY = 19,             /* of a tunnel protocol, and no tunnel's: passes to the host's stack */
    MPTM_DROP_OAM = 20,               /* a control message of a tunnel protocol: passes to the host's stack */
    MPTM_DROP_GROUP = 21,             /* a workload's multicast or broadcast: passes to the host's stack */
    MPTM_DROP_INNER_GROUP = 22,       /* multicast or broadcast in a tunnel without flood */
    MPTM_DROP_TUNNEL_ID = 23,         /* a GRE key that none of its far end's tunnels has */
    MPTM_DROP_TUNNEL_CHECKSUM = 24,   /* GRE checksum: wrong, or missing */
    MPTM_DROP_TUNNEL_SEQUENCE = 25,   /* GRE sequence number: older than the last, or missing */
    MPTM_DROP_TUNNEL_OPTION = 26, /* an option or extension of the tunnel header that does not fit into it */
    MPTM_DROP_TUNNEL_LENGTH = 27, /* the tunnel header's own length disagrees with the packet's */
    MPTM_DROP_ECN = 28,           /* congestion marked on a packet that can't bear the mark (RFC 6040, 4.2) */
    MPTM_DROP_TTL = 29,           /* TTL or hop limit used up */
    MPTM_DROP_TOO_BIG_NO_DF = 30, /* IPv4 without DF, larger than its tunnel's MTU: the sender is told */
    MPTM_DROP_ICMP_LIMIT = 31,    /* too big, and more of that than there are answers */
    MPTM_DROP_NO_MAC = 32,        /* the workload's MAC address is not known, and an IP payload has none */
    MPTM_DROP_FLOOD_TOO_BIG =
        33, /* multicast or broadcast larger than a tunnel's MTU: no copy for that tunnel */
    MPTM_DROP_NOT_FLOODED = 34, /* multicast or broadcast of which a copy could not be made */
    MPTM_DROP_COUNT = 35,
};

/* Role of an interface that packets come in by. */
enum mptm_role {
    MPTM_ROLE_NONE = 0,
    MPTM_ROLE_UNDERLAY = 1,
    MPTM_ROLE_WORKLOAD = 2,
    MPTM_ROLE_REDIRECT = 3,
    MPTM_ROLE_PASS = 4,
};

/* Which settings user space may change. */
#define MPTM_MANAGE_OFFLOADS (1 << 0)
#define MPTM_MANAGE_MTU (1 << 1)
#define MPTM_MANAGE_PROMISC (1 << 2)
#define MPTM_MANAGE_SYSCTLS (1 << 3)
/* For the programs: outer packets for the host's stack go there through `cpus`. */
#define MPTM_INTERFACE_CPUS (1 << 8)

/* `interfaces`: by ifindex. */
struct mptm_interface {
    __u32 role;  /* enum mptm_role */
    __u32 slot;  /* this interface's slot in `devices`, and its id in `names` */
    __u32 table; /* workload: its segment's route table */
    __u32 to;    /* redirect: the slot in `devices` that everything goes to */
    __u8 mac[6]; /* its own MAC address */
    __u16 flags; /* MPTM_INTERFACE_*, MPTM_MANAGE_* */
};

/*
 * Set in the table of an IPv6 key. Without it, ::/0 and every other prefix that covers ::ffff:0:0/96 would be
 * the route of IPv4 addresses, too.
 */
#define MPTM_TABLE_IPV6 (1U << 31)

/*
 * `routes` (hash) has /32 and /128, `prefixes` (trie) the rest. A table is a segment's, or belongs to one
 * workload address and has the tunnels that only it may take (`from`).
 */
struct mptm_route_key {
    __u32 table; /* with MPTM_TABLE_IPV6 if the address is one */
    __u8 address[16];
};

struct mptm_prefix_key {
    __u32 prefix_len; /* bits: 32 of the table, then those of the (mapped) address */
    __u32 table;
    __u8 address[16];
};

enum mptm_target {
    MPTM_TARGET_NONE = 0,     /* as if there were no route */
    MPTM_TARGET_WORKLOAD = 1, /* `id` is a slot in `devices` */
    MPTM_TARGET_TUNNEL = 2,   /* `id` is a tunnel */
    MPTM_TARGET_GATEWAY = 3,  /* a next hop: mptm answers ARP and ND for it */
};

struct mptm_route {
    __u32 id;
    __u32 pairs;  /* workload: a table of what this address reaches in its own way, asked first; 0: none */
    __u16 target; /* enum mptm_target */
    __u8 mac[6];  /* workload: its MAC address; zero: leave the frame's */
};

/* `slots`: by interface slot, what a packet that leaves by it needs. */
struct mptm_slot {
    __u8 mac[6]; /* the interface's own MAC address */
    __u8 pad[2];
};

/*
 * `endpoints`: whose outer packets are whose. Those that a protocol does not have are zero. For GRE, GRETAP
 * and GTP-U there is one more for each far end, with MPTM_ANY_ID in its protocol (GRE's for GRETAP, too) and
 * id 0: it says that what the far end sends in this protocol is not the host's business.
 */
#define MPTM_ANY_ID 0x8000
#define MPTM_GRE_KEY 1
struct mptm_endpoint {
    __u8 remote[16]; /* outer source */
    __u8 local[16];  /* outer destination */
    __u32 id;        /* VNI, TEID, GRE key; VLAN id; QinQ: service id << 12 | id */
    __u32 ifindex;   /* the underlay */
    __u16 port;      /* UDP destination port; GRE: MPTM_GRE_KEY if there is a key, else 0 */
    __u16 protocol;  /* enum mptm_protocol, and MPTM_ANY_ID */
};

#define MPTM_TUNNEL_IPV4 (1 << 0)             /* the header has an IPv4 header at l3_offset */
#define MPTM_TUNNEL_UDP (1 << 1)              /* and a UDP header at l4_offset */
#define MPTM_TUNNEL_KEEP_DESTINATION (1 << 2) /* the outer destination MAC address is the inner frame's */
#define MPTM_TUNNEL_INNER_MAC (1 << 3)        /* inner_mac is the inner destination, unless that is a group */
#define MPTM_TUNNEL_STACK (1 << 4)        /* redirect = false: hand the outer packet to the host's stack */
#define MPTM_TUNNEL_DEBUG (1 << 5)        /* tell `events` about each packet */
#define MPTM_TUNNEL_UNRESOLVED (1 << 6)   /* the next hop's MAC address is not known */
#define MPTM_TUNNEL_KEEP_SOURCE (1 << 7)  /* the outer source MAC address is the inner frame's */
#define MPTM_TUNNEL_IPV6 (1 << 8)         /* the header has an IPv6 header at l3_offset */
#define MPTM_TUNNEL_IP_PAYLOAD (1 << 9)   /* it carries IP packets, without an Ethernet header */
#define MPTM_TUNNEL_TTL_INHERIT (1 << 10) /* outer TTL or hop limit: the inner one's, if there is one */
#define MPTM_TUNNEL_TOS_INHERIT (1 << 11) /* outer DSCP: the inner one's, if there is one */
#define MPTM_TUNNEL_DF_INHERIT (1 << 12)  /* outer DF: the inner IPv4 header's; set for anything else */
#define MPTM_TUNNEL_DF_UNSET (1 << 13)    /* no outer DF, and an identification per packet (RFC 6864, 4.2) */
#define MPTM_TUNNEL_LABEL_FLOW (1 << 14)  /* outer flow label: a hash of the inner flow (RFC 6438) */
#define MPTM_TUNNEL_LABEL_INHERIT (1 << 15) /* outer flow label: the inner one's, if there is one */
#define MPTM_TUNNEL_UDP_CHECKSUM                                                                             \
    (1 << 16) /* fill in the UDP checksum; over IPv6, want one in what is received */
#define MPTM_TUNNEL_GRE_CHECKSUM (1 << 17) /* fill in, and want, the GRE checksum at l4_offset + 4 */
#define MPTM_TUNNEL_SEQUENCE (1 << 18)     /* fill in, and want, the GRE sequence number at sequence_offset */
#define MPTM_TUNNEL_ETHERTYPE (1 << 19)    /* fill in the payload's EtherType, 2 bytes, at type_offset */
#define MPTM_TUNNEL_IP_PROTOCOL (1 << 20)  /* fill in the payload's IP protocol, 1 byte, at type_offset */
#define MPTM_TUNNEL_GTPU_LENGTH                                                                              \
    (1 << 21)                             /* fill in the GTP-U length, 2 bytes behind the UDP header's end   \
                                           */
#define MPTM_TUNNEL_MSS_CLAMP (1 << 22)   /* lower the MSS option of TCP SYNs, both ways */
#define MPTM_TUNNEL_PCP_INHERIT (1 << 23) /* the priority of the header's VLAN tags: the inner frame's */
#define MPTM_TUNNEL_FLOOD (1 << 24)       /* takes and brings multicast and broadcast */

/* How many critical GENEVE options a tunnel may have. */
#define MPTM_MAX_CRITICAL 4

/*
 * `tunnels`: two per tunnel id, of which `active` names the one in use, so that a change is written aside and
 * then comes into force with one store: no packet sees half of it.
 *
 * Fields of `header` that differ from packet to packet are zero in it: IPv4's total length, TOS and checksum,
 * and its TTL, DF and protocol where these are filled in; IPv6's payload length, traffic class and, where
 * they are filled in, flow label, hop limit and next header; UDP's source port, length and checksum; and what
 * the flags name.
 */
struct mptm_tunnel {
    __u8 header[MPTM_MAX_HEADER]; /* the whole outer header */
    __u16 header_len;
    __u16 pop;             /* bytes at the inner frame's front that the header replaces; with IP_PAYLOAD, all
                              before the IP header, and this is 0 */
    __u16 l3_offset;       /* of the outer IP header in `header` */
    __u16 l4_offset;       /* of the outer UDP or GRE header in `header` */
    __u16 type_offset;     /* of the payload's type in `header` */
    __u16 sequence_offset; /* of GRE's sequence number in `header` */
    __u32 ip_sum;          /* IPv4: sum of the header's 16-bit words, as they are in memory */
    __u32 sum;        /* UDP_CHECKSUM: sum of the 16-bit words, as they are in memory, of the pseudo header's
                         addresses and protocol, and of all from l4_offset on; GRE_CHECKSUM: of all from l4_offset on
                       */
    __u32 mtu;        /* largest inner IP packet; tags of an inner frame count as part of it */
    __u32 flags;      /* MPTM_TUNNEL_* */
    __u32 device;     /* the underlay's slot in `devices` */
    __u32 table;      /* its segment's route table */
    __u32 port_count; /* source ports: port_min and as many as this */
    __u16 port_min;
    __u16 protocol; /* enum mptm_protocol */
    __u8 inner_mac[6];
    __u8 tos;           /* outer DSCP, in the upper six bits */
    __u8 ttl;           /* TTL_INHERIT: what packets get that have none */
    __u32 has_local_id; /* 1: local_id is another than the header's */
    __u32 local_id;     /* the id of received packets */
    __u32
        critical[MPTM_MAX_CRITICAL]; /* GENEVE: class << 8 | type of the header's critical options; 0: none */
};

/*
 * `floods`: by table, where multicast and broadcast of a segment go: first its tunnels, those with the
 * shortest headers first, then its workloads. Segments without a tunnel that floods have no entry.
 */
#define MPTM_FLOOD_SUM (1 << 0) /* some tunnel fills in a checksum */
struct mptm_flood_member {
    __u32 id;      /* of the tunnel; of a workload, its slot */
    __u32 ifindex; /* where a copy leaves by */
};

struct mptm_flood {
    __u32 tunnels;   /* how many */
    __u32 workloads; /* how many */
    __u32 flags;     /* MPTM_FLOOD_* */
    __u32 pad;
    struct mptm_flood_member members[MPTM_MAX_FLOOD_MEMBERS];
};

/* `tunnel_state`: by tunnel id, what the programs remember from packet to packet. */
struct mptm_tunnel_state {
    __u32 sent;     /* GRE: the next sequence number */
    __u32 received; /* GRE: the last one */
    __u32 seen;     /* whether there was one */
    __u32 pad;
};

/* `tunnel_stats`, `actions` and `drops` count whole frames and their bytes. */
struct mptm_counter {
    __u64 packets;
    __u64 bytes;
};

/* Tunnel traffic: inner frames before encapsulation and after decapsulation. */
struct mptm_tunnel_stats {
    struct mptm_counter encap;
    struct mptm_counter decap;
};

/* `udp_ports`: enum mptm_protocol by destination port. */
struct mptm_udp_ports {
    __u8 protocol[MPTM_PORTS];
};

/* `names`: what the packet path does not need, but a person does. */
enum mptm_name_kind {
    MPTM_NAME_NONE = 0,
    MPTM_NAME_INTERFACE = 1,  /* by slot */
    MPTM_NAME_TUNNEL = 2,     /* by id */
    MPTM_NAME_SEGMENT = 3,    /* by table */
    MPTM_NAME_PEER_NETNS = 4, /* by slot: where the interface's other end is: a netns's name, path or pid:N */
    MPTM_NAME_PEER = 5,       /* by slot: the other end's interface name */
    MPTM_NAME_NEXT_HOP = 6,   /* by tunnel id: whose MAC address was looked up for its header */
};

struct mptm_name_key {
    __u32 kind; /* enum mptm_name_kind */
    __u32 id;
};

struct mptm_name {
    __u8 text[128]; /* UTF-8, zero-terminated unless full */
};

/* `saved`: settings of devices that mptm changed, and what they were. */
struct mptm_saved_key {
    __u8 setting[40]; /* "mtu", "promisc", an ethtool feature, or "sysctl:" and its last part */
    __u32 ifindex;
    __u32 pad;
    __u64 netns; /* SO_NETNS_COOKIE of the device's namespace */
};

struct mptm_saved {
    __u64 before; /* what the setting was */
    __u64 value;  /* what mptm set it to */
    __u8
        netns[128]; /* where the device is: empty for mptm's own namespace, else as in MPTM_NAME_PEER_NETNS */
    __u8 device[16]; /* its name */
};

/* `meta`: one row. */
struct mptm_meta {
    __u32 layout; /* MPTM_LAYOUT of who made the maps */
    __u32 pad;
    __u64 netns;      /* SO_NETNS_COOKIE of the namespace that is managed */
    __u8 build[32];   /* which build of the programs is loaded */
    __u8 version[32]; /* of mptm, for people */
};

/* `events`: packets of tunnels with `debug = true`. */
#define MPTM_SNAP 128
struct mptm_event {
    __u64 time; /* bpf_ktime_get_ns */
    __u32 tunnel;
    __u32 ifindex;  /* where it came in */
    __u32 length;   /* of the frame, bytes */
    __u16 program;  /* enum mptm_program */
    __u16 action;   /* enum xdp_action */
    __u16 reason;   /* enum mptm_reason */
    __u16 captured; /* how much of `data` is filled */
    __u32 pad;
    __u8 data[MPTM_SNAP];
};

_Static_assert(sizeof(struct mptm_interface) == 24, "interface");
_Static_assert(sizeof(struct mptm_route_key) == 20, "route_key");
_Static_assert(sizeof(struct mptm_prefix_key) == 24, "prefix_key");
_Static_assert(sizeof(struct mptm_route) == 16, "route");
_Static_assert(sizeof(struct mptm_endpoint) == 44, "endpoint");
_Static_assert(sizeof(struct mptm_tunnel) == 268, "tunnel");
_Static_assert(sizeof(struct mptm_slot) == 8, "slot");
_Static_assert(sizeof(struct mptm_flood) == 2064, "flood");
_Static_assert(sizeof(struct mptm_tunnel_state) == 16, "tunnel_state");
_Static_assert(sizeof(struct mptm_saved_key) == 56, "saved_key");
_Static_assert(sizeof(struct mptm_saved) == 160, "saved");
_Static_assert(sizeof(struct mptm_meta) == 80, "meta");
_Static_assert(sizeof(struct mptm_event) == 160, "event");

#endif
