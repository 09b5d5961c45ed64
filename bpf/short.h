/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The short way of plain packets whose flow is known. It does what the long one (mptm.bpf.c) would, and where
 * that may be something else than sending the packet on, it does nothing and leaves it to that.
 */
#ifndef MPTM_SHORT_H
#define MPTM_SHORT_H

#include "csum.h"
#include "decap.h"
#include "encap.h"
#include "flows.h"
#include "outer.h"
#include "plain.h"
#include "route.h"
#include "stats.h"

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

/* Keeps where a workload's packet went. */
static __noinline int keep_out(const struct inner *inner, const struct mptm_interface *interface, __u32 id,
                               __u32 ifindex, __u32 now)
{
    struct mptm_tunnel *tunnel = tunnel_find(id);
    struct flow_out *flow;
    struct pair pair;

    if (!now || !is_ip(inner) || !tunnel || tunnel->flags & LONG_WAY || !has_usual_header(tunnel))
        return 0;
    copy_pair(&pair, inner->source, inner->destination);

    __u32 slot = flows_slot(&pair, ifindex);

    flow = bpf_map_lookup_elem(&flows_out, &slot);
    if (!flow)
        return 0;
    flow->ifindex = ifindex;
    flow->pair = pair;
    flow->index = tunnel_index(id);
    flow->id = id;
    flow->hash = hash_addresses(pair.source, pair.destination);
    __builtin_memcpy(flow->mac, interface->mac, ETH_ALEN);
    flow->generation = now;
    return 0;
}

static __always_inline __u64 sum_pair(const struct pair *pair)
{
    return (__u64)(__u32)pair->source[0] + (pair->source[0] >> 32) + (__u32)pair->source[1] +
           (pair->source[1] >> 32) + (__u32)pair->destination[0] + (pair->destination[0] >> 32) +
           (__u32)pair->destination[1] + (pair->destination[1] >> 32);
}

/* Whether the transport checksum covers all from there to the frame's end: see csum_inner. */
static __always_inline int is_covered(void *data, void *end, const struct inner *inner)
{
    struct udphdr *udp = data + inner->l4;

    if (inner->end != inner->frame)
        return 0;
    if (inner->protocol == IPPROTO_TCP)
        return 1;
    return inner->protocol == IPPROTO_UDP && (void *)(udp + 1) <= end && udp->check &&
           udp->len == bpf_htons(inner->end - inner->l4);
}

/* The sum of such a packet, from its Ethernet or its IP header on. */
static __always_inline __u32 sum_covered(void *data, void *end, const struct inner *inner,
                                         const struct pair *pair, int has_ethernet)
{
    void *l3 = data + ETH_HLEN;
    __u64 sum = has_ethernet ? sum_words(data, 2 * ETH_ALEN) + *(__u16 *)(data + 2 * ETH_ALEN) : 0;
    __u32 pseudo =
        fold_words(sum_pair(pair) + bpf_htons(inner->protocol) + bpf_htons(inner->end - inner->l4));

    if (inner->kind == KIND_IPV4)
        sum += sum_words(l3, sizeof(struct iphdr));
    else if (l3 + sizeof(struct ipv6hdr) <= end)
        sum += sum_words(l3, sizeof(struct ipv6hdr));
    return fold_words(sum + (pseudo ^ 0xffff));
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

/* Of a workload's packet: returns a verdict, or 0. */
static __always_inline int send_short(struct xdp_md *ctx, __u32 length, __u32 now)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    struct inner inner = {.l3 = ETH_HLEN, .frame = length};
    struct patch patch = {};
    struct ethhdr *eth = data;
    struct pair pair;

    if (!now || data + ETH_HLEN > end || *(__u8 *)data & 1 ||
        !read_plain(eth->h_proto, data + ETH_HLEN, end, length - ETH_HLEN, &inner, &pair))
        return 0;
    __u32 slot = flows_slot(&pair, ctx->ingress_ifindex);
    struct flow_out *flow = bpf_map_lookup_elem(&flows_out, &slot);

    if (!flow || flow->generation != now || flow->ifindex != ctx->ingress_ifindex ||
        !is_same_pair(&flow->pair, &pair))
        return 0;
    __u32 index = flow->index;
    struct mptm_tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &index);

    if (!tunnel)
        return 0;
    __u32 flags = tunnel->flags;
    int is_packet = !!(flags & MPTM_TUNNEL_IP_PAYLOAD);
    int is_routed = is_packet || is_same_mac(data, flow->mac);
    __u32 size = tunnel->header_len;
    __u32 pop = is_packet ? ETH_HLEN : tunnel->pop;

    if (length - ETH_HLEN > tunnel->mtu || (is_packet && inner.end != length) ||
        (is_routed && inner.ttl <= 1))
        return 0;
    if (flags & MPTM_TUNNEL_MSS_CLAMP && may_be_syn(data + inner.l4, end, &inner))
        return 0;
    if (flags & MPTM_TUNNEL_UDP_CHECKSUM && !is_covered(data, end, &inner))
        return 0;
    inner.pcp = inner.tos >> 5;
    if (is_routed)
        decrement_ttl(data, end, &inner);
    if (flags & MPTM_TUNNEL_INNER_MAC)
        set_destination(data, tunnel->inner_mac);
    if (flags & MPTM_TUNNEL_UDP_CHECKSUM)
        patch.payload = sum_covered(data, end, &inner, &pair, !is_packet);
    inherit(&patch, tunnel, &inner);
    patch.hash = hash_ports(flow->hash, inner.ports, inner.protocol);
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

