/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Plain packets: IPv4 without options or fragments, IPv6 without extension headers, untagged, for one. Nearly
 * all are. They can be read and changed without keeping much in mind, and what is known of their flow
 * (flows.h) holds for all of them. Everything here is inlined, so that it stays in registers, and is made
 * once for each IP version, so that nothing has to be asked twice.
 */
#ifndef MPTM_PLAIN_H
#define MPTM_PLAIN_H

#include <linux/tcp.h>

#include "flows.h"
#include "forward.h"
#include "parse.h"

/* What there must be behind an IP header: ports. */
#define PLAIN_PORTS 4

/* Version 4, and a header of 20 bytes. */
#define PLAIN_IPV4 0x45

struct plain {
    __u64 addresses[4]; /* IPv4: both in the first, as in the packet; IPv6: source and destination */
    __u32 total;        /* bytes of the IP packet */
    __u32 ports;
    __u32 label;
    __u8 tos;
    __u8 ttl;
    __u8 protocol;
    __u8 flags; /* INNER_* */
};

static __always_inline int read_plain_ipv4(void *at, void *end, struct plain *plain)
{
    struct iphdr *ip = at;

    if (at + sizeof(*ip) + PLAIN_PORTS > end)
        return 0;
    plain->total = bpf_ntohs(ip->tot_len);
    if (*(__u8 *)at != PLAIN_IPV4 || ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET) ||
        plain->total < sizeof(*ip) + PLAIN_PORTS)
        return 0;
    plain->flags = ip->frag_off & bpf_htons(IPV4_DF) ? INNER_IPV4 | INNER_DF : INNER_IPV4;
    plain->tos = ip->tos;
    plain->ttl = ip->ttl;
    plain->protocol = ip->protocol;
    plain->label = 0;
    plain->ports = has_ports(ip->protocol) ? *(__u32 *)(ip + 1) : 0;
    plain->addresses[0] = *(__u64 *)&ip->saddr;
    return 1;
}

static __always_inline int read_plain_ipv6(void *at, void *end, struct plain *plain)
{
    struct ipv6hdr *ip = at;

    if (at + sizeof(*ip) + PLAIN_PORTS > end)
        return 0;
    __u32 first = bpf_ntohl(*(__be32 *)at);
    __u64 *addresses = at + offsetof(struct ipv6hdr, saddr);

    plain->total = sizeof(*ip) + bpf_ntohs(ip->payload_len);
    if (first >> 28 != 6 || !has_ports(ip->nexthdr) || plain->total < sizeof(*ip) + PLAIN_PORTS)
        return 0;
    plain->flags = 0;
    plain->tos = first >> 20;
    plain->label = first & IPV6_LABEL;
    plain->ttl = ip->hop_limit;
    plain->protocol = ip->nexthdr;
    plain->ports = *(__u32 *)(ip + 1);
    plain->addresses[0] = addresses[0];
    plain->addresses[1] = addresses[1];
    plain->addresses[2] = addresses[2];
    plain->addresses[3] = addresses[3];
    return 1;
}

static __always_inline int read_plain(void *at, void *end, int is_ipv6, struct plain *plain)
{
    return is_ipv6 ? read_plain_ipv6(at, end, plain) : read_plain_ipv4(at, end, plain);
}

/* No driver parts less than this from what is behind it. */
#define PLAIN_BUFFER 2048

/* The frame's length, whose first buffer has `linear` bytes, and whose IP packet ends after `end`. To ask for
 * it is a call, so it is only asked where it may be another. */
static __always_inline __u32 plain_length(struct xdp_md *ctx, __u32 linear, __u32 end)
{
    return end == linear && linear <= PLAIN_BUFFER ? linear : bpf_xdp_get_buff_len(ctx);
}

static __always_inline __u32 plain_header(int is_ipv6)
{
    return is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
}

/* Takes one from TTL or hop limit, which is more than one. Of an IPv4 header the sum stays what it is. */
static __always_inline void hop_plain(void *at, int is_ipv6)
{
    struct ipv6hdr *ipv6 = at;
    struct iphdr *ip = at;

    if (is_ipv6) {
        ipv6->hop_limit--;
        return;
    }
    /* RFC 1624, eqn. 3, of a word that gets 0x100 less. */
    __u32 check = ip->check + bpf_htons(0x100);

    ip->check = check + (check >= 0xffff);
    ip->ttl--;
}

/* Whether it is a TCP SYN, or may be one: those have options that a tunnel may have to change. */
static __always_inline int may_be_syn(void *l4, void *end, const struct plain *plain)
{
    struct tcphdr *tcp = l4;

    return plain->protocol == IPPROTO_TCP && ((void *)(tcp + 1) > end || tcp->syn);
}

/* Addresses in eight bytes, of which the packet's two are no matter. */
static __always_inline int is_at(const void *frame, const __u8 *mac)
{
    return *(const __u32 *)frame == *(const __u32 *)mac &&
           *(const __u16 *)(frame + 4) == *(const __u16 *)(mac + 4);
}

static __always_inline void put_mac(void *at, const __u8 *mac)
{
    *(__u32 *)at = *(const __u32 *)mac;
    *(__u16 *)(at + 4) = *(const __u16 *)(mac + 4);
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
