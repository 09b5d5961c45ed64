/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Outer headers: each is read into the endpoint that it would belong to. What is wrong with it is only noted
 * here, because a packet that belongs to no tunnel of ours is none of our business, right or wrong.
 */
#ifndef MPTM_OUTER_H
#define MPTM_OUTER_H

#include "maps.h"
#include "parse.h"
#include "stats.h"

enum payload {
    PAYLOAD_ETHERNET,
    PAYLOAD_IPV4,
    PAYLOAD_IPV6,
    PAYLOAD_IP, /* either, as its first bits say */
};

struct outer {
    struct mptm_endpoint endpoint;
    __u32 strip;    /* bytes before the inner frame or packet */
    __u32 length;   /* of outer and inner together, without trailing padding */
    __u32 l4;       /* where the UDP or GRE header is */
    __u32 tunnel;   /* where the tunnel header is, behind UDP */
    __u32 sequence; /* GRE's, if has_sequence */
    __u16 options;  /* bytes of GENEVE options at the end of the header */
    __u16 check;    /* the UDP checksum, as it stands there */
    __u8 reason;    /* enum mptm_reason: what is wrong with it */
    __u8 payload;   /* enum payload: what it says that it carries */
    __u8 ecn;       /* of the outer IP header */
    __u8 is_ipv6;
    __u8 has_checksum; /* GRE's */
    __u8 has_sequence;
    __u8 is_control;  /* of the protocol itself: no payload */
    __u8 is_echo;     /* GTP-U: an echo request */
    __u8 is_critical; /* GENEVE: some option is, it says */
    __u8 pad[3];
};

/* RFC 7348, 5. */
struct vxlan {
    __u8 flags;
    __u8 reserved[3];
    __be32 vni; /* 24 bits, and 8 reserved */
};
#define VXLAN_I 0x08

/* RFC 8926, 3.4. */
struct geneve {
    __u8 version_length; /* 2 bits, and the length of the options in 4 bytes */
    __u8 flags;
    __be16 type;
    __be32 vni; /* 24 bits, and 8 reserved */
};
#define GENEVE_OAM 0x80
#define GENEVE_CRITICAL 0x40
#define GENEVE_OPTIONS 0x3f

/* RFC 2784, 2; RFC 2890, 2. Behind it, as the flags say: checksum and 16 reserved bits, key, sequence number.
 */
struct gre {
    __be16 flags;
    __be16 type;
};
#define GRE_CHECKSUM 0x8000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_VERSION 0x0007
/* Routing, strict source route, and a bit that no RFC gave a meaning: to be zero, or the packet is not to be
 * taken. */
#define GRE_MUST_BE_ZERO 0x4c00

/* draft-ietf-intarea-gue, 3.1. Variant 1 has no header: its version bits are those of IPv4 or IPv6. */
struct gue {
    __u8 version_length; /* 2 bits, whether it is control, and the length of what follows in 4 bytes */
    __u8 protocol;
    __be16 flags;
};
#define GUE_VARIANT 0xc0
#define GUE_VARIANT_1 0x40
#define GUE_CONTROL 0x20
#define GUE_LENGTH 0x1f

/* 3GPP TS 29.281, 5.1. */
struct gtpu {
    __u8 flags;
    __u8 type;
    __be16 length; /* of all behind these 8 bytes */
    __be32 teid;
};
#define GTPU_VERSION_PT 0xf0
#define GTPU_VERSION_1 0x30
#define GTPU_E 0x04
#define GTPU_S 0x02
#define GTPU_PN 0x01
#define GTPU_ECHO_REQUEST 1
#define GTPU_G_PDU 255
/* Sequence number, N-PDU number and next extension: there if any of E, S and PN is. */
#define GTPU_OPTIONAL 4

/* As far as parse_outer looks: with the longest IPv4 header, or a few short IPv6 extension headers. */
#define OUTER_LOOK (ETH_HLEN + 2 * sizeof(struct ipv6hdr) + sizeof(struct udphdr) + 16)
/* Beyond this no tunnel header begins, and no inner frame. */
#define OUTER_FARTHEST 0x1ff
#define OUTER_EXTENSIONS 4

static __always_inline void note(struct outer *outer, enum mptm_reason reason)
{
    if (!outer->reason)
        outer->reason = reason;
}

