/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Parsing of what workloads send and tunnels carry: who it is from and for, and what encapsulation wants to
 * know of it. All bounds checks are inside, so that callers read like a state machine.
 */
#ifndef MPTM_PARSE_H
#define MPTM_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "linear.h"

#define VLAN_TAGS 2
#define VLAN_VID 0x0fff
#define VLAN_PCP_SHIFT 13
#define IPV4_DF 0x4000
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET 0x1fff
#define IPV4_MAX_HEADER 60
#define IPV6_LABEL 0x000fffff
#define ECN_MASK 0x03
#define ECN_ECT_1 0x01
#define ECN_CE 0x03

/* Linux's uapi has no names for these (RFC 8200, 4.1; RFC 4302). */
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_AUTHENTICATION 51
#define NEXT_ICMPV6 58
#define NEXT_DESTINATION 60
/* How many extension headers of a packet are looked behind. */
#define IPV6_EXTENSIONS 6

/* Neighbour discovery (RFC 4861, 4.3 and 4.4). */
#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_HOP_LIMIT 255

/* As far as parse_inner looks directly: to the end of a neighbour discovery message's target. */
#define INNER_LOOK                                                                                           \
    (ETH_HLEN + VLAN_TAGS * sizeof(struct vlan_tag) + sizeof(struct ipv6hdr) + sizeof(struct nd_message))
/* Beyond this no inner header begins. */
#define INNER_FARTHEST 0x3ff

struct vlan_tag {
    __be16 tci;
    __be16 type; /* of what follows */
};

/* RFC 826, for Ethernet and IPv4. */
struct arp {
    __be16 hardware;
    __be16 protocol;
    __u8 hardware_len;
    __u8 protocol_len;
    __be16 operation;
    __u8 sender_mac[6];
    __u8 sender[4];
    __u8 target_mac[6];
    __u8 target[4];
};

/* RFC 4861, 4.3 and 4.4, without options. */
struct nd_message {
    __u8 type;
    __u8 code;
    __be16 checksum;
    __be32 flags;
    __u8 target[16];
};

/* RFC 8200, 4.5. */
struct fragment_header {
    __u8 next;
    __u8 reserved;
    __be16 offset; /* 13 bits, 2 reserved, and whether more follow */
    __be32 id;
};
#define FRAGMENT_OFFSET 0xfff8
#define FRAGMENT_MORE 0x0001

enum kind {
    KIND_OTHER,     /* neither IP nor ARP, or nothing that has one destination */
    KIND_MALFORMED, /* wrong headers or lengths */
    KIND_GROUP,     /* for several: multicast, broadcast */
    KIND_IPV4,
    KIND_IPV6,
    KIND_ARP,
    KIND_SOLICITATION,  /* neighbour discovery: who has the target? */
    KIND_ADVERTISEMENT, /* the target is here */
};

#define INNER_DF (1 << 0)       /* an IPv4 packet that may not be fragmented */
#define INNER_FRAGMENT (1 << 1) /* a part of a datagram */
#define INNER_LATER (1 << 2)    /* and not its first part */
#define INNER_EXTENDED (1 << 3) /* it has IPv6 extension headers */
#define INNER_IPV4 (1 << 4)     /* an IPv4 packet, whatever its kind */
#define INNER_FLOOD (1 << 5)    /* an IP packet in a frame for several: may be flooded */

/* Who a frame is from and for. For ARP these are sender and target; for a solicitation the destination is the
 * target, and for an advertisement the source is. */
struct inner {
    __u8 source[16] __attribute__((aligned(8))); /* as in abi.h */
    __u8 destination[16] __attribute__((aligned(8)));
    __u32 ports;   /* both, as they stand in the packet; zero where there are none, and for every fragment */
    __u32 label;   /* IPv6 flow label */
    __u32 l3;      /* where in the frame the IP header is, or ARP */
    __u32 l4;      /* where the transport header is; 0 if it is not here or not known */
    __u32 end;     /* behind the IP packet */
    __u32 frame;   /* behind all of it, padding too */
    __u16 tags;    /* bytes of VLAN tags */
    __u8 kind;     /* enum kind */
    __u8 flags;    /* INNER_* */
    __u8 protocol; /* of the transport header */
    __u8 ttl;      /* or hop limit; 0 if it is no IP packet */
    __u8 tos;      /* or traffic class */
    __u8 pcp;      /* of its tag, else by its DSCP */
};

