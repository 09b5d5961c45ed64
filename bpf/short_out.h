/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The short way of a workload's plain packets into tunnels. It does what the long one (mptm.bpf.c) would, and
 * where that may be something else than sending the packet on, it does nothing and leaves it to that.
 */
#ifndef MPTM_SHORT_OUT_H
#define MPTM_SHORT_OUT_H

#include "csum.h"
#include "encap.h"
#include "flows.h"
#include "plain.h"
#include "route.h"
#include "stats.h"
#include "ways.h"

/* Tunnels whose packets all take the long way. */
#define LONG_WAY                                                                                             \
    (MPTM_TUNNEL_STACK | MPTM_TUNNEL_DEBUG | MPTM_TUNNEL_UNRESOLVED | MPTM_TUNNEL_SEQUENCE |                 \
     MPTM_TUNNEL_GRE_CHECKSUM)

#define SHORT_L4_IPV4 (ETH_HLEN + sizeof(struct iphdr))
#define SHORT_L4_IPV6 (ETH_HLEN + sizeof(struct ipv6hdr))

/* Whether the outer header is laid out as nearly all are: in IPv4's case, without options. */
static __always_inline int has_usual_header(const struct mptm_tunnel *tunnel)
{
    __u32 l4 = tunnel->flags & MPTM_TUNNEL_IPV4 ? SHORT_L4_IPV4 : SHORT_L4_IPV6;

    if (!(tunnel->flags & (MPTM_TUNNEL_IPV4 | MPTM_TUNNEL_IPV6)))
        return 1;
    return tunnel->l3_offset == ETH_HLEN && (!(tunnel->flags & MPTM_TUNNEL_UDP) || tunnel->l4_offset == l4);
}

/* Keeps that a workload has the address that it sends from. */
static __noinline int keep_source(const struct inner *inner, const struct mptm_interface *interface,
                                  __u32 pairs, __u32 ifindex, __u32 now)
{
    int is_ipv6 = inner->kind == KIND_IPV6;
    struct source *source;

    if (now & 1 || !is_ip(inner))
        return 0;
    __u64 first = *(const __u64 *)inner->source, second = *(const __u64 *)(inner->source + 8);
    __u32 slot = ((first ^ second ^ ifindex) * GOLDEN) >> (64 - SOURCES_BITS);

    source = bpf_map_lookup_elem(&sources, &slot);
    if (!source)
        return 0;
    source->address[0] = first;
    source->address[1] = second;
    source->table = table_for(interface->table, inner);
    source->pairs = pairs;
    __builtin_memcpy(source->mac, interface->mac, ETH_ALEN);
    source->where = flows_where(now, ifindex, is_ipv6);
    return 0;
}

/* A packet whose flow is not known: addresses as in `routes`. */
struct unknown {
    __u64 source[2];
    __u64 destination[2];
    __u64 where;
    __u32 slot;  /* in flows_out or flows_in */
    __u32 id;    /* out: the ifindex; in: the tunnel's */
    __u32 table; /* in: where its addresses are */
    __u32 pad;
};

static __always_inline void unknown_addresses(struct unknown *unknown, const struct plain *plain, int is_ipv6)
{
    const __u32 *ipv4 = (const __u32 *)plain->addresses;

    unknown->source[0] = is_ipv6 ? plain->addresses[0] : 0;
    unknown->source[1] = is_ipv6 ? plain->addresses[1] : mapped_low(ipv4[0]);
    unknown->destination[0] = is_ipv6 ? plain->addresses[2] : 0;
    unknown->destination[1] = is_ipv6 ? plain->addresses[3] : mapped_low(ipv4[1]);
}

/* Whether an address is for one, and may be behind a default route: as parse_ipv4 and parse_ipv6 have it, and
 * find_way. */
static __always_inline int is_for_one(const __u8 *address)
{
    const __u32 *words = (const __u32 *)address;
    int is_ipv4 = (words[0] | words[1]) == 0 && words[2] == bpf_htonl(0xffff);

    if (is_ipv4)
        return address[12] < 0xe0;
    return address[0] != 0xff && !is_link_local(address);
}