static __always_inline int parse_vxlan(void *at, void *end, struct outer *outer)
{
    struct vxlan *header = at;

    if ((void *)(header + 1) > end)
        return 0;
    if (!(header->flags & VXLAN_I))
        note(outer, MPTM_DROP_TUNNEL_FLAGS);
    outer->endpoint.id = bpf_ntohl(header->vni) >> 8;
    outer->strip += sizeof(*header);
    return 1;
}

static __always_inline int parse_geneve(void *at, void *end, struct outer *outer)
{
    struct geneve *header = at;

    if ((void *)(header + 1) > end)
        return 0;
    if (header->version_length & ~GENEVE_OPTIONS)
        note(outer, MPTM_DROP_TUNNEL_VERSION);
    else if (header->flags & GENEVE_OAM)
        outer->is_control = 1;
    outer->is_critical = !!(header->flags & GENEVE_CRITICAL);
    if (header->type == bpf_htons(ETH_P_IP))
        outer->payload = PAYLOAD_IPV4;
    else if (header->type == bpf_htons(ETH_P_IPV6))
        outer->payload = PAYLOAD_IPV6;
    else if (header->type != bpf_htons(ETH_P_TEB))
        note(outer, MPTM_DROP_TUNNEL_PAYLOAD);
    outer->endpoint.id = bpf_ntohl(header->vni) >> 8;
    outer->options = (header->version_length & GENEVE_OPTIONS) * 4;
    outer->strip += sizeof(*header) + outer->options;
    return 1;
}

static __always_inline int parse_gue(void *at, void *end, struct outer *outer)
{
    struct gue *header = at;

    if ((void *)(header + 1) > end)
        return 0;
    outer->payload = PAYLOAD_IP;
    if ((header->version_length & GUE_VARIANT) == GUE_VARIANT_1)
        return 1;
    if (header->version_length & GUE_VARIANT)
        note(outer, MPTM_DROP_TUNNEL_VERSION);
    else if (header->version_length & GUE_CONTROL)
        outer->is_control = 1;
    else if (header->flags)
        note(outer, MPTM_DROP_TUNNEL_FLAGS);
    if (header->protocol == IPPROTO_IPIP)
        outer->payload = PAYLOAD_IPV4;
    else if (header->protocol == IPPROTO_IPV6)
        outer->payload = PAYLOAD_IPV6;
    else
        note(outer, MPTM_DROP_TUNNEL_PAYLOAD);
    outer->strip += sizeof(*header) + (header->version_length & GUE_LENGTH) * 4;
    return 1;
}

static __always_inline int parse_gtpu(void *at, void *end, struct outer *outer)
{
    struct gtpu *header = at;

    if ((void *)(header + 1) > end)
        return 0;
    outer->payload = PAYLOAD_IP;
    if ((header->flags & GTPU_VERSION_PT) != GTPU_VERSION_1)
        note(outer, MPTM_DROP_TUNNEL_VERSION);
    else if (header->type != GTPU_G_PDU)
        outer->is_control = 1;
    outer->is_echo = header->type == GTPU_ECHO_REQUEST;
    if (bpf_ntohs(header->length) != outer->length - outer->strip - sizeof(*header))
        note(outer, MPTM_DROP_TUNNEL_LENGTH);
    outer->endpoint.id = bpf_ntohl(header->teid);
    outer->strip += sizeof(*header);
    if (header->flags & (GTPU_E | GTPU_S | GTPU_PN))
        outer->strip += GTPU_OPTIONAL;
    return 1;
}

static __always_inline int parse_udp(void *data, void *end, struct outer *outer)
{
    __u32 at = outer->l4;
    struct udphdr *udp = data + at;
    struct mptm_udp_ports *ports;
    __u32 zero = 0;
    __u32 port;

    if (at > OUTER_FARTHEST || (void *)(udp + 1) > end)
        return 0;
    ports = bpf_map_lookup_elem(&udp_ports, &zero);
    if (!ports)
        return 0;
    port = bpf_ntohs(udp->dest);
    /* Of what was swapped, the verifier of Linux 6.12 knows no bounds any more. */
    barrier_var(port);
    outer->endpoint.port = port;
    outer->endpoint.protocol = ports->protocol[port & 0xffff];
    if (bpf_ntohs(udp->len) != outer->length - outer->l4)
        note(outer, MPTM_DROP_OUTER_LENGTH);
    outer->check = udp->check;
    outer->tunnel = outer->l4 + sizeof(*udp);
    outer->strip = outer->tunnel;
    switch (outer->endpoint.protocol) {
    case MPTM_PROTOCOL_VXLAN:
        return parse_vxlan(udp + 1, end, outer);
    case MPTM_PROTOCOL_GENEVE:
        return parse_geneve(udp + 1, end, outer);
    case MPTM_PROTOCOL_GUE:
        return parse_gue(udp + 1, end, outer);
    case MPTM_PROTOCOL_GTPU:
        return parse_gtpu(udp + 1, end, outer);
    case MPTM_PROTOCOL_FOU:
        outer->payload = PAYLOAD_IP;
        return 1;
    }
    return 0;
}

