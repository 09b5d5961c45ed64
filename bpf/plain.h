/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Plain packets: IPv4 without options or fragments, IPv6 without extension headers, untagged, for one. Nearly
 * all are. They can be read and changed without keeping much in mind, and what is known of their flow
 * (flows.h) holds for all of them. Everything here is inlined, so that it stays in registers.
 */
#ifndef MPTM_PLAIN_H
#define MPTM_PLAIN_H

#include <linux/tcp.h>

#include "flows.h"
#include "parse.h"

/* What there must be behind an IP header: ports. */
#define PLAIN_PORTS 4

/* Version 4, and a header of 20 bytes. */
#define PLAIN_IPV4 0x45

/*
 * Reads a packet whose IP header is at `at`, and of which no more than `room` bytes count. `inner` has its
 * l3, and is zero otherwise; its addresses go to `pair` instead. Returns whether it is plain.
 */
static __always_inline int read_plain_ipv4(void *at, void *end, __u32 room, struct inner *inner,
                                           struct pair *pair)
{
    struct iphdr *ip = at;

    if (at + sizeof(*ip) + PLAIN_PORTS > end)
        return 0;
    __u32 total = bpf_ntohs(ip->tot_len);

    if (*(__u8 *)at != PLAIN_IPV4 || ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET) ||
        total > room || total < sizeof(*ip) + PLAIN_PORTS)
        return 0;
    inner->kind = KIND_IPV4;
    inner->flags = ip->frag_off & bpf_htons(IPV4_DF) ? INNER_IPV4 | INNER_DF : INNER_IPV4;
    inner->tos = ip->tos;
    inner->ttl = ip->ttl;
    inner->protocol = ip->protocol;
    inner->l4 = inner->l3 + sizeof(*ip);
    inner->end = inner->l3 + total;
    if (has_ports(ip->protocol))
        inner->ports = *(__u32 *)(ip + 1);
    pair->source[0] = 0;
    pair->source[1] = mapped_low(ip->saddr);
    pair->destination[0] = 0;
    pair->destination[1] = mapped_low(ip->daddr);
    return 1;
}

static __always_inline int read_plain_ipv6(void *at, void *end, __u32 room, struct inner *inner,
                                           struct pair *pair)
{
    struct ipv6hdr *ip = at;

    if (at + sizeof(*ip) + PLAIN_PORTS > end)
        return 0;
    __u32 total = sizeof(*ip) + bpf_ntohs(ip->payload_len);
    __u32 first = bpf_ntohl(*(__be32 *)at);
    __u64 *addresses = at + offsetof(struct ipv6hdr, saddr);

    if (first >> 28 != 6 || !has_ports(ip->nexthdr) || total > room || total < sizeof(*ip) + PLAIN_PORTS)
        return 0;
    inner->kind = KIND_IPV6;
    inner->tos = first >> 20;
    inner->label = first & IPV6_LABEL;
    inner->ttl = ip->hop_limit;
    inner->protocol = ip->nexthdr;
    inner->l4 = inner->l3 + sizeof(*ip);
    inner->end = inner->l3 + total;
    inner->ports = *(__u32 *)(ip + 1);
    pair->source[0] = addresses[0];
    pair->source[1] = addresses[1];
    pair->destination[0] = addresses[2];
    pair->destination[1] = addresses[3];
    return 1;
}

/* The same of either, as the EtherType says. */
static __always_inline int read_plain(__be16 type, void *at, void *end, __u32 room, struct inner *inner,
                                      struct pair *pair)
{
    if (type == bpf_htons(ETH_P_IP))
        return read_plain_ipv4(at, end, room, inner, pair);
    return type == bpf_htons(ETH_P_IPV6) && read_plain_ipv6(at, end, room, inner, pair);
}

/* Whether it is a TCP SYN, or may be one: those have options that a tunnel may have to change. */
static __always_inline int may_be_syn(void *l4, void *end, const struct inner *inner)
{
    struct tcphdr *tcp = l4;

    return inner->protocol == IPPROTO_TCP && ((void *)(tcp + 1) > end || tcp->syn);
}

static __always_inline void put_mac(void *at, const __u8 *mac)
{
    const __u16 *from = (const __u16 *)mac;
    __u16 *to = at;

    to[0] = from[0];
    to[1] = from[1];
    to[2] = from[2];
}

/* A frame's two MAC addresses, as words. */
struct macs {
    __u32 words[3];
};

static __always_inline struct macs macs_at(const void *at)
{
    const __u32 *words = at;

    return (struct macs){{words[0], words[1], words[2]}};
}

#endif
