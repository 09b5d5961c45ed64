/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The short way of plain packets out of tunnels to workloads. The long way (mptm.bpf.c) reads an outer header
 * and finds out whose it is; the next ones that differ from it only where headers of one tunnel do are that
 * far end's, too. Whatever else is unusual about a packet leaves it to the long way.
 */
#ifndef MPTM_SHORT_IN_H
#define MPTM_SHORT_IN_H

#include "csum.h"
#include "decap.h"
#include "flows.h"
#include "outer.h"
#include "plain.h"
#include "route.h"
#include "short_out.h"
#include "stats.h"
#include "ways.h"

/* Headers are compared from the EtherType on: as much as is before any inner packet's addresses. */
#define FAR_FROM (2 * ETH_ALEN)
#define FAR_WORDS 8
#define FAR_WORDS_IPV4 5
#define FAR_WORDS_TAGS 1
#define FARS_BITS 8

enum outer_kind {
    OUTER_IPV4,
    OUTER_IPV6,
    OUTER_TAGS,
};

/* What a far end's headers are like. */
struct far {
    __u64 where;            /* see flows_where; 0: none */
    __u64 mask[FAR_WORDS];  /* the bits that are the same in all */
    __u64 value[FAR_WORDS]; /* and these bits */
    __u32 tunnel;           /* its id */
    __u32 table;            /* its segment's, without MPTM_TABLE_IPV6 */
    __u16 strip;            /* bytes before the inner frame or packet; tags: before its EtherType, less 12 */
    __u8 payload;           /* enum payload */
    __u8 has_udp;
    __u8 has_gtpu;
    __u8 needs_sum; /* whether outer UDP must have a checksum */
    __u8 clamps;    /* whether the MSS of SYNs is lowered */
    __u8 pad;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1 << FARS_BITS);
    __type(key, __u32);
    __type(value, struct far);
} fars SEC(".maps");

/* Where the packets of a far end's workload to one of ours go. */
struct flow_in {
    __u64 where;        /* see flows_where, of the tunnel's id and one instead of a device */
    __u64 addresses[4]; /* as in struct plain */
    __u32 slot;         /* where its packets go */
    __u8 mac[6];        /* the workload's */
    __u8 own_mac[6];    /* of the interface that they leave by */
    __u8 has_mac;       /* whether the workload's is known */
    __u8 pad[7];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1 << FLOWS_BITS);
    __type(key, __u32);
    __type(value, struct flow_in);
} flows_in SEC(".maps");

/* What tells tunnels between two hosts from each other, at 8 bytes behind the UDP header or before. */
static __always_inline __u64 tunnel_bits(void *l4, void *end, __u8 protocol)
{
    __u32 zero = 0;
    struct mptm_udp_ports *ports;
    struct udphdr *udp = l4;
    struct gre *gre = l4;

    if (l4 + sizeof(*udp) + sizeof(__u64) > end)
        return 0;
    if (protocol == IPPROTO_GRE)
        return *(__u32 *)gre ^ (gre->flags & bpf_htons(GRE_KEY) ? (__u64) * (__u32 *)(gre + 1) << 32 : 0);
    if (protocol != IPPROTO_UDP)
        return protocol;
    ports = bpf_map_lookup_elem(&udp_ports, &zero);
    if (!ports)
        return 0;
    __u32 port = bpf_ntohs(udp->dest);

    /* As in parse_udp. */
    barrier_var(port);
    switch (ports->protocol[port & 0xffff]) {
    case MPTM_PROTOCOL_VXLAN:
    case MPTM_PROTOCOL_GENEVE:
        return *(__u64 *)(udp + 1);
    case MPTM_PROTOCOL_GTPU:
        return ((struct gtpu *)(udp + 1))->teid;
    case MPTM_PROTOCOL_GUE:
        return *(__u32 *)(udp + 1);
    }
    return udp->dest;
}

static __always_inline __u32 outer_l4(enum outer_kind kind)
{
    return kind == OUTER_IPV4 ? SHORT_L4_IPV4 : SHORT_L4_IPV6;
}