/* Makes its entry, all but the addresses as they are compared. */
__noinline int learn_out(struct unknown *unknown)
{
    if (!unknown)
        return 0;
    __u64 mixed = unknown->source[0] ^ unknown->source[1] ^ unknown->id;
    __u32 slot = (mixed * GOLDEN) >> (64 - SOURCES_BITS);
    const __u8 *destination = (const __u8 *)unknown->destination;
    struct source *source = bpf_map_lookup_elem(&sources, &slot);
    struct flow_out *flow;

    if (unknown->where & 1 || !source || source->where != unknown->where ||
        source->address[0] != unknown->source[0] || source->address[1] != unknown->source[1] ||
        !is_for_one(destination))
        return 0;
    __u32 id = way_to(source->pairs, source->table, destination, unknown->where);
    __u32 index = tunnel_index(id);
    struct mptm_tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &index);

    slot = unknown->slot;
    flow = bpf_map_lookup_elem(&flows_out, &slot);
    if (!tunnel || tunnel->flags & LONG_WAY || !has_usual_header(tunnel) || !flow)
        return 0;
    flow->index = index;
    flow->id = id;
    flow->hash = hash_addresses(unknown->source, unknown->destination);
    __builtin_memcpy(flow->mac, source->mac, ETH_ALEN);
    flow->where = unknown->where;
    return 1;
}

/* What is known of the packet's flow; if need be it is looked up. */
static __always_inline struct flow_out *find_out(const struct plain *plain, int is_ipv6, __u32 ifindex,
                                                 __u32 now)
{
    __u64 where = flows_where(now, ifindex, is_ipv6);
    __u32 slot = flows_slot(plain->addresses, is_ipv6, ifindex, FLOWS_BITS);
    struct flow_out *flow = bpf_map_lookup_elem(&flows_out, &slot);

    if (flow && flow->where == where && is_same_flow(flow->addresses, plain->addresses, is_ipv6))
        return flow;
    struct unknown unknown = {.where = where, .slot = slot, .id = ifindex};

    unknown_addresses(&unknown, plain, is_ipv6);
    if (!learn_out(&unknown))
        return NULL;
    flow = bpf_map_lookup_elem(&flows_out, &slot);
    if (flow)
        copy_addresses(flow->addresses, plain->addresses, is_ipv6);
    return flow;
}

/* Whether the transport checksum covers all from there to the frame's end: see csum_inner. */
static __always_inline int is_covered(void *l4, void *end, const struct plain *plain, int is_ipv6,
                                      __u32 length)
{
    struct udphdr *udp = l4;

    if (plain->total + ETH_HLEN != length)
        return 0;
    if (plain->protocol == IPPROTO_TCP)
        return 1;
    return plain->protocol == IPPROTO_UDP && (void *)(udp + 1) <= end && udp->check &&
           udp->len == bpf_htons(plain->total - plain_header(is_ipv6));
}

/* The sum of such a packet, from its Ethernet or its IP header on. */
static __always_inline __u32 sum_covered(void *data, const struct plain *plain, int is_ipv6, int has_ethernet)
{
    __u64 sum = has_ethernet ? sum_words(data, 2 * ETH_ALEN) + *(__u16 *)(data + 2 * ETH_ALEN) : 0;
    __u32 covered = plain->total - plain_header(is_ipv6);
    __u64 pseudo = (__u64)bpf_htons(plain->protocol) + bpf_htons(covered);

#pragma clang loop unroll(full)
    for (int i = 0; i < (is_ipv6 ? 4 : 1); i++)
        pseudo += (__u64)(__u32)plain->addresses[i] + (plain->addresses[i] >> 32);
    sum += sum_words(data + ETH_HLEN, plain_header(is_ipv6));
    return fold_words(sum + (fold_words(pseudo) ^ 0xffff));
}

/* As patch_header does. */
static __always_inline int patch_usual(void *data, void *end, const struct mptm_tunnel *tunnel,
                                       const struct inner *inner, const struct patch *patch)
{
    __u32 flags = tunnel->flags;
    __u32 sum = 0;
    int error = 0;

    if (flags & (MPTM_TUNNEL_ETHERTYPE | MPTM_TUNNEL_IP_PROTOCOL))
        error = patch_type(data, end, tunnel, patch, &sum);
    if (flags & MPTM_TUNNEL_IPV4) {
        error |= patch_ipv4(data, end, ETH_HLEN, tunnel, patch);
        if (flags & MPTM_TUNNEL_UDP)
            error |= patch_udp(data, end, SHORT_L4_IPV4, tunnel, patch, sum);
    } else if (flags & MPTM_TUNNEL_IPV6) {
        error |= patch_ipv6(data, end, ETH_HLEN, tunnel, inner, patch);
        if (flags & MPTM_TUNNEL_UDP)
            error |= patch_udp(data, end, SHORT_L4_IPV6, tunnel, patch, sum);
    } else if (flags & MPTM_TUNNEL_PCP_INHERIT) {
        error = patch_pcp(data, end, tunnel, inner->pcp);
    }
    return error;
}

