// SPDX-License-Identifier: GPL-2.0-only
/* The four programs: each a page that reads like the packet's way. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "decap.h"
#include "encap.h"
#include "linear.h"
#include "maps.h"
#include "parse.h"
#include "route.h"
#include "stats.h"

char LICENSE[] SEC("license") = "GPL";

static __always_inline int encap(struct xdp_md *ctx, __u32 length)
{
    __u32 ifindex = ctx->ingress_ifindex;
    struct mptm_interface *entry = bpf_map_lookup_elem(&interfaces, &ifindex);
    struct mptm_interface interface;
    struct mptm_route own, route;
    struct inner inner;

    if (!entry || entry->role != MPTM_ROLE_WORKLOAD)
        return XDP_PASS;
    interface = *entry; /* for the reason that routes are copied */
    linearize(ctx, length, INNER_LOOK);

    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    enum kind kind = parse_inner(data, data + 2 * ETH_ALEN, end, length - 2 * ETH_ALEN, &inner);

    if (kind == KIND_OTHER)
        return XDP_PASS;
    if (kind == KIND_MALFORMED)
        return DROP(MPTM_DROP_MALFORMED);

    int is_own = route_find(interface.table, inner.source, &own) && own.target == MPTM_TARGET_WORKLOAD &&
                 own.id == interface.slot;

    if (!route_between(is_own ? own.pairs : 0, interface.table, inner.destination, &route))
        return XDP_PASS;
    if (!is_own && !(kind == KIND_ARP && is_unspecified(inner.source)))
        return DROP(MPTM_DROP_SOURCE);
    if (route.target == MPTM_TARGET_WORKLOAD) {
        if (route.id == interface.slot)
            return XDP_PASS; /* for itself: a gratuitous ARP, say */
        if (data + ETH_ALEN > end)
            return DROP(MPTM_DROP_MALFORMED);
        set_destination(data, route.mac);
        return redirect_to(route.id);
    }

    struct mptm_tunnel *tunnel = tunnel_find(route.id);

    if (!tunnel)
        return DROP(MPTM_DROP_NO_TUNNEL);
    int verdict = encapsulate(ctx, tunnel, &inner, length);

    if (!verdict)
        verdict = send_outer(ctx, tunnel, &interface);
    if (verdict >= 0) {
        struct mptm_tunnel_stats *stats = bpf_map_lookup_elem(&tunnel_stats, &route.id);

        if (stats)
            count(&stats->encap, length);
    }
    if (tunnel->flags & MPTM_TUNNEL_DEBUG)
        tell(ctx, route.id, MPTM_PROGRAM_ENCAP, verdict);
    return verdict;
}

/* Where a decapsulated frame goes, or why it may not. */
static __always_inline int deliver(const struct mptm_tunnel *tunnel, __u32 id, const struct outer *outer,
                                   void *data, void *end, struct mptm_route *destination)
{
    __u32 strip = outer->strip;
    void *frame = data + strip;
    struct mptm_route back;
    struct inner inner;

    if (strip > OUTER_MAX)
        return DROP(MPTM_DROP_OUTER_LENGTH);
    enum kind kind = parse_inner(outer->endpoint.protocol == MPTM_PROTOCOL_VLAN ? data : frame,
                                 frame + 2 * ETH_ALEN, end, outer->length - strip - 2 * ETH_ALEN, &inner);

    if (outer->length < strip + 2 * ETH_ALEN || kind == KIND_MALFORMED)
        return DROP(MPTM_DROP_INNER_MALFORMED);
    if (kind == KIND_OTHER)
        return DROP(MPTM_DROP_INNER_UNSUPPORTED);

    int is_local = route_find(tunnel->table, inner.destination, destination) &&
                   destination->target == MPTM_TARGET_WORKLOAD;

    if (!(kind == KIND_ARP && is_unspecified(inner.source)) &&
        !(route_between(is_local ? destination->pairs : 0, tunnel->table, inner.source, &back) &&
          back.target == MPTM_TARGET_TUNNEL && back.id == id))
        return DROP(MPTM_DROP_INNER_SOURCE);
    return is_local ? 0 : DROP(MPTM_DROP_INNER_NO_ROUTE);
}

static __always_inline int decap(struct xdp_md *ctx, __u32 length)
{
    struct outer outer = {};
    struct mptm_route destination;

    outer.endpoint.ifindex = ctx->ingress_ifindex;
    linearize(ctx, length, OUTER_LOOK);
    if (!parse_outer((void *)(long)ctx->data, (void *)(long)ctx->data_end, length, &outer))
        return XDP_PASS;
    __u32 *entry = bpf_map_lookup_elem(&endpoints, &outer.endpoint);

    if (!entry)
        return XDP_PASS;
    __u32 id = *entry;
    struct mptm_tunnel *tunnel = tunnel_find(id);

    if (!tunnel)
        return XDP_PASS;
    linearize(ctx, length, outer.strip + INNER_LOOK);

    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    int verdict = DROP(check_outer(data, end, &outer));

    if (!verdict)
        verdict = deliver(tunnel, id, &outer, data, end, &destination);
    if (tunnel->flags & MPTM_TUNNEL_DEBUG)
        tell(ctx, id, MPTM_PROGRAM_DECAP, verdict ? verdict : XDP_REDIRECT);
    if (verdict)
        return verdict;
    verdict = decapsulate(ctx, &outer, length);
    if (verdict)
        return verdict;
    data = (void *)(long)ctx->data;
    end = (void *)(long)ctx->data_end;
    if (data + ETH_ALEN > end)
        return DROP(MPTM_DROP_INNER_MALFORMED);
    set_destination(data, destination.mac);
    verdict = redirect_to(destination.id);

    struct mptm_tunnel_stats *stats = bpf_map_lookup_elem(&tunnel_stats, &id);

    if (verdict >= 0 && stats)
        count(&stats->decap, outer.length - outer.strip);
    return verdict;
}

/* Workload interfaces: what leaves the workloads goes into their tunnels. */
SEC("xdp.frags")
int mptm_encap(struct xdp_md *ctx)
{
    __u32 length = bpf_xdp_get_buff_len(ctx);

    return finish(MPTM_PROGRAM_ENCAP, encap(ctx, length), length);
}

/* Underlay interfaces: what arrives in a tunnel of ours goes to its workload. */
SEC("xdp.frags")
int mptm_decap(struct xdp_md *ctx)
{
    __u32 length = bpf_xdp_get_buff_len(ctx);

    return finish(MPTM_PROGRAM_DECAP, decap(ctx, length), length);
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
