/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Telling a sender that its packet is too big for its tunnel: ICMP "fragmentation needed" (RFC 792, RFC 1191)
 * and ICMPv6 "packet too big" (RFC 4443, 3.2), as path MTU discovery wants it.
 */
#ifndef MPTM_ICMP_H
#define MPTM_ICMP_H

#include "bounds.h"
#include "csum.h"
#include "parse.h"
#include "stats.h"

/* What every IPv4 host takes, and every IPv6 link carries: no MTU below that is announced. */
#define IPV4_LEAST_MTU 576
#define IPV6_LEAST_MTU 1280

/* The answer goes back over this, and is no longer than the least MTU (RFC 1812, 4.3.2.3; RFC 4443, 2.4). */
struct icmp4_answer {
    struct iphdr ip;
    __u8 type;
    __u8 code;
    __be16 checksum;
    __be16 unused;
    __be16 mtu;
};
struct icmp6_answer {
    struct ipv6hdr ip;
    __u8 type;
    __u8 code;
    __be16 checksum;
    __be32 mtu;
};
#define ICMP4_QUOTE (IPV4_LEAST_MTU - sizeof(struct icmp4_answer))
#define ICMP6_QUOTE (IPV6_LEAST_MTU - sizeof(struct icmp6_answer))

#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4
#define ICMP_IS_QUERY(type) ((type) == 0 || (type) == 8 || (type) == 13 || (type) == 14)
#define ICMPV6_PACKET_TOO_BIG 2
#define ICMPV6_FIRST_QUERY 128
/* As Linux marks its own: internetwork control (RFC 1812, 4.3.2.5). */
#define ICMP_TOS 0xc0

/* How many answers a CPU gives in a second, and in one go: Linux's own defaults. */
#define ICMP_PER_SECOND 1000
#define ICMP_BURST 50
#define SECOND 1000000000ULL

struct icmp_budget {
    __u64 since; /* bpf_ktime_get_ns of when the last token came */
    __u64 tokens;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct icmp_budget);
} icmp_budgets SEC(".maps");

static __always_inline int may_answer(void)
{
    __u32 zero = 0;
    struct icmp_budget *budget = bpf_map_lookup_elem(&icmp_budgets, &zero);

    if (!budget)
        return 0;
    __u64 now = bpf_ktime_get_ns();
    __u64 fresh = (now - budget->since) / (SECOND / ICMP_PER_SECOND);

    if (fresh) {
        budget->tokens = fresh + budget->tokens < ICMP_BURST ? fresh + budget->tokens : ICMP_BURST;
        budget->since = now;
    }
    if (!budget->tokens)
        return 0;
    budget->tokens--;
    return 1;
}

/* Errors are not answered with errors, nor are later fragments (RFC 1122, 3.2.2; RFC 4443, 2.4). */
static __always_inline int is_answerable(struct xdp_md *ctx, const struct inner *inner)
{
    __u8 type;

    if (inner->flags & INNER_LATER)
        return 0;
    if (inner->protocol != (inner->kind == KIND_IPV6 ? NEXT_ICMPV6 : IPPROTO_ICMP) || !inner->l4)
        return 1;
    if (bpf_xdp_load_bytes(ctx, inner->l4, &type, sizeof(type)))
        return 0;
    return inner->kind == KIND_IPV6 ? type >= ICMPV6_FIRST_QUERY : ICMP_IS_QUERY(type);
}

/* Puts `room` bytes between the Ethernet header, with its tags, and the packet, of which `keep` bytes stay;
 * the MAC addresses change places. */
static __always_inline int turn_around(struct xdp_md *ctx, const struct inner *inner, __u32 room, __u32 keep,
                                       __u32 length)
{
    __u8 head[ETH_HLEN + VLAN_TAGS * sizeof(struct vlan_tag)];
    __u8 mac[ETH_ALEN];
    __u32 size = within(inner->l3, ETH_HLEN, sizeof(head));

    if (!size)
        return 0;
    if (inner->l3 + keep < length && bpf_xdp_adjust_tail(ctx, (int)(inner->l3 + keep - length)))
        return 0;
    if (bpf_xdp_load_bytes(ctx, 0, head, size) || bpf_xdp_adjust_head(ctx, -(int)room))
        return 0;
    __builtin_memcpy(mac, head, ETH_ALEN);
    __builtin_memcpy(head, head + ETH_ALEN, ETH_ALEN);
    __builtin_memcpy(head + ETH_ALEN, mac, ETH_ALEN);
    return !bpf_xdp_store_bytes(ctx, 0, head, size);
}