/* Where the entry of a header is, if there is one. What there must be is there. */
static __always_inline __u32 fars_slot(void *data, void *end, enum outer_kind kind)
{
    __u64 mixed;

    if (kind == OUTER_IPV4) {
        struct iphdr *ip = data + ETH_HLEN;

        mixed = ip->saddr ^ tunnel_bits(ip + 1, end, ip->protocol) * GOLDEN;
    } else if (kind == OUTER_IPV6) {
        struct ipv6hdr *ip = data + ETH_HLEN;
        __u64 *source = (void *)ip + offsetof(struct ipv6hdr, saddr);

        mixed = source[0] ^ (source[1] ^ tunnel_bits(ip + 1, end, ip->nexthdr) * GOLDEN) * GOLDEN;
    } else {
        struct vlan_tag *tag = data + ETH_HLEN;
        __u32 next = *(__u32 *)&tag->type;

        mixed = (__u64)(tag->tci & bpf_htons(VLAN_VID)) << 32 | (next & bpf_htonl(0xffff0000 | VLAN_VID));
    }
    return mixed * GOLDEN >> (64 - FARS_BITS);
}

static __always_inline __u32 fars_words(enum outer_kind kind)
{
    if (kind == OUTER_IPV4)
        return FAR_WORDS_IPV4;
    return kind == OUTER_IPV6 ? FAR_WORDS : FAR_WORDS_TAGS;
}

/* Which bits are the same in all headers of a far end, as bytes from FAR_FROM on. */
static __always_inline void mask_ipv4(__u8 *mask)
{
    struct iphdr *ip = (void *)mask + ETH_HLEN - FAR_FROM;

    ip->tos = ECN_ECT_1;
    ip->tot_len = 0;
    ip->id = 0;
    ip->frag_off = bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET);
    ip->ttl = 0;
    ip->check = 0;
}

static __always_inline void mask_ipv6(__u8 *mask)
{
    struct ipv6hdr *ip = (void *)mask + ETH_HLEN - FAR_FROM;

    *(__be32 *)ip = bpf_htonl(0xf0000000 | ECN_ECT_1 << 20);
    ip->payload_len = 0;
    ip->hop_limit = 0;
}

static __always_inline void mask_udp(__u8 *l4, const struct outer *outer)
{
    struct udphdr *udp = (void *)l4;

    udp->source = 0;
    udp->len = 0;
    udp->check = 0;
    if (outer->endpoint.protocol == MPTM_PROTOCOL_GTPU)
        ((struct gtpu *)(udp + 1))->length = 0;
}

static __always_inline void mask_tags(__u8 *mask, const struct outer *outer)
{
    int has_two = outer->endpoint.protocol == MPTM_PROTOCOL_QINQ;

    /* Priorities and drop eligibility differ. */
    mask[2] = VLAN_VID >> 8;
    mask[4] = mask[5] = has_two ? 0xff : 0;
    mask[6] = has_two ? VLAN_VID >> 8 : 0;
    mask[7] = has_two ? 0xff : 0;
}

/* Whether the next headers of the far end can be told by comparing them with this one. */
static __always_inline int is_comparable(const struct outer *outer, const struct mptm_tunnel *tunnel,
                                         enum outer_kind kind)
{
    if (tunnel->flags & LONG_WAY || outer->is_critical || outer->has_checksum || outer->has_sequence ||
        outer->options || outer->ecn & ECN_ECT_1)
        return 0;
    if (kind == OUTER_TAGS)
        return 1;
    return outer->l4 == outer_l4(kind) && outer->strip <= FAR_FROM + 8 * fars_words(kind) &&
           (outer->endpoint.protocol != MPTM_PROTOCOL_GTPU ||
            outer->strip == outer->tunnel + sizeof(struct gtpu));
}

static __always_inline int keep_far_of(void *data, void *end, const struct outer *outer,
                                       const struct mptm_tunnel *tunnel, __u32 id, __u32 now,
                                       enum outer_kind kind)
{
    __u32 words = fars_words(kind);
    struct far *far;

    if (!is_comparable(outer, tunnel, kind) || data + FAR_FROM + 8 * words > end)
        return 0;
    __u32 slot = fars_slot(data, end, kind);

    far = bpf_map_lookup_elem(&fars, &slot);
    if (!far)
        return 0;
    __u8 *mask = (__u8 *)far->mask;