/* Keeps where a packet out of a tunnel went. */
static __noinline int keep_in(const struct outer *outer, const struct inner *inner,
                              const struct mptm_route *destination, __u32 tunnel_id, __u32 now)
{
    struct mptm_tunnel *tunnel = tunnel_find(tunnel_id);
    __u32 slot = destination->id;
    struct mptm_slot *own = bpf_map_lookup_elem(&slots, &slot);
    struct flow_in *flow;
    struct pair pair;

    if (!now || !is_ip(inner) || !tunnel || tunnel->flags & LONG_WAY || !own)
        return 0;
    copy_pair(&pair, inner->source, inner->destination);
    slot = flows_slot(&pair, outer->endpoint.id);
    flow = bpf_map_lookup_elem(&flows_in, &slot);
    if (!flow)
        return 0;
    flow->ifindex = outer->endpoint.ifindex;
    flow->inner = pair;
    copy_pair(&flow->outer, outer->endpoint.remote, outer->endpoint.local);
    flow->id = outer->endpoint.id;
    flow->port = outer->endpoint.port;
    flow->protocol = outer->endpoint.protocol;
    flow->tunnel = tunnel_id;
    flow->slot = destination->id;
    __builtin_memcpy(flow->mac, destination->mac, ETH_ALEN);
    __builtin_memcpy(flow->own_mac, own->mac, ETH_ALEN);
    flow->has_mac = has_mac(destination);
    flow->needs_sum =
        outer->is_ipv6 && tunnel->flags & MPTM_TUNNEL_UDP && tunnel->flags & MPTM_TUNNEL_UDP_CHECKSUM;
    flow->clamps = !!(tunnel->flags & MPTM_TUNNEL_MSS_CLAMP);
    flow->generation = now;
    return 0;
}

static __always_inline int read_short_ipv4(void *data, void *end, __u32 length, struct outer *outer,
                                           struct pair *pair)
{
    struct iphdr *ip = data + ETH_HLEN;

    if ((void *)(ip + 1) > end || *(__u8 *)ip != PLAIN_IPV4 ||
        ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET) ||
        bpf_ntohs(ip->tot_len) + ETH_HLEN != length || ip->tos & ECN_ECT_1 ||
        fold_words(sum_words(ip, sizeof(*ip))) != 0xffff)
        return 0;
    pair->source[0] = 0;
    pair->source[1] = mapped_low(ip->saddr);
    pair->destination[0] = 0;
    pair->destination[1] = mapped_low(ip->daddr);
    outer->l4 = SHORT_L4_IPV4;
    return parse_transport(data, end, ip->protocol, outer);
}

static __always_inline int read_short_ipv6(void *data, void *end, __u32 length, struct outer *outer,
                                           struct pair *pair)
{
    struct ipv6hdr *ip = data + ETH_HLEN;
    __u64 *addresses = (void *)ip + offsetof(struct ipv6hdr, saddr);

    if ((void *)(ip + 1) > end)
        return 0;
    __u32 first = bpf_ntohl(*(__be32 *)ip);

    if (first >> 28 != 6 || bpf_ntohs(ip->payload_len) + ETH_HLEN + sizeof(*ip) != length ||
        first >> 20 & ECN_ECT_1)
        return 0;
    pair->source[0] = addresses[0];
    pair->source[1] = addresses[1];
    pair->destination[0] = addresses[2];
    pair->destination[1] = addresses[3];
    outer->is_ipv6 = 1;
    outer->l4 = SHORT_L4_IPV6;
    return parse_transport(data, end, ip->nexthdr, outer);
}

/* Reads an outer header that has nothing unusual. ECT(1) and CE, which have the same bit, go the long way. */
static __always_inline int read_short(void *data, void *end, __u32 length, struct outer *outer,
                                      struct pair *pair)
{
    struct ethhdr *eth = data;
    int found = 0;

