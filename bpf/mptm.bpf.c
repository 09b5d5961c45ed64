// SPDX-License-Identifier: GPL-2.0-only
/* The programs: each a page that reads like the packet's way. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "check.h"
#include "copies.h"
#include "decap.h"
#include "echo.h"
#include "encap.h"
#include "flood.h"
#include "forward.h"
#include "icmp.h"
#include "linear.h"
#include "maps.h"
#include "neigh.h"
#include "outer.h"
#include "parse.h"
#include "route.h"
#include "short_in.h"
#include "short_out.h"
#include "stats.h"

char LICENSE[] SEC("license") = "GPL";

/* ARP probes and the like have no source, and solicitations may come from link-local addresses, which are in
 * no table. */
static __always_inline int may_be_anybody(const struct inner *inner)
{
    if (inner->kind != KIND_ARP && inner->kind != KIND_SOLICITATION)
        return 0;
    return is_probe(inner) || is_link_local(inner->source);
}

/* Whether it says where a link-local address is that was heard of from there. */
static __always_inline int is_known_there(__u32 table, const struct inner *inner, __u16 target, __u32 id)
{
    struct mptm_route from;

    return inner->kind == KIND_ADVERTISEMENT && is_link_local(inner->source) &&
           link_local_find(table, inner->source, &from) && from.target == target && from.id == id;
}

/* Where a solicitation from a link-local address came from, for the answer to find its way. */
static __always_inline void remember(__u32 table, const struct inner *inner, __u16 target, __u32 id,
                                     const __u8 *mac)
{
    struct mptm_route from = {.id = id, .target = target};

    if (inner->kind != KIND_SOLICITATION || !is_link_local(inner->source))
        return;
    if (mac)
        __builtin_memcpy(from.mac, mac, ETH_ALEN);
    link_local_learn(table, inner, &from);
}

/*
 * Where the packet goes. Link-local addresses are behind no route, not even a default one: what answers one,
 * or asks for it, goes where that was heard of. Gateways come first, since a workload may claim any
 * link-local address.
 */
static __always_inline int find_way(__u32 pairs, __u32 table, const struct inner *inner,
                                    struct mptm_route *route)
{
    if (!is_link_local(inner->destination))
        return route_between(pairs, table, inner->destination, route);
    if (inner->kind != KIND_SOLICITATION && inner->kind != KIND_ADVERTISEMENT)
        return 0;
    if (inner->kind == KIND_SOLICITATION && route_find(table, inner->destination, route) &&
        route->target == MPTM_TARGET_GATEWAY)
        return 1;
    return link_local_find(table, inner->destination, route);
}

/* To another workload of this node. */
static __always_inline int send_local(struct xdp_md *ctx, struct inner *inner,
                                      const struct mptm_interface *interface, const struct mptm_route *route)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    int error;

    if (route->id == interface->slot)
        return XDP_PASS; /* for itself: a gratuitous ARP, say */
    if (data + ETH_HLEN > end)
        return DROP(MPTM_DROP_MALFORMED);
    if (is_same_mac(data, interface->mac)) {
        error = decrement_ttl(data, end, inner);
        if (error)
            return error;
    }
    set_destination(data, route->mac);
    return redirect_to(route->id);
}

static __always_inline int send_tunnel(struct xdp_md *ctx, __u32 id, struct inner *inner,
                                       struct mptm_interface *interface, __u32 length)
{
    struct mptm_tunnel *tunnel = tunnel_find(id);
    int verdict;

    if (!tunnel)
        return DROP(MPTM_DROP_NO_TUNNEL);
    __u32 size = length - ETH_HLEN;

    if (tunnel->flags & MPTM_TUNNEL_IP_PAYLOAD) {
        if (!is_ip(inner))
            return send_back(answer_neighbour(ctx, inner, interface, length, 0), interface->slot);
        size = inner->end - inner->l3;
    }
    if (size > tunnel->mtu) {
        __u32 tags = tunnel->flags & MPTM_TUNNEL_IP_PAYLOAD ? 0 : inner->tags;

        verdict = send_back(too_big(ctx, inner, tunnel->mtu - tags, length), interface->slot);
    } else {
        verdict = encapsulate(ctx, tunnel, inner, interface, id);
        if (!verdict)
            verdict = send_outer(ctx, tunnel, interface);
    }
    if (!REASON_OF(verdict)) {
        struct mptm_tunnel_stats *stats = bpf_map_lookup_elem(&tunnel_stats, &id);

        if (stats)
            count(&stats->encap, length);
    }
    if (tunnel->flags & MPTM_TUNNEL_DEBUG)
        tell(ctx, id, MPTM_PROGRAM_ENCAP, verdict);
    return verdict;
}