static __always_inline int answer_ipv4(struct xdp_md *ctx, const struct inner *inner, __u32 mtu, __u32 length)
{
    __u32 keep = inner->end - inner->l3;
    __u32 l3 = inner->l3;

    if (keep > ICMP4_QUOTE)
        keep = ICMP4_QUOTE;
    if (!turn_around(ctx, inner, sizeof(struct icmp4_answer), keep, length))
        return 0;
    /* Not before: the stack has room for one of the two. */
    struct icmp4_answer answer = {};
    answer.ip.version = 4;
    answer.ip.ihl = sizeof(answer.ip) / 4;
    answer.ip.tos = ICMP_TOS;
    answer.ip.tot_len = bpf_htons(sizeof(answer) + keep);
    answer.ip.frag_off = bpf_htons(IPV4_DF);
    answer.ip.ttl = 64;
    answer.ip.protocol = IPPROTO_ICMP;
    __builtin_memcpy(&answer.ip.saddr, inner->destination + 12, 4);
    __builtin_memcpy(&answer.ip.daddr, inner->source + 12, 4);
    answer.ip.check = csum_fold(csum_words(&answer.ip, sizeof(answer.ip)));
    answer.type = ICMP_UNREACHABLE;
    answer.code = ICMP_FRAGMENTATION_NEEDED;
    answer.mtu = bpf_htons(mtu < IPV4_LEAST_MTU ? IPV4_LEAST_MTU : mtu);

    __u32 sum = csum_words(&answer.type, sizeof(answer) - sizeof(answer.ip));

    answer.checksum = csum_fold(csum_range(ctx, l3 + sizeof(answer), keep, sum));
    return !bpf_xdp_store_bytes(ctx, l3, &answer, sizeof(answer));
}

static __always_inline int answer_ipv6(struct xdp_md *ctx, const struct inner *inner, __u32 mtu, __u32 length)
{
    __u32 keep = inner->end - inner->l3;
    __u32 l3 = inner->l3;

    if (keep > ICMP6_QUOTE)
        keep = ICMP6_QUOTE;
    if (!turn_around(ctx, inner, sizeof(struct icmp6_answer), keep, length))
        return 0;
    /* Not before: the stack has room for one of the two. */
    struct icmp6_answer answer = {};
    __u32 message = sizeof(answer) - sizeof(answer.ip) + keep;

    answer.ip.version = 6;
    answer.ip.payload_len = bpf_htons(message);
    answer.ip.nexthdr = NEXT_ICMPV6;
    answer.ip.hop_limit = 64;
    __builtin_memcpy(&answer.ip.saddr, inner->destination, 16);
    __builtin_memcpy(&answer.ip.daddr, inner->source, 16);
    answer.type = ICMPV6_PACKET_TOO_BIG;
    answer.mtu = bpf_htonl(mtu < IPV6_LEAST_MTU ? IPV6_LEAST_MTU : mtu);

    __u32 sum = csum_pseudo(inner->destination, inner->source, NEXT_ICMPV6, message) +
                csum_words(&answer.type, sizeof(answer) - sizeof(answer.ip));

    answer.checksum = csum_fold(csum_range(ctx, l3 + sizeof(answer), keep, sum));
    return !bpf_xdp_store_bytes(ctx, l3, &answer, sizeof(answer));
}

/*
 * Makes the frame an answer that says `mtu`. The answer comes from the address that the packet was for, which
 * is the one source that no filter of the sender's will mind. IPv4 packets without Don't Fragment, which a
 * router would have to fragment, are answered like the others: Linux, for one, then fragments them itself.
 */
__noinline int too_big(struct xdp_md *ctx, struct inner *inner, __u32 mtu, __u32 length)
{
    if (!inner)
        return DROP(MPTM_DROP_TOO_BIG);
    int is_ipv6 = inner->kind == KIND_IPV6;
    int is_ipv4 = inner->kind == KIND_IPV4;
    __u32 reason = is_ipv4 && !(inner->flags & INNER_DF) ? MPTM_DROP_TOO_BIG_NO_DF : MPTM_DROP_TOO_BIG;

    if ((!is_ipv6 && !is_ipv4) || !is_answerable(ctx, inner))
        return DROP(reason);
    if (!may_answer())
        return DROP(MPTM_DROP_ICMP_LIMIT);
    if (is_ipv6 ? answer_ipv6(ctx, inner, mtu, length) : answer_ipv4(ctx, inner, mtu, length))
        return ANSWER(reason);
    return DROP(MPTM_DROP_NO_ROOM);
}

#endif
