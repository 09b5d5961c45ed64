/* SPDX-License-Identifier: GPL-2.0-only */
/* What a packet that belongs to a tunnel of ours must also satisfy. */
#ifndef MPTM_CHECK_H
#define MPTM_CHECK_H

#include "csum.h"
#include "outer.h"
#include "stats.h"

/* RFC 8926, 3.5. */
struct geneve_option {
    __be16 class;
    __u8 type;
    __u8 length; /* in 4 bytes, of the data; 3 bits reserved */
};
#define GENEVE_OPTION_CRITICAL 0x80
#define GENEVE_OPTION_LENGTH 0x1f

/* 3GPP TS 29.281, 5.2.1: how many extension headers are looked at, and the types. */
#define GTPU_EXTENSIONS 4
#define GTPU_COMPREHENSION 0x80
#define GTPU_PDU_SESSION 0x85
#define GTPU_PDCP_NUMBER 0xc0

struct option_walk {
    struct xdp_md *ctx;
    const struct mptm_tunnel *tunnel;
    __u32 at;
    __u32 end;
    __u32 is_critical;
    __u32 reason;
};

static __always_inline int is_known_option(const struct mptm_tunnel *tunnel, __u32 option)
{
#pragma clang loop unroll(full)
    for (int i = 0; i < MPTM_MAX_CRITICAL; i++)
        if (tunnel->critical[i] == option)
            return 1;
    return 0;
}

/* Steps over one option. Only where the header says that there are critical ones do types matter. */
static int step_option(__u32 index, struct option_walk *walk)
{
    struct geneve_option option;

    if (walk->at == walk->end)
        return 1;
    if (walk->at + sizeof(option) > walk->end ||
        bpf_xdp_load_bytes(walk->ctx, walk->at, &option, sizeof(option))) {
        walk->reason = MPTM_DROP_TUNNEL_OPTION;
        return 1;
    }
    walk->at += sizeof(option) + (option.length & GENEVE_OPTION_LENGTH) * 4;
    if (walk->at > walk->end)
        walk->reason = MPTM_DROP_TUNNEL_OPTION;
    else if (walk->is_critical && option.type & GENEVE_OPTION_CRITICAL &&
             !is_known_option(walk->tunnel, bpf_ntohs(option.class) << 8 | option.type))
        walk->reason = MPTM_DROP_CRITICAL_OPTION;
    return walk->reason != 0;
}

static __always_inline __u32 check_options(struct xdp_md *ctx, const struct outer *outer,
                                           const struct mptm_tunnel *tunnel)
{
    struct option_walk walk = {
        .ctx = ctx,
        .tunnel = tunnel,
        .at = outer->strip - outer->options,
        .end = outer->strip,
        .is_critical = outer->is_critical,
    };

    bpf_loop(GENEVE_OPTIONS + 1, step_option, &walk, 0);
    return walk.reason;
}

/* Steps over extension headers, behind which the payload is. */
static __always_inline __u32 check_extensions(struct xdp_md *ctx, struct outer *outer)
{
    __u8 flags, next, units;

    if (bpf_xdp_load_bytes(ctx, outer->tunnel, &flags, sizeof(flags)))
        return MPTM_DROP_TUNNEL_OPTION;
    if (!(flags & GTPU_E))
        return 0;
    /* The type of the next one is the last byte of each. */
    for (int i = 0; i <= GTPU_EXTENSIONS; i++) {
        if (bpf_xdp_load_bytes(ctx, outer->strip - 1, &next, sizeof(next)))
            return MPTM_DROP_TUNNEL_OPTION;
        if (!next)
            return 0;
        if (next & GTPU_COMPREHENSION && next != GTPU_PDU_SESSION && next != GTPU_PDCP_NUMBER)
            return MPTM_DROP_CRITICAL_OPTION;
        if (outer->strip >= outer->length || bpf_xdp_load_bytes(ctx, outer->strip, &units, sizeof(units)) ||
            !units)
            return MPTM_DROP_TUNNEL_OPTION;
        outer->strip += units * 4;
        if (outer->strip > outer->length || outer->strip > OUTER_FARTHEST)
            return MPTM_DROP_TUNNEL_OPTION;
    }
    return MPTM_DROP_TUNNEL_OPTION;
}

