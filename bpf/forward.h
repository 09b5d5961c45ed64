/* SPDX-License-Identifier: GPL-2.0-only */
/* What a router does to a packet that it forwards: TTL, ECN, MAC addresses. */
#ifndef MPTM_FORWARD_H
#define MPTM_FORWARD_H

#include "csum.h"
#include "maps.h"
#include "parse.h"
#include "stats.h"

/* Writes a MAC address over the frame's destination, unless that is a group or there is none to write. */
static __always_inline void set_destination(__u8 *frame, const __u8 *mac)
{
    if (frame[0] & 1)
        return;
    if (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5])
        __builtin_memcpy(frame, mac, ETH_ALEN);
}

static __always_inline int is_same_mac(const __u8 *a, const __u8 *b)
{
    return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5])) ==
           0;
}

static __always_inline int is_ip(const struct inner *inner)
{
    return inner->kind == KIND_IPV4 || inner->kind == KIND_IPV6;
}

/* One word of an IPv4 header becomes another: the checksum follows (RFC 1624, eqn. 3). */
static __always_inline void mend_ipv4(struct iphdr *ip, __u16 old, __u16 new)
{
    ip->check = csum_fold((__u16)~ip->check + (__u16)~old + new);
}

/* Takes one from TTL or hop limit, which `inner` follows. Returns 0, or a drop. */
static __always_inline int decrement_ttl(void *data, void *end, struct inner *inner)
{
    __u32 l3 = inner->l3;

    if (!is_ip(inner))
        return 0;
    if (inner->ttl <= 1)
        return DROP(MPTM_DROP_TTL);
    if (l3 > INNER_FARTHEST)
        return DROP(MPTM_DROP_MALFORMED);
    inner->ttl--;
    if (inner->kind == KIND_IPV4) {
        struct iphdr *ip = data + l3;

        if ((void *)(ip + 1) > end)
            return DROP(MPTM_DROP_MALFORMED);
        /* TTL and protocol are one word of the checksum. */
        mend_ipv4(ip, *(__u16 *)&ip->ttl, bpf_htons(inner->ttl << 8 | ip->protocol));
        ip->ttl = inner->ttl;
    } else {
        struct ipv6hdr *ip = data + l3;

        if ((void *)(ip + 1) > end)
            return DROP(MPTM_DROP_MALFORMED);
        ip->hop_limit = inner->ttl;
    }
    return 0;
}

/* Whether the network marked congestion on a packet that can't bear the mark (RFC 6040, 4.2). */
static __always_inline int is_marked_in_vain(const struct inner *inner, __u32 outer)
{
    return inner->kind != KIND_ARP && !(inner->tos & ECN_MASK) && outer == ECN_CE;
}

/*
 * What the network said about congestion on the outer header becomes the inner header's (RFC 6040, 4.2,
 * figure 4). Returns 0, or a drop.
 */
static __always_inline int join_ecn(void *data, void *end, struct inner *inner, __u32 outer)
{
    __u32 ecn = inner->tos & ECN_MASK;
    __u32 l3 = inner->l3;

    /* CE is never taken back, and ECT(1) may stand for less congestion than CE. */
    if (inner->kind == KIND_ARP || !ecn || ecn == ECN_CE || (outer != ECN_CE && outer != ECN_ECT_1) ||
        outer == ecn)
        return 0;
    if (l3 > INNER_FARTHEST)
        return DROP(MPTM_DROP_MALFORMED);
    __u8 tos = (inner->tos & ~ECN_MASK) | outer;

    inner->tos = tos;
    if (inner->kind == KIND_IPV4) {
        struct iphdr *ip = data + l3;

        if ((void *)(ip + 1) > end)
            return DROP(MPTM_DROP_MALFORMED);
        /* Version, header length and TOS are one word of the checksum. */
        __u16 old = *(__u16 *)ip;

        ip->tos = tos;
        mend_ipv4(ip, old, *(__u16 *)ip);
    } else {
        struct ipv6hdr *ip = data + l3;

        if ((void *)(ip + 1) > end)
            return DROP(MPTM_DROP_MALFORMED);
        /* The traffic class lies across two bytes, and ECN in the second one. */
        ip->flow_lbl[0] = (ip->flow_lbl[0] & ~(ECN_MASK << 4)) | outer << 4;
    }
    return 0;
}

#endif