static __always_inline void map_ipv4(__u8 *to, const void *address)
{
    __u32 *words = (__u32 *)to;

    words[0] = 0;
    words[1] = 0;
    words[2] = bpf_htonl(0xffff);
    __builtin_memcpy(&words[3], address, 4);
}

static __always_inline int is_vlan(__be16 type)
{
    return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/* fe80::/10. */
static __always_inline int is_link_local(const __u8 *address)
{
    return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

/* Asked by nobody: 0.0.0.0 is the sender of an ARP probe (RFC 5227), whose mapped form has a third word, and
 * :: the source of one by neighbour discovery (RFC 4862, 5.4.2). */
static __always_inline int is_probe(const struct inner *inner)
{
    const __u32 *words = (const __u32 *)inner->source;

    return (words[0] | words[1] | words[3]) == 0 &&
           words[2] == (inner->kind == KIND_ARP ? bpf_htonl(0xffff) : 0);
}

static __always_inline int has_ports(__u8 protocol)
{
    return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

static __always_inline enum kind parse_ipv4(void *data, void *end, struct inner *inner)
{
    __u32 at = inner->l3;
    struct iphdr *ip = data + at;

    if (at > INNER_FARTHEST || (void *)(ip + 1) > end)
        return KIND_MALFORMED;
    __u32 header = ip->ihl * 4;
    __u32 total = bpf_ntohs(ip->tot_len);

    if (ip->version != 4 || header < sizeof(*ip) || total < header || inner->l3 + total > inner->end)
        return KIND_MALFORMED;
    inner->end = inner->l3 + total;
    inner->flags = INNER_IPV4;
    map_ipv4(inner->source, &ip->saddr);
    map_ipv4(inner->destination, &ip->daddr);
    inner->protocol = ip->protocol;
    inner->ttl = ip->ttl;
    inner->tos = ip->tos;
    if (ip->frag_off & bpf_htons(IPV4_DF))
        inner->flags |= INNER_DF;
    if (ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET))
        inner->flags |= INNER_FRAGMENT;
    if (ip->frag_off & bpf_htons(IPV4_OFFSET))
        inner->flags |= INNER_LATER;
    else
        inner->l4 = inner->l3 + header;
    /* All fragments of a datagram must hash alike, and only the first has ports. */
    if (!(inner->flags & INNER_FRAGMENT) && has_ports(ip->protocol)) {
        __u32 *ports = (void *)ip + header;

        if ((void *)(ports + 1) <= end && total >= header + sizeof(*ports))
            inner->ports = *ports;
    }
    /* Multicast and above: class D and E, and the limited broadcast address. */
    return (bpf_ntohl(ip->daddr) >> 28) >= 0xe ? KIND_GROUP : KIND_IPV4;
}

/*
 * Looks behind extension headers, as far as there are not too many: to the transport header, or to what is
 * not known.
 */
static __noinline int skip_extensions(struct xdp_md *ctx, struct inner *inner)
{
    __u32 at = inner->l3 + sizeof(struct ipv6hdr);
    struct fragment_header header;

    for (int i = 0; i < IPV6_EXTENSIONS; i++) {
        __u8 next = inner->protocol;
        __u32 length;

        if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_FRAGMENT &&
            next != NEXT_AUTHENTICATION && next != NEXT_DESTINATION) {
            inner->l4 = at;
            return KIND_IPV6;
        }
        if (at + sizeof(header) > inner->end || bpf_xdp_load_bytes(ctx, at, &header, sizeof(header)))
            return KIND_MALFORMED;
        inner->flags |= INNER_EXTENDED;
        inner->protocol = header.next;
        /* In 8 bytes, without the first 8; in 4 bytes, without the first 8, for authentication. */
        length = (header.reserved + 1) * 8;
        if (next == NEXT_AUTHENTICATION)
            length = (header.reserved + 2) * 4;
        if (next == NEXT_FRAGMENT) {
            length = sizeof(header);
            if (header.offset & bpf_htons(FRAGMENT_OFFSET | FRAGMENT_MORE))
                inner->flags |= INNER_FRAGMENT;
            if (header.offset & bpf_htons(FRAGMENT_OFFSET)) {
                inner->flags |= INNER_LATER;
                return KIND_IPV6;
            }
        }
        at += length;
        if (at > inner->end)
            return KIND_MALFORMED;
    }
    return KIND_IPV6;
}

/* Neighbour discovery is about its target. Other messages are for whom their packet is for. */
static __always_inline enum kind parse_nd(void *data, void *end, struct inner *inner, enum kind kind)
{
    __u32 at = inner->l3 + sizeof(struct ipv6hdr);
    struct nd_message *message = data + at;

    if (at > INNER_FARTHEST || (void *)(message + 1) > end || inner->ttl != ND_HOP_LIMIT ||
        message->code != 0 || at + sizeof(*message) > inner->end)
        return kind;
    if (message->type == ND_SOLICITATION) {
        __builtin_memcpy(inner->destination, message->target, sizeof(message->target));
        return KIND_SOLICITATION;
    }
    if (message->type == ND_ADVERTISEMENT && kind == KIND_IPV6) {
        __builtin_memcpy(inner->source, message->target, sizeof(message->target));
        return KIND_ADVERTISEMENT;
    }
    return kind;
}

static __always_inline enum kind parse_ipv6(struct xdp_md *ctx, void *data, void *end, struct inner *inner,
                                            int has_neighbours)
{
    __u32 at = inner->l3;
    struct ipv6hdr *ip = data + at;

    if (at > INNER_FARTHEST || (void *)(ip + 1) > end)
        return KIND_MALFORMED;
    __u32 total = sizeof(*ip) + bpf_ntohs(ip->payload_len);
    __u32 first = bpf_ntohl(*(__be32 *)ip);

    if (ip->version != 6 || inner->l3 + total > inner->end)
        return KIND_MALFORMED;
    inner->end = inner->l3 + total;
    __builtin_memcpy(inner->source, &ip->saddr, sizeof(inner->source));
    __builtin_memcpy(inner->destination, &ip->daddr, sizeof(inner->destination));
    inner->protocol = ip->nexthdr;
    inner->ttl = ip->hop_limit;
    inner->tos = first >> 20;
    inner->label = first & IPV6_LABEL;

    enum kind kind = inner->destination[0] == 0xff ? KIND_GROUP : KIND_IPV6;

    if (inner->protocol == NEXT_ICMPV6 && has_neighbours) {
        inner->l4 = inner->l3 + sizeof(*ip);
        return parse_nd(data, end, inner, kind);
    }
    if (has_ports(inner->protocol)) {
        __u32 *ports = (void *)(ip + 1);

        inner->l4 = inner->l3 + sizeof(*ip);
        if ((void *)(ports + 1) <= end && total >= sizeof(*ip) + sizeof(*ports))
            inner->ports = *ports;
        return kind;
    }
    if (skip_extensions(ctx, inner) == KIND_MALFORMED)
        return KIND_MALFORMED;
    if (has_ports(inner->protocol) && inner->l4 && !(inner->flags & INNER_FRAGMENT) &&
        inner->l4 + sizeof(inner->ports) <= inner->end)
        bpf_xdp_load_bytes(ctx, inner->l4, &inner->ports, sizeof(inner->ports));
    return kind;
}

static __always_inline enum kind parse_arp(void *data, void *end, struct inner *inner)
{
    __u32 at = inner->l3;
    struct arp *arp = data + at;

    if (at > INNER_FARTHEST || (void *)(arp + 1) > end || at + sizeof(*arp) > inner->end)
        return KIND_MALFORMED;
    if (arp->hardware != bpf_htons(1) || arp->protocol != bpf_htons(ETH_P_IP) || arp->hardware_len != 6 ||
        arp->protocol_len != 4)
        return KIND_OTHER;
    map_ipv4(inner->source, arp->sender);
    map_ipv4(inner->destination, arp->target);
    return KIND_ARP;
}

static __always_inline enum kind parse_frame(struct xdp_md *ctx, void *data, void *end, __u32 macs, __u32 at,
                                             struct inner *inner)
{
    /* Checked by the caller; but a compiler may have checked it in a way that the verifier learns nothing
     * from. */
    barrier_var(macs);
    if (macs > INNER_FARTHEST)
        return KIND_MALFORMED;

    void *destination = data + macs;
    __be16 type = 0;

    if (destination + ETH_ALEN > end || data + at + sizeof(type) > end || at + sizeof(type) > inner->end)
        return KIND_MALFORMED;
    int is_group = *(__u8 *)destination & 1;

    type = *(__be16 *)(data + at);
    at += sizeof(type);
    for (int i = 0; i < VLAN_TAGS && is_vlan(type); i++) {
        struct vlan_tag *tag = data + at;

        if ((void *)(tag + 1) > end || at + sizeof(*tag) > inner->end)
            return KIND_MALFORMED;
        if (i == 0)
            inner->pcp = bpf_ntohs(tag->tci) >> VLAN_PCP_SHIFT;
        type = tag->type;
        at += sizeof(*tag);
        inner->tags += sizeof(*tag);
    }
    inner->l3 = at;
    if (type == bpf_htons(ETH_P_ARP))
        return parse_arp(data, end, inner);

    enum kind kind;

    if (type == bpf_htons(ETH_P_IP))
        kind = parse_ipv4(data, end, inner);
    else if (type == bpf_htons(ETH_P_IPV6))
        kind = parse_ipv6(ctx, data, end, inner, 1);
    else
        return is_group ? KIND_GROUP : KIND_OTHER;
    if (!inner->tags)
        inner->pcp = inner->tos >> 5;
    /* A packet for one, in a frame for all, is nobody's to forward, unless it is flooded. */
    if (is_group && (kind == KIND_IPV4 || kind == KIND_IPV6 || kind == KIND_GROUP)) {
        kind = KIND_GROUP;
        inner->flags |= INNER_FLOOD;
    }
    return kind;
}

/* In the place of where the MAC addresses are: there are none, the IP header begins at once. */
#define NO_MACS ((__u32)-1)

/*
 * Reads a frame. `macs` is where its MAC addresses are, `at` its EtherType, or its IP header with NO_MACS;
 * `end` is behind all of it that counts: what lies there is padding. Everything is from the beginning of the
 * buffer. Returns the kind, which is also in `inner`.
 */
static __always_inline int parse_inner(struct xdp_md *ctx, __u32 macs, __u32 at, __u32 end,
                                       struct inner *inner)
{
    enum kind kind;

    __builtin_memset(inner, 0, sizeof(*inner));
    inner->end = end;
    inner->frame = end;
    inner->l3 = at;
    inner->kind = KIND_MALFORMED;
    if (at > INNER_FARTHEST || (macs > INNER_FARTHEST && macs != NO_MACS))
        return KIND_MALFORMED;
    linearize(ctx, end, at - 2 * ETH_ALEN + INNER_LOOK);

    void *data = (void *)(long)ctx->data;
    void *data_end = (void *)(long)ctx->data_end;

    if (macs != NO_MACS) {
        kind = parse_frame(ctx, data, data_end, macs, at, inner);
    } else {
        __u8 *version = data + at;

        if ((void *)(version + 1) > data_end || at >= end)
            return KIND_MALFORMED;
        kind = KIND_MALFORMED;
        if (*version >> 4 == 4)
            kind = parse_ipv4(data, data_end, inner);
        else if (*version >> 4 == 6)
            kind = parse_ipv6(ctx, data, data_end, inner, 0);
    }
    inner->kind = kind;
    return kind;
}

/*
 * The same as a function of its own, which the verifier looks at once, whatever the outer header may have
 * been. Where the frame begins at a place that is known, inlining is faster (measured: 15 ns of 346), and
 * verified as fast.
 */
__noinline int parse_inner_anywhere(struct xdp_md *ctx, __u32 macs, __u32 at, __u32 end, struct inner *inner)
{
    return inner ? parse_inner(ctx, macs, at, end, inner) : KIND_MALFORMED;
}

#endif