    far->where = 0;
#pragma clang loop unroll(full)
    for (__u32 i = 0; i < FAR_WORDS; i++)
        far->mask[i] = i < words ? ~0ULL : 0;
    if (kind == OUTER_IPV4)
        mask_ipv4(mask);
    else if (kind == OUTER_IPV6)
        mask_ipv6(mask);
    else
        mask_tags(mask, outer);
    if (kind != OUTER_TAGS) {
        if (tunnel->flags & MPTM_TUNNEL_UDP)
            mask_udp(mask + outer_l4(kind) - FAR_FROM, outer);
#pragma clang loop unroll(full)
        for (__u32 at = outer_l4(kind); at < FAR_FROM + 8 * words; at++)
            if (at >= outer->strip)
                mask[at - FAR_FROM] = 0;
    }
    const __u64 *header = data + FAR_FROM;

#pragma clang loop unroll(full)
    for (__u32 i = 0; i < words; i++)
        far->value[i] = header[i] & far->mask[i];
    far->tunnel = id;
    far->table = tunnel->table;
    far->strip = outer->strip;
    far->payload = outer->payload;
    far->has_udp = !!(tunnel->flags & MPTM_TUNNEL_UDP);
    far->has_gtpu = outer->endpoint.protocol == MPTM_PROTOCOL_GTPU;
    far->needs_sum = outer->is_ipv6 && tunnel->flags & MPTM_TUNNEL_UDP_CHECKSUM;
    far->clamps = !!(tunnel->flags & MPTM_TUNNEL_MSS_CLAMP);
    far->where = flows_where(now, outer->endpoint.ifindex, kind == OUTER_IPV6);
    return 0;
}

/* Keeps what the header is like of a packet that a tunnel has brought, and in which nothing is wrong. */
__noinline int keep_far(struct xdp_md *ctx, struct outer *outer, __u32 id, __u32 now)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    struct mptm_tunnel *tunnel = tunnel_find(id);

    if (!outer || now & 1 || !tunnel)
        return 0;
    if (is_vlan_protocol(outer))
        return keep_far_of(data, end, outer, tunnel, id, now, OUTER_TAGS);
    return outer->is_ipv6 ? keep_far_of(data, end, outer, tunnel, id, now, OUTER_IPV6)
                          : keep_far_of(data, end, outer, tunnel, id, now, OUTER_IPV4);
}

/* The far end whose header this is. */
static __always_inline struct far *find_far(void *data, void *end, enum outer_kind kind, __u64 where)
{
    const __u64 *header = data + FAR_FROM;
    __u32 slot = fars_slot(data, end, kind);
    struct far *far = bpf_map_lookup_elem(&fars, &slot);
    __u64 differs;

    if (!far)
        return NULL;
    differs = far->where ^ where;
#pragma clang loop unroll(full)
    for (__u32 i = 0; i < fars_words(kind); i++)
        differs |= (header[i] & far->mask[i]) ^ far->value[i];
    return differs ? NULL : far;
}

/* Makes the entry of a flow in, all but the addresses as they are compared. */
__noinline int learn_in(struct unknown *unknown)
{
    if (!unknown)
        return 0;
    __u32 table = unknown->table, tunnel = unknown->id;
    const __u8 *inner_source = (const __u8 *)unknown->source;
    const __u8 *destination = (const __u8 *)unknown->destination;
    struct mptm_route route = {};
    struct flow_in *flow;

    if (unknown->where & 1 || is_link_local(inner_source) || !is_for_one(destination) ||
        !route_find(table, destination, &route) || route.target != MPTM_TARGET_WORKLOAD ||
        way_to(route.pairs, table, inner_source, unknown->where) != tunnel)
        return 0;
    __u32 slot = route.id;
    struct mptm_slot *own = bpf_map_lookup_elem(&slots, &slot);

    slot = unknown->slot;
    flow = bpf_map_lookup_elem(&flows_in, &slot);
    if (!own || !flow)
        return 0;
    flow->slot = route.id;
    __builtin_memcpy(flow->mac, route.mac, ETH_ALEN);
    __builtin_memcpy(flow->own_mac, own->mac, ETH_ALEN);
    flow->has_mac = !!has_mac(&route);
    flow->where = unknown->where;
    return 1;
}