static __always_inline int encap(struct xdp_md *ctx, __u32 length, __u32 now)
{
    __u32 ifindex = ctx->ingress_ifindex;
    struct mptm_interface *entry = bpf_map_lookup_elem(&interfaces, &ifindex);
    struct mptm_interface interface;
    struct mptm_route own, route;
    struct inner inner;

    if (!entry || entry->role != MPTM_ROLE_WORKLOAD)
        return XDP_PASS;
    interface = *entry; /* for the reason that routes are copied */
    switch (parse_inner_anywhere(ctx, 0, 2 * ETH_ALEN, length, &inner)) {
    case KIND_OTHER:
        return XDP_PASS;
    case KIND_GROUP:
        return flood_out(ctx, &inner, interface.table, interface.slot, length);
    case KIND_MALFORMED:
        return DROP(MPTM_DROP_MALFORMED);
    }
    __u32 table = table_for(interface.table, &inner);
    int is_own = route_find(table, inner.source, &own) && own.target == MPTM_TARGET_WORKLOAD &&
                 own.id == interface.slot;

    if (is_own)
        keep_source(&inner, &interface, own.pairs, ifindex, now);
    if (!find_way(is_own ? own.pairs : 0, table, &inner, &route))
        return XDP_PASS;
    if (!is_own && !may_be_anybody(&inner) &&
        !is_known_there(table, &inner, MPTM_TARGET_WORKLOAD, interface.slot))
        return DROP(MPTM_DROP_SOURCE);
    if (inner.kind == KIND_SOLICITATION) {
        __u8 *macs = (void *)(long)ctx->data;

        if ((void *)macs + 2 * ETH_ALEN <= (void *)(long)ctx->data_end)
            remember(table, &inner, MPTM_TARGET_WORKLOAD, interface.slot, macs + ETH_ALEN);
    }
    switch (route.target) {
    case MPTM_TARGET_GATEWAY:
        return send_back(answer_neighbour(ctx, &inner, &interface, length, ND_ROUTER), interface.slot);
    case MPTM_TARGET_WORKLOAD:
        return send_local(ctx, &inner, &interface, &route);
    }
    return send_tunnel(ctx, route.id, &inner, &interface, length);
}

/* Where a decapsulated frame goes, or why it may not. */
static __always_inline int deliver(const struct mptm_tunnel *tunnel, __u32 id, const struct outer *outer,
                                   const struct inner *inner, struct mptm_route *destination)
{
    struct mptm_route back;

    switch (inner->kind) {
    case KIND_MALFORMED:
        return DROP(MPTM_DROP_INNER_MALFORMED);
    case KIND_GROUP:
        return check_group(tunnel, id, inner);
    case KIND_OTHER:
        return DROP(MPTM_DROP_INNER_UNSUPPORTED);
    case KIND_IPV4:
        if (outer->payload == PAYLOAD_IPV6)
            return DROP(MPTM_DROP_TUNNEL_PAYLOAD);
        break;
    case KIND_IPV6:
        if (outer->payload == PAYLOAD_IPV4)
            return DROP(MPTM_DROP_TUNNEL_PAYLOAD);
    }
    __u32 table = table_for(tunnel->table, inner);
    int is_local = find_way(0, table, inner, destination) && destination->target == MPTM_TARGET_WORKLOAD;

    /* A default route is no way back to a link-local address. */
    if (!may_be_anybody(inner) && !is_known_there(table, inner, MPTM_TARGET_TUNNEL, id) &&
        (is_link_local(inner->source) ||
         !(route_between(is_local ? destination->pairs : 0, table, inner->source, &back) &&
           back.target == MPTM_TARGET_TUNNEL && back.id == id)))
        return DROP(MPTM_DROP_INNER_SOURCE);
    if (!is_local)
        return DROP(MPTM_DROP_INNER_NO_ROUTE);
    remember(table, inner, MPTM_TARGET_TUNNEL, id, NULL);
    return 0;
}

/* What is of a tunnel protocol, but no tunnel's. */
static __always_inline int leave_stray(struct xdp_md *ctx, struct outer *outer, __u32 length)
{
    __u32 protocol = outer->endpoint.protocol;

    if (is_vlan_protocol(outer))
        return XDP_PASS;
    if (protocol == MPTM_PROTOCOL_GRETAP)
        protocol = MPTM_PROTOCOL_GRE;
    if (protocol == MPTM_PROTOCOL_GRE)
        outer->endpoint.port = 0;
    outer->endpoint.id = 0;
    outer->endpoint.protocol = protocol | MPTM_ANY_ID;
    int is_far_end = bpf_map_lookup_elem(&endpoints, &outer->endpoint) != NULL;

    if (is_far_end && protocol == MPTM_PROTOCOL_GRE)
        return DROP(MPTM_DROP_TUNNEL_ID);
    if (is_far_end && outer->is_echo) {
        struct mptm_interface *interface = bpf_map_lookup_elem(&interfaces, &outer->endpoint.ifindex);
        __u32 slot = interface ? interface->slot : ~0U;
        int wrong = check_echo(ctx, outer);

        if (wrong)
            return wrong;
        return send_back(answer_echo(ctx, outer, length), slot);
    }
    return outer->is_control ? LEAVE(MPTM_DROP_OAM) : LEAVE(MPTM_DROP_STRAY);
}

/* Checks all of the packet, as it came, and looks up where it goes. Returns 0, or a drop. */
static __always_inline int accept(struct xdp_md *ctx, struct outer *outer, struct inner *inner,
                                  struct mptm_tunnel *tunnel, __u32 id, struct mptm_route *destination)
{
    __u32 reason = check_outer(ctx, outer, tunnel);
    __u32 at = outer->strip, macs = at;
    int verdict;