static __always_inline __u32 check_udp(struct xdp_md *ctx, const struct outer *outer, __u32 tunnel_flags)
{
    __u32 length = outer->length - outer->l4;

    /* None at all is for IPv4 to choose (RFC 768), and for tunnels over IPv6 if both ends agree (RFC 6935,
     * 5). */
    if (!outer->check)
        return outer->is_ipv6 && tunnel_flags & MPTM_TUNNEL_UDP_CHECKSUM ? MPTM_DROP_OUTER_CHECKSUM : 0;
    __u32 sum = csum_pseudo(outer->endpoint.remote, outer->endpoint.local, IPPROTO_UDP, length);

    return csum_fold(csum_range(ctx, outer->l4, length, sum)) ? MPTM_DROP_OUTER_CHECKSUM : 0;
}

static __always_inline __u32 check_gre(struct xdp_md *ctx, const struct outer *outer,
                                       const struct mptm_tunnel *tunnel)
{
    if (outer->has_checksum) {
        if (csum_fold(csum_range(ctx, outer->l4, outer->length - outer->l4, 0)))
            return MPTM_DROP_TUNNEL_CHECKSUM;
    } else if (tunnel->flags & MPTM_TUNNEL_GRE_CHECKSUM) {
        return MPTM_DROP_TUNNEL_CHECKSUM;
    }
    if (!outer->has_sequence && tunnel->flags & MPTM_TUNNEL_SEQUENCE)
        return MPTM_DROP_TUNNEL_SEQUENCE;
    return 0;
}

/* Returns an enum mptm_reason: what is wrong, or none. May move `strip` to behind what it has looked at. */
static __always_inline int check_outer(struct xdp_md *ctx, struct outer *outer, struct mptm_tunnel *tunnel)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    __u32 reason = 0;

    if (outer->reason)
        return outer->reason;
    if (is_vlan_protocol(outer))
        return MPTM_DROP_NONE;
    if (outer->strip > outer->length || outer->strip > OUTER_FARTHEST)
        return MPTM_DROP_OUTER_LENGTH;
    if (!outer->is_ipv6) {
        struct iphdr *ip = data + ETH_HLEN;

        if ((void *)(ip + 1) > end || !csum_ipv4_ok(ip, end))
            return MPTM_DROP_OUTER_CHECKSUM;
    }
    if (!(tunnel->flags & MPTM_TUNNEL_IP_PAYLOAD) != (outer->payload == PAYLOAD_ETHERNET))
        return MPTM_DROP_TUNNEL_PAYLOAD;
    if (outer->options || outer->is_critical)
        reason = check_options(ctx, outer, tunnel);
    else if (outer->endpoint.protocol == MPTM_PROTOCOL_GTPU)
        reason = check_extensions(ctx, outer);
    if (reason)
        return reason;
    if (tunnel->flags & MPTM_TUNNEL_UDP)
        return check_udp(ctx, outer, tunnel->flags);
    if (tunnel->protocol == MPTM_PROTOCOL_GRE || tunnel->protocol == MPTM_PROTOCOL_GRETAP)
        return check_gre(ctx, outer, tunnel);
    return 0;
}

/* Whether a sequence number is not older than the last one (RFC 2890, 2.2), which it then is. */
static __always_inline int take_sequence(const struct outer *outer, __u32 id)
{
    struct mptm_tunnel_state *state = bpf_map_lookup_elem(&tunnel_state, &id);

    if (!state)
        return 0;
    if (state->seen && (__s32)(outer->sequence - state->received) <= 0)
        return 0;
    state->received = outer->sequence;
    state->seen = 1;
    return 1;
}

#endif