static __always_inline struct flow_in *find_in(const struct plain *plain, int is_ipv6, const struct far *far,
                                               __u32 now)
{
    __u64 where = flows_where(now, far->tunnel + 1, is_ipv6);
    __u32 slot = flows_slot(plain->addresses, is_ipv6, far->tunnel, FLOWS_BITS);
    struct flow_in *flow = bpf_map_lookup_elem(&flows_in, &slot);

    if (flow && flow->where == where && is_same_flow(flow->addresses, plain->addresses, is_ipv6))
        return flow;
    struct unknown unknown = {.where = where, .slot = slot, .id = far->tunnel};

    unknown_addresses(&unknown, plain, is_ipv6);
    unknown.table = is_ipv6 ? far->table | MPTM_TABLE_IPV6 : far->table;
    if (!learn_in(&unknown))
        return NULL;
    flow = bpf_map_lookup_elem(&flows_in, &slot);
    if (flow)
        copy_addresses(flow->addresses, plain->addresses, is_ipv6);
    return flow;
}

/* Whether lengths and checksums of an outer header are right. */
static __always_inline int is_right(struct xdp_md *ctx, void *data, enum outer_kind kind,
                                    const struct far *far, __u32 length)
{
    struct udphdr *udp = data + outer_l4(kind);
    __u64 sum;

    if (kind == OUTER_TAGS)
        return 1;
    if (kind == OUTER_IPV4 && fold_words(sum_words(data + ETH_HLEN, sizeof(struct iphdr))) != 0xffff)
        return 0;
    if (!far->has_udp)
        return 1;
    __u32 size = length - outer_l4(kind);

    if (udp->len != bpf_htons(size) ||
        (far->has_gtpu &&
         ((struct gtpu *)(udp + 1))->length != bpf_htons(size - sizeof(*udp) - sizeof(struct gtpu))))
        return 0;
    if (!udp->check)
        return !far->needs_sum;
    sum = (__u64)bpf_htons(IPPROTO_UDP) + udp->len;
    if (kind == OUTER_IPV4)
        sum += sum_words(data + ETH_HLEN + offsetof(struct iphdr, saddr), 8);
    else
        sum += sum_words(data + ETH_HLEN + offsetof(struct ipv6hdr, saddr), 32);
    __u32 all = 0, first = fold_words(sum);

    /* Over IPv6 there usually is one: without a call, whose return takes longer than a short sum does. */
    if (kind == OUTER_IPV6)
        all = sum_linear(ctx, SHORT_L4_IPV6, size, first);
    if (!all)
        all = csum_range(ctx, outer_l4(kind), size, first);
    return csum_fold(all) == 0;
}

/* The MAC addresses come to where the frame is going to begin. */
static __always_inline void move_macs(void *data, void *end, __u32 by)
{
    __u32 *from = data, *to = data + by;

    if ((void *)(from + 3) > end || (void *)(to + 3) > end)
        return;
    __u32 first = from[0], second = from[1], third = from[2];

    to[0] = first;
    to[1] = second;
    to[2] = third;
}