    if (reason)
        return DROP(reason);
    if (outer->payload != PAYLOAD_ETHERNET)
        macs = NO_MACS;
    else if (is_vlan_protocol(outer))
        macs = 0;
    if (macs != NO_MACS)
        at += 2 * ETH_ALEN;
    parse_inner_anywhere(ctx, macs, at, outer->length, inner);
    verdict = deliver(tunnel, id, outer, inner, destination);
    if (!verdict)
        verdict = check_delivery(outer, inner, destination);
    if (verdict)
        return verdict;
    if (outer->has_sequence && tunnel->flags & MPTM_TUNNEL_SEQUENCE && !take_sequence(outer, id))
        return DROP(MPTM_DROP_TUNNEL_SEQUENCE);
    return 0;
}

static __always_inline int decap(struct xdp_md *ctx, __u32 length, __u32 now)
{
    struct outer outer = {};
    struct inner inner;
    struct mptm_route destination = {};
    int verdict;

    outer.endpoint.ifindex = ctx->ingress_ifindex;
    linearize(ctx, length, OUTER_LOOK);
    if (!parse_outer(ctx, &outer, length))
        return XDP_PASS;
    __u32 *entry = bpf_map_lookup_elem(&endpoints, &outer.endpoint);

    if (!entry)
        return leave_stray(ctx, &outer, length);
    __u32 id = *entry;
    struct mptm_tunnel *tunnel = tunnel_find(id);

    if (!tunnel)
        return XDP_PASS;
    if (outer.is_control)
        return LEAVE(MPTM_DROP_OAM);
    verdict = accept(ctx, &outer, &inner, tunnel, id, &destination);

    if (tunnel->flags & MPTM_TUNNEL_DEBUG)
        tell(ctx, id, MPTM_PROGRAM_DECAP, verdict ? verdict : XDP_REDIRECT);
    if (verdict)
        return verdict;
    int is_group = inner.kind == KIND_GROUP;

    if (!is_group)
        keep_far(ctx, &outer, id, now);

    if (is_group) {
        inner.kind = flood_kind(&inner);
        __builtin_memset(&destination, 0, sizeof(destination));
    }
    if (tunnel->flags & MPTM_TUNNEL_MSS_CLAMP && inner.protocol == IPPROTO_TCP)
        clamp_mss(ctx, &inner, tunnel->mtu - (inner.kind == KIND_IPV6 ? 60 : 40));
    verdict = decapsulate(ctx, &outer, &inner, &destination, length);
    if (verdict)
        return verdict;
    verdict = is_group ? flood_in(ctx, id) : redirect_to(destination.id);

    struct mptm_tunnel_stats *stats = bpf_map_lookup_elem(&tunnel_stats, &id);

    if (!REASON_OF(verdict) && stats)
        count(&stats->decap, outer.length - outer.strip + (outer.payload == PAYLOAD_ETHERNET ? 0 : ETH_HLEN));
    return verdict;
}

/* Workload interfaces: what leaves the workloads goes into their tunnels. */
SEC("xdp.frags")
int mptm_encap(struct xdp_md *ctx)
{
    int sent = send_short(ctx);

    if (sent)
        return sent - 1;
    __u32 length = bpf_xdp_get_buff_len(ctx);

    return finish(MPTM_PROGRAM_ENCAP, encap(ctx, length, flows_generation()), length);
}

/* Underlay interfaces: what arrives in a tunnel of ours goes to its workload. */
SEC("xdp.frags")
int mptm_decap(struct xdp_md *ctx)
{
    int delivered = deliver_short(ctx);

    if (delivered)
        return delivered - 1;
    __u32 length = bpf_xdp_get_buff_len(ctx);

    return finish(MPTM_PROGRAM_DECAP, decap(ctx, length, flows_generation()), length);
}

/* A patch cable: everything goes out of another interface. */
SEC("xdp.frags")
int mptm_redirect(struct xdp_md *ctx)
{
    __u32 length = bpf_xdp_get_buff_len(ctx);
    __u32 ifindex = ctx->ingress_ifindex;
    struct mptm_interface *interface = bpf_map_lookup_elem(&interfaces, &ifindex);
    /* The role is looked at too: it changes before the program is taken off. */
    int verdict = interface && interface->role == MPTM_ROLE_REDIRECT ? redirect_to(interface->to) : XDP_PASS;

    return finish(MPTM_PROGRAM_REDIRECT, verdict, length);
}

/* Nothing but a counter: a veth needs a program on the end that redirected frames come out of. */
SEC("xdp.frags")
int mptm_pass(struct xdp_md *ctx)
{
    return finish(MPTM_PROGRAM_PASS, XDP_PASS, bpf_xdp_get_buff_len(ctx));
}

/* Any of the interfaces, where multicast and broadcast are flooded: copies what XDP has left a note with. */
SEC("tcx/ingress")
int mptm_flood(struct __sk_buff *skb)
{
    return flood(skb);
}