/* Wraps up a packet of a known flow. Returns a verdict, or 0. */
static __always_inline int send_known(struct xdp_md *ctx, const struct plain *plain, int is_ipv6,
                                      __u32 length, const struct flow_out *flow)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    void *l4 = data + ETH_HLEN + plain_header(is_ipv6);
    struct inner inner = {.kind = is_ipv6 ? KIND_IPV6 : KIND_IPV4};
    struct patch patch = {};
    __u32 index = flow->index;
    struct mptm_tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &index);

    if (!tunnel || l4 + PLAIN_PORTS > end)
        return 0;
    __u32 flags = tunnel->flags;
    int is_packet = !!(flags & MPTM_TUNNEL_IP_PAYLOAD);
    int is_routed = is_packet || is_at(data, flow->mac);
    __u32 size = tunnel->header_len;
    __u32 pop = is_packet ? ETH_HLEN : tunnel->pop;

    if (length - ETH_HLEN > tunnel->mtu || (is_packet && plain->total + ETH_HLEN != length) ||
        (is_routed && plain->ttl <= 1) || (flags & MPTM_TUNNEL_MSS_CLAMP && may_be_syn(l4, end, plain)))
        return 0;
    if (flags & MPTM_TUNNEL_UDP_CHECKSUM && !is_covered(l4, end, plain, is_ipv6, length))
        return 0;
    inner.flags = plain->flags;
    inner.label = plain->label;
    inner.tos = plain->tos;
    inner.ttl = plain->ttl - is_routed;
    inner.pcp = plain->tos >> 5;
    if (flags & MPTM_TUNNEL_INNER_MAC)
        set_destination(data, tunnel->inner_mac);
    if (flags & MPTM_TUNNEL_UDP_CHECKSUM) {
        patch.payload = sum_covered(data, plain, is_ipv6, !is_packet);
        if (is_ipv6 && is_routed)
            patch.payload = csum_add(patch.payload, bpf_htons(1) ^ 0xffff);
    }
    if (is_routed)
        hop_plain(data + ETH_HLEN, is_ipv6);
    inherit(&patch, tunnel, &inner);
    patch.hash = hash_ports(flow->hash, plain->ports, plain->protocol);
    patch.outer = length + size - pop;

    struct macs macs = macs_at(data);

    if (bpf_xdp_adjust_head(ctx, (int)pop - (int)size) || write_header(ctx, tunnel, size))
        return DROP(MPTM_DROP_NO_ROOM);
    data = (void *)(long)ctx->data;
    end = (void *)(long)ctx->data_end;
    int verdict = patch_usual(data, end, tunnel, &inner, &patch);

    if (verdict)
        return verdict;
    if (data + sizeof(macs) > end)
        return DROP(MPTM_DROP_NO_ROOM);
    if (flags & MPTM_TUNNEL_KEEP_DESTINATION)
        put_mac(data, (__u8 *)macs.words);
    if (flags & MPTM_TUNNEL_KEEP_SOURCE)
        put_mac(data + ETH_ALEN, (__u8 *)macs.words + ETH_ALEN);
    verdict = redirect_to(tunnel->device);
    if (!REASON_OF(verdict)) {
        __u32 id = flow->id;
        struct mptm_tunnel_stats *stats = bpf_map_lookup_elem(&tunnel_stats, &id);

        if (stats)
            count(&stats->encap, length);
    }
    return verdict;
}

static __always_inline int send_plain(struct xdp_md *ctx, int is_ipv6)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    struct plain plain;

    if (!read_plain(data + ETH_HLEN, end, is_ipv6, &plain))
        return 0;
    __u32 length = plain_length(ctx, end - data, plain.total + ETH_HLEN);

    if (plain.total + ETH_HLEN > length)
        return 0;
    struct flow_out *flow = find_out(&plain, is_ipv6, ctx->ingress_ifindex, flows_generation());
    int verdict = flow ? send_known(ctx, &plain, is_ipv6, length, flow) : 0;

    return verdict ? finish(MPTM_PROGRAM_ENCAP, verdict, length) + 1 : 0;
}

/* Of a workload's packet: returns the action and one, or 0 if it is not sent. */
static __always_inline int send_short(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data;

    if (data + ETH_HLEN > (void *)(long)ctx->data_end || *(__u8 *)data & 1)
        return 0;
    switch (*(__be16 *)(data + 2 * ETH_ALEN)) {
    case bpf_htons(ETH_P_IP):
        return send_plain(ctx, 0);
    case bpf_htons(ETH_P_IPV6):
        return send_plain(ctx, 1);
    }
    return 0;
}

#endif