static __always_inline int parse_gre(void *data, void *end, struct outer *outer)
{
    __u32 at = outer->l4;
    struct gre *header = data + at;
    __be32 *words = (void *)(header + 1);

    if (at > OUTER_FARTHEST || (void *)(header + 1) > end)
        return 0;
    __u32 flags = bpf_ntohs(header->flags);

    outer->endpoint.protocol = MPTM_PROTOCOL_GRE;
    if (header->type == bpf_htons(ETH_P_TEB))
        outer->endpoint.protocol = MPTM_PROTOCOL_GRETAP;
    else if (header->type == bpf_htons(ETH_P_IP))
        outer->payload = PAYLOAD_IPV4;
    else if (header->type == bpf_htons(ETH_P_IPV6))
        outer->payload = PAYLOAD_IPV6;
    else
        return 0;
    if (flags & GRE_VERSION)
        note(outer, MPTM_DROP_TUNNEL_VERSION);
    else if (flags & GRE_MUST_BE_ZERO)
        note(outer, MPTM_DROP_TUNNEL_FLAGS);
    outer->tunnel = outer->l4;
    outer->strip = outer->l4 + sizeof(*header);
    if (flags & GRE_CHECKSUM) {
        outer->has_checksum = 1;
        outer->strip += sizeof(*words);
        words++;
    }
    if (flags & GRE_KEY) {
        if ((void *)(words + 1) > end)
            return 0;
        outer->endpoint.port = MPTM_GRE_KEY;
        outer->endpoint.id = bpf_ntohl(*words);
        outer->strip += sizeof(*words);
        words++;
    }
    if (flags & GRE_SEQUENCE) {
        if ((void *)(words + 1) > end)
            return 0;
        outer->has_sequence = 1;
        outer->sequence = bpf_ntohl(*words);
        outer->strip += sizeof(*words);
    }
    return 1;
}

/* What the IP header is followed by, at l4. */
static __always_inline int parse_transport(void *data, void *end, __u8 protocol, struct outer *outer)
{
    switch (protocol) {
    case IPPROTO_UDP:
        return parse_udp(data, end, outer);
    case IPPROTO_GRE:
        return parse_gre(data, end, outer);
    case IPPROTO_IPIP:
    case IPPROTO_IPV6:
        outer->endpoint.protocol = MPTM_PROTOCOL_IPIP;
        outer->payload = protocol == IPPROTO_IPIP ? PAYLOAD_IPV4 : PAYLOAD_IPV6;
        outer->strip = outer->l4;
        return 1;
    }
    return 0;
}

/* Returns the transport protocol; 0: nothing for us, which no protocol of ours has as its number. */
static __always_inline __u8 parse_outer_ipv4(void *data, void *end, __u32 length, struct outer *outer)
{
    struct iphdr *ip = data + ETH_HLEN;

    if ((void *)(ip + 1) > end)
        return 0;
    __u32 header = ip->ihl * 4;
    __u32 total = bpf_ntohs(ip->tot_len);

    if (ip->version != 4 || header < sizeof(*ip) || ip->frag_off & bpf_htons(IPV4_OFFSET))
        return 0;
    if (ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS))
        note(outer, MPTM_DROP_OUTER_FRAGMENT);
    if (total + ETH_HLEN > length || total < header)
        note(outer, MPTM_DROP_OUTER_LENGTH);
    map_ipv4(outer->endpoint.remote, &ip->saddr);
    map_ipv4(outer->endpoint.local, &ip->daddr);
    outer->ecn = ip->tos & ECN_MASK;
    outer->l4 = ETH_HLEN + header;
    outer->length = ETH_HLEN + total;
    return ip->protocol;
}

/* Passes extension headers that a host may have put between: Linux's tunnels send destination options (RFC
 * 2473, 4.1). */
