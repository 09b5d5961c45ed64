/* SPDX-License-Identifier: GPL-2.0-only */
/* Decapsulation: taking off an outer header that has been found right. */
#ifndef MPTM_DECAP_H
#define MPTM_DECAP_H

#include "forward.h"
#include "outer.h"
#include "stats.h"

/* An IP payload gets the Ethernet header of a packet that was routed to `destination` by the interface in
 * `slot`. */
static __always_inline int write_ethernet(void *data, void *end, const struct inner *inner,
                                          const struct mptm_route *destination)
{
    struct mptm_slot *slot = bpf_map_lookup_elem(&slots, &destination->id);
    struct ethhdr *eth = data;

    if (!slot || (void *)(eth + 1) > end)
        return DROP(MPTM_DROP_NO_DEVICE);
    __builtin_memcpy(eth->h_dest, destination->mac, ETH_ALEN);
    __builtin_memcpy(eth->h_source, slot->mac, ETH_ALEN);
    eth->h_proto = inner->kind == KIND_IPV6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
    return 0;
}

static __always_inline int has_mac(const struct mptm_route *route)
{
    const __u8 *mac = route->mac;

    return mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5];
}

/* What arrives but can go no further. Returns 0, or a drop. */
static __always_inline int check_delivery(const struct outer *outer, const struct inner *inner,
                                          const struct mptm_route *destination)
{
    if (is_vlan_protocol(outer))
        return 0;
    if (is_marked_in_vain(inner, outer->ecn))
        return DROP(MPTM_DROP_ECN);
    if (outer->payload == PAYLOAD_ETHERNET)
        return 0;
    if (!has_mac(destination))
        return DROP(MPTM_DROP_NO_MAC);
    return inner->ttl <= 1 ? DROP(MPTM_DROP_TTL) : 0;
}

/* Takes the outer header off, and addresses the frame to whom it is for. Returns 0, or a drop. */
static __always_inline int decapsulate(struct xdp_md *ctx, struct outer *outer, struct inner *inner,
                                       struct mptm_route *destination, __u32 length)
{
    __u8 macs[2 * ETH_ALEN];
    void *data, *end;

    int is_packet = outer->payload != PAYLOAD_ETHERNET;
    __u32 strip = outer->strip;

    data = (void *)(long)ctx->data;
    end = (void *)(long)ctx->data_end;
    if (!is_vlan_protocol(outer)) {
        int error = join_ecn(data, end, inner, outer->ecn);

        if (!error && is_packet)
            error = decrement_ttl(data, end, inner);
        if (error)
            return error;
    }
    if (data + sizeof(macs) > end)
        return DROP(MPTM_DROP_OUTER_LENGTH);
    __builtin_memcpy(macs, data, sizeof(macs));
    if (length > outer->length && bpf_xdp_adjust_tail(ctx, (int)(outer->length - length)))
        return DROP(MPTM_DROP_OUTER_LENGTH);
    if (is_packet)
        strip -= ETH_HLEN;
    if (bpf_xdp_adjust_head(ctx, (int)strip))
        return DROP(MPTM_DROP_OUTER_LENGTH);
    data = (void *)(long)ctx->data;
    end = (void *)(long)ctx->data_end;
    if (is_packet)
        return write_ethernet(data, end, inner, destination);
    if (data + sizeof(macs) > end)
        return DROP(MPTM_DROP_OUTER_LENGTH);
    if (is_vlan_protocol(outer))
        __builtin_memcpy(data, macs, sizeof(macs));
    set_destination(data, destination->mac);
    return 0;
}

#endif