/* Takes the outer header off, and sends the rest on. `length` is the outer frame's; 0: not known yet. */
static __always_inline int deliver_plain(struct xdp_md *ctx, void *data, void *end, enum outer_kind kind,
                                         const struct far *far, __u32 length, __u32 now, int is_ipv6)
{
    int is_packet = kind != OUTER_TAGS && far->payload != PAYLOAD_ETHERNET;
    __u32 strip = far->strip;
    __u32 l3 = is_packet ? strip : strip + ETH_HLEN;
    struct plain plain;

    if (l3 > INNER_FARTHEST || !read_plain(data + l3, end, is_ipv6, &plain))
        return 0;
    if (kind == OUTER_TAGS)
        length = plain_length(ctx, end - data, plain.total + l3);
    if (plain.total + l3 > length)
        return 0;
    struct flow_in *flow = find_in(&plain, is_ipv6, far, now);

    if (!flow || (is_packet && (plain.ttl <= 1 || !flow->has_mac)) ||
        (far->clamps && plain.protocol == IPPROTO_TCP) || !is_right(ctx, data, kind, far, length))
        return 0;
    if (is_packet) {
        hop_plain(data + l3, is_ipv6);
        strip -= ETH_HLEN;
    } else if (kind == OUTER_TAGS) {
        move_macs(data, end, strip);
    }
    if (bpf_xdp_adjust_head(ctx, (int)strip))
        return DROP(MPTM_DROP_OUTER_LENGTH);
    data = (void *)(long)ctx->data;
    end = (void *)(long)ctx->data_end;
    if (data + ETH_HLEN > end)
        return DROP(MPTM_DROP_OUTER_LENGTH);
    if (flow->has_mac)
        put_mac(data, flow->mac);
    if (is_packet) {
        put_mac(data + ETH_ALEN, flow->own_mac);
        *(__be16 *)(data + 2 * ETH_ALEN) = is_ipv6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
    }
    __u32 id = far->tunnel;
    int verdict = redirect_to(flow->slot);
    struct mptm_tunnel_stats *stats = bpf_map_lookup_elem(&tunnel_stats, &id);

    if (!REASON_OF(verdict) && stats)
        count(&stats->decap, length - strip);
    return finish(MPTM_PROGRAM_DECAP, verdict, length) + 1;
}

/* The EtherType of the inner packet; 0: it is not plain. */
static __always_inline __be16 inner_type(void *data, void *end, enum outer_kind kind, const struct far *far)
{
    __u32 strip = far->strip;

    if (strip > OUTER_FARTHEST)
        return 0;
    if (kind == OUTER_TAGS || far->payload == PAYLOAD_ETHERNET) {
        __u8 *macs = kind == OUTER_TAGS ? data : data + strip;
        __be16 *type = data + strip + 2 * ETH_ALEN;

        return (void *)(type + 1) > end || (void *)(macs + 1) > end || *macs & 1 ? 0 : *type;
    }
    __u8 *version = data + strip;

    if ((void *)(version + 1) > end)
        return 0;
    if (*version >> 4 == 4)
        return far->payload == PAYLOAD_IPV6 ? 0 : bpf_htons(ETH_P_IP);
    return far->payload == PAYLOAD_IPV4 ? 0 : bpf_htons(ETH_P_IPV6);
}

static __always_inline int deliver_outer(struct xdp_md *ctx, enum outer_kind kind)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    __u32 now = flows_generation(), total = 0;

    if (data + FAR_FROM + 8 * fars_words(kind) > end)
        return 0;
    if (kind == OUTER_IPV4)
        total = ETH_HLEN + bpf_ntohs(((struct iphdr *)(data + ETH_HLEN))->tot_len);
    else if (kind == OUTER_IPV6)
        total =
            ETH_HLEN + sizeof(struct ipv6hdr) + bpf_ntohs(((struct ipv6hdr *)(data + ETH_HLEN))->payload_len);
    /* What is more than the IP packet goes the long way, and there it goes. */
    if (kind != OUTER_TAGS && total != plain_length(ctx, end - data, total))
        return 0;
    struct far *far = find_far(data, end, kind, flows_where(now, ctx->ingress_ifindex, kind == OUTER_IPV6));

    if (!far)
        return 0;
    switch (inner_type(data, end, kind, far)) {
    case bpf_htons(ETH_P_IP):
        return deliver_plain(ctx, data, end, kind, far, total, now, 0);
    case bpf_htons(ETH_P_IPV6):
        return deliver_plain(ctx, data, end, kind, far, total, now, 1);
    }
    return 0;
}

/* Of an outer packet: returns the action and one, or 0 if it is not delivered. */
static __always_inline int deliver_short(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data;

    if (data + ETH_HLEN > (void *)(long)ctx->data_end)
        return 0;
    switch (*(__be16 *)(data + 2 * ETH_ALEN)) {
    case bpf_htons(ETH_P_IP):
        return deliver_outer(ctx, OUTER_IPV4);
    case bpf_htons(ETH_P_IPV6):
        return deliver_outer(ctx, OUTER_IPV6);
    case bpf_htons(ETH_P_8021Q):
    case bpf_htons(ETH_P_8021AD):
        return deliver_outer(ctx, OUTER_TAGS);
    }
    return 0;
}

#endif