static __noinline int skip_outer_extensions(struct xdp_md *ctx, struct outer *outer, __u32 next)
{
    struct fragment_header header;

    for (int i = 0; i <= OUTER_EXTENSIONS; i++) {
        if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_DESTINATION &&
            next != NEXT_FRAGMENT)
            return next;
        if (bpf_xdp_load_bytes(ctx, outer->l4, &header, sizeof(header)))
            return 0;
        if (next == NEXT_FRAGMENT) {
            if (header.offset & bpf_htons(FRAGMENT_OFFSET))
                return 0;
            if (header.offset & bpf_htons(FRAGMENT_MORE))
                note(outer, MPTM_DROP_OUTER_FRAGMENT);
            outer->l4 += sizeof(header);
        } else {
            /* Segments left, where a routing header has them: it is somebody else's yet. */
            if (next == NEXT_ROUTING && header.offset & bpf_htons(0x00ff))
                return 0;
            outer->l4 += (header.reserved + 1) * 8;
        }
        next = header.next;
    }
    return 0;
}

static __always_inline __u8 parse_outer_ipv6(struct xdp_md *ctx, void *data, void *end, __u32 length,
                                             struct outer *outer)
{
    struct ipv6hdr *ip = data + ETH_HLEN;

    if ((void *)(ip + 1) > end || ip->version != 6)
        return 0;
    __u32 total = sizeof(*ip) + bpf_ntohs(ip->payload_len);

    if (total + ETH_HLEN > length)
        note(outer, MPTM_DROP_OUTER_LENGTH);
    __builtin_memcpy(outer->endpoint.remote, &ip->saddr, 16);
    __builtin_memcpy(outer->endpoint.local, &ip->daddr, 16);
    outer->is_ipv6 = 1;
    outer->ecn = ip->flow_lbl[0] >> 4 & ECN_MASK;
    outer->l4 = ETH_HLEN + sizeof(*ip);
    outer->length = ETH_HLEN + total;
    /* The usual ones at once. */
    if (ip->nexthdr == IPPROTO_UDP || ip->nexthdr == IPPROTO_GRE)
        return ip->nexthdr;
    return skip_outer_extensions(ctx, outer, ip->nexthdr);
}

/* The tags go and the MAC addresses stay: `strip` is what lies before the EtherType, less the addresses. */
static __always_inline int parse_outer_vlan(void *data, void *end, __u32 length, struct outer *outer)
{
    struct vlan_tag *tag = data + ETH_HLEN;
    struct ethhdr *eth = data;

    if ((void *)(tag + 1) > end)
        return 0;
    outer->endpoint.protocol = MPTM_PROTOCOL_VLAN;
    outer->endpoint.id = bpf_ntohs(tag->tci) & VLAN_VID;
    outer->strip = sizeof(*tag);
    outer->length = length;
    if (eth->h_proto == bpf_htons(ETH_P_8021Q))
        return 1;
    if ((void *)(tag + 2) > end || tag->type != bpf_htons(ETH_P_8021Q))
        return 0;
    outer->endpoint.protocol = MPTM_PROTOCOL_QINQ;
    outer->endpoint.id = outer->endpoint.id << 12 | (bpf_ntohs(tag[1].tci) & VLAN_VID);
    outer->strip += sizeof(*tag);
    return 1;
}

static __always_inline int is_vlan_protocol(const struct outer *outer)
{
    return outer->endpoint.protocol == MPTM_PROTOCOL_VLAN || outer->endpoint.protocol == MPTM_PROTOCOL_QINQ;
}

/* Whether the frame has a tunnel header of a protocol that we speak; fills in `outer`, which is zero.
 * Verified once: what follows would be verified for each protocol otherwise. */
__noinline int parse_outer(struct xdp_md *ctx, struct outer *outer, __u32 length)
{
    if (!outer)
        return 0;
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    __u8 protocol;

    if ((void *)(eth + 1) > end)
        return 0;
    switch (eth->h_proto) {
    case bpf_htons(ETH_P_IP):
        protocol = parse_outer_ipv4(data, end, length, outer);
        break;
    case bpf_htons(ETH_P_IPV6):
        protocol = parse_outer_ipv6(ctx, data, end, length, outer);
        break;
    case bpf_htons(ETH_P_8021Q):
    case bpf_htons(ETH_P_8021AD):
        return parse_outer_vlan(data, end, length, outer);
    default:
        return 0;
    }
    return protocol && parse_transport(data, end, protocol, outer);
}

#endif
