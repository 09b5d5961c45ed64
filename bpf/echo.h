/* SPDX-License-Identifier: GPL-2.0-only */
/* GTP-U's own ping: echo requests of tunnels' far ends are answered (3GPP TS 29.281, 7.2). */
#ifndef MPTM_ECHO_H
#define MPTM_ECHO_H

#include "check.h"
#include "csum.h"
#include "outer.h"
#include "stats.h"

/* An echo response, with what every one has: the recovery element, whose counter is always 0 (8.2). */
struct echo_response {
    struct udphdr udp;
    struct gtpu header;
    __be16 sequence;
    __u8 pdu_number;
    __u8 next;
    __u8 recovery;
    __u8 restarts;
} __attribute__((packed));
#define ECHO_RESPONSE 2
#define ECHO_RECOVERY 14

static __always_inline int swap_ipv4(void *data, void *end, const struct outer *outer)
{
    struct iphdr *ip = data + ETH_HLEN;

    if ((void *)(ip + 1) > end || !csum_ipv4_ok(ip, end))
        return 0;
    __builtin_memcpy(&ip->saddr, outer->endpoint.local + 12, 4);
    __builtin_memcpy(&ip->daddr, outer->endpoint.remote + 12, 4);
    ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(struct echo_response));
    ip->ttl = 64;
    ip->check = 0;
    ip->check = csum_fold(csum_words(ip, sizeof(*ip)));
    return 1;
}

static __always_inline int swap_ipv6(void *data, void *end, const struct outer *outer)
{
    struct ipv6hdr *ip = data + ETH_HLEN;

    if ((void *)(ip + 1) > end)
        return 0;
    __builtin_memcpy(&ip->saddr, outer->endpoint.local, 16);
    __builtin_memcpy(&ip->daddr, outer->endpoint.remote, 16);
    ip->payload_len = bpf_htons(sizeof(struct echo_response));
    ip->hop_limit = 64;
    return 1;
}

static __always_inline void swap_macs(__u16 *words)
{
#pragma clang loop unroll(full)
    for (int i = 0; i < ETH_ALEN / 2; i++) {
        __u16 word = words[i];

        words[i] = words[i + ETH_ALEN / 2];
        words[i + ETH_ALEN / 2] = word;
    }
}

static __always_inline __u32 echo_l4(const struct outer *outer)
{
    return ETH_HLEN + (outer->is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
}

/* What is wrong with an echo request is a drop; one with IP options is left to the host. Not a part of
 * answer_echo: the stack has no room for that and the sum at once. Returns 0, or a verdict. */
static __always_inline int check_echo(struct xdp_md *ctx, const struct outer *outer)
{
    if (outer->l4 != echo_l4(outer))
        return LEAVE(MPTM_DROP_OAM);
    if (outer->reason)
        return DROP(outer->reason);
    if (outer->strip > outer->length)
        return DROP(MPTM_DROP_TUNNEL_LENGTH);
    __u32 reason = check_udp(ctx, outer, 0);

    return reason ? DROP(reason) : 0;
}

/* Makes an echo request that was found right its response. */
__noinline int answer_echo(struct xdp_md *ctx, struct outer *outer, __u32 length)
{
    struct echo_response answer = {};
    struct udphdr udp;
    __u8 flags;

    if (!outer)
        return LEAVE(MPTM_DROP_OAM);
    __u32 at = echo_l4(outer);
    __u32 end = at + sizeof(answer);

    if (bpf_xdp_load_bytes(ctx, at, &udp, sizeof(udp)) ||
        bpf_xdp_load_bytes(ctx, outer->tunnel, &flags, sizeof(flags)))
        return DROP(MPTM_DROP_OUTER_LENGTH);
    if (flags & GTPU_S && bpf_xdp_load_bytes(ctx, outer->tunnel + sizeof(struct gtpu), &answer.sequence,
                                             sizeof(answer.sequence)))
        return DROP(MPTM_DROP_OUTER_LENGTH);
    if (end != length && bpf_xdp_adjust_tail(ctx, (int)(end - length)))
        return DROP(MPTM_DROP_NO_ROOM);

    void *data = (void *)(long)ctx->data;
    void *data_end = (void *)(long)ctx->data_end;

    if (!(outer->is_ipv6 ? swap_ipv6(data, data_end, outer) : swap_ipv4(data, data_end, outer)))
        return DROP(MPTM_DROP_OUTER_CHECKSUM);
    answer.udp.source = udp.dest;
    answer.udp.dest = udp.source;
    answer.udp.len = bpf_htons(sizeof(answer));
    answer.header.flags = GTPU_VERSION_1 | GTPU_S;
    answer.header.type = ECHO_RESPONSE;
    answer.header.length = bpf_htons(sizeof(answer) - sizeof(answer.udp) - sizeof(answer.header));
    answer.recovery = ECHO_RECOVERY;
    answer.udp.check =
        csum_fold(csum_pseudo(outer->endpoint.local, outer->endpoint.remote, IPPROTO_UDP, sizeof(answer)) +
                  csum_words(&answer, sizeof(answer)));
    if (!answer.udp.check)
        answer.udp.check = 0xffff;
    if (data + 2 * ETH_ALEN > data_end || bpf_xdp_store_bytes(ctx, at, &answer, sizeof(answer)))
        return DROP(MPTM_DROP_NO_ROOM);
    swap_macs(data);
    return XDP_TX;
}

#endif