    if ((void *)(eth + 1) > end)
        return 0;
    outer->length = length;
    if (eth->h_proto == bpf_htons(ETH_P_IP))
        found = read_short_ipv4(data, end, length, outer, pair);
    else if (eth->h_proto == bpf_htons(ETH_P_IPV6))
        found = read_short_ipv6(data, end, length, outer, pair);
    else if (is_vlan(eth->h_proto))
        found = parse_outer_vlan(data, end, length, outer);
    /* GTP-U: what is behind the eight bytes may be extension headers. */
    return found &&
           !(outer->reason | outer->is_control | outer->is_critical | outer->has_checksum |
             outer->has_sequence | outer->options) &&
           (outer->endpoint.protocol != MPTM_PROTOCOL_GTPU ||
            outer->strip == outer->tunnel + sizeof(struct gtpu));
}

/* The EtherType of the inner packet; 0: it is not plain. */
static __always_inline __be16 inner_type(void *data, void *end, const struct outer *outer)
{
    __u32 strip = outer->strip;

    if (strip > OUTER_FARTHEST)
        return 0;
    if (outer->payload == PAYLOAD_ETHERNET) {
        void *macs = is_vlan_protocol(outer) ? data : data + strip;
        __be16 *type = data + strip + 2 * ETH_ALEN;

        return (void *)(type + 1) > end || macs + 1 > end || *(__u8 *)macs & 1 ? 0 : *type;
    }
    __u8 *version = data + strip;

    if ((void *)(version + 1) > end)
        return 0;
    if (*version >> 4 == 4)
        return outer->payload == PAYLOAD_IPV6 ? 0 : bpf_htons(ETH_P_IP);
    return outer->payload == PAYLOAD_IPV4 ? 0 : bpf_htons(ETH_P_IPV6);
}

/* Whether a received UDP checksum is right, or rightly missing. */
static __always_inline int is_sum_right(struct xdp_md *ctx, const struct outer *outer,
                                        const struct flow_in *flow)
{
    __u32 length = outer->length - outer->l4;

    if (!outer->check)
        return !flow->needs_sum;
    __u32 pseudo = fold_words(sum_pair(&flow->outer) + bpf_htons(IPPROTO_UDP) + bpf_htons(length));

    return csum_fold(csum_range(ctx, outer->l4, length, pseudo)) == 0;
}

static __always_inline struct flow_in *find_in(const struct pair *outer_pair, const struct outer *outer,
                                               const struct pair *pair, __u32 ifindex, __u32 now)
{
    __u32 slot = flows_slot(pair, outer->endpoint.id);
    struct flow_in *flow = bpf_map_lookup_elem(&flows_in, &slot);

    if (!flow || flow->generation != now || flow->ifindex != ifindex || flow->id != outer->endpoint.id ||
        flow->port != outer->endpoint.port || flow->protocol != outer->endpoint.protocol ||
        !is_same_pair(&flow->inner, pair) || !is_same_pair(&flow->outer, outer_pair))
        return NULL;
    return flow;
}

/* The MAC addresses come to where the frame is going to begin. */
static __always_inline void move_macs(void *data, void *end, __u32 by)
{
    __u32 *from = data, *to = data + by;
    __u32 first = from[0], second = from[1], third = from[2];

    if ((void *)(to + 3) > end)
        return;
    to[0] = first;
    to[1] = second;
    to[2] = third;
}

/* Of an outer packet: returns a verdict, or 0. */
static __always_inline int deliver_short(struct xdp_md *ctx, __u32 length, __u32 now)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    struct pair outer_pair = {}, pair;
    struct outer outer = {};
    struct inner inner = {};

    if (!now || !read_short(data, end, length, &outer, &outer_pair))
        return 0;
    int is_packet = outer.payload != PAYLOAD_ETHERNET;
    __be16 type = inner_type(data, end, &outer);

    inner.l3 = outer.strip + (is_packet ? 0 : ETH_HLEN);
    if (!type || inner.l3 > INNER_FARTHEST || inner.l3 > length ||
        !read_plain(type, data + inner.l3, end, length - inner.l3, &inner, &pair))
        return 0;
    struct flow_in *flow = find_in(&outer_pair, &outer, &pair, ctx->ingress_ifindex, now);

    if (!flow || (is_packet && (inner.ttl <= 1 || !flow->has_mac)) ||
        (flow->clamps && inner.protocol == IPPROTO_TCP) || !is_sum_right(ctx, &outer, flow))
        return 0;
    __u32 strip = is_packet ? outer.strip - ETH_HLEN : outer.strip;

    if (is_packet)
        decrement_ttl(data, end, &inner);
    else if (is_vlan_protocol(&outer))
        move_macs(data, end, strip);
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
        *(__be16 *)(data + 2 * ETH_ALEN) = type;
    }
    __u32 id = flow->tunnel;
    int verdict = redirect_to(flow->slot);
    struct mptm_tunnel_stats *stats = bpf_map_lookup_elem(&tunnel_stats, &id);

    if (!REASON_OF(verdict) && stats)
        count(&stats->decap, length - strip);
    return verdict;
}

#endif
