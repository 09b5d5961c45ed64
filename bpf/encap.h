/* SPDX-License-Identifier: GPL-2.0-only */
/* Encapsulation, the same for every protocol: user space built the outer header, this fits it to one packet.
 */
#ifndef MPTM_ENCAP_H
#define MPTM_ENCAP_H

#include "csum.h"
#include "route.h"
#include "stats.h"

/* A hash of the inner flow: addresses, protocol, ports. The finaliser is MurmurHash3's. */
static __always_inline __u32 flow_hash(const struct inner *inner)
{
    const __u32 *source = (const __u32 *)inner->source;
    const __u32 *destination = (const __u32 *)inner->destination;
    __u32 hash = inner->ports ^ inner->protocol;

#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) {
        hash = (hash ^ source[i]) * 0x9e3779b1;
        hash = ((hash << 13) | (hash >> 19)) ^ destination[i];
    }
    hash = (hash ^ (hash >> 16)) * 0x85ebca6b;
    hash = (hash ^ (hash >> 13)) * 0xc2b2ae35;
    return hash ^ (hash >> 16);
}

/* Fills in what differs from packet to packet. `outer` is the length of the whole outer frame. */
static __always_inline int patch_header(void *data, void *end, const struct mptm_tunnel *tunnel,
                                        const struct inner *inner, __u32 outer)
{
    if (tunnel->flags & MPTM_TUNNEL_IPV4) {
        __u32 offset = tunnel->l3_offset;
        struct iphdr *ip = data + offset;

        if (offset > MPTM_MAX_HEADER - sizeof(*ip))
            return DROP(MPTM_DROP_NO_TUNNEL);
        if ((void *)(ip + 1) > end)
            return DROP(MPTM_DROP_NO_ROOM);
        ip->tot_len = bpf_htons(outer - offset);
        ip->check = csum_fold(tunnel->ip_sum + ip->tot_len);
    }
    if (tunnel->flags & MPTM_TUNNEL_UDP) {
        __u32 offset = tunnel->l4_offset;
        struct udphdr *udp = data + offset;

        if (offset > MPTM_MAX_HEADER - sizeof(*udp))
            return DROP(MPTM_DROP_NO_TUNNEL);
        if ((void *)(udp + 1) > end)
            return DROP(MPTM_DROP_NO_ROOM);
        udp->source =
            bpf_htons(tunnel->port_min + (__u32)(((__u64)flow_hash(inner) * tunnel->port_count) >> 32));
        udp->len = bpf_htons(outer - offset);
    }
    return 0;
}

/* Makes the frame an outer one. `length` is the inner frame's; returns 0, or a drop. */
static __always_inline int encapsulate(struct xdp_md *ctx, const struct mptm_tunnel *tunnel,
                                       const struct inner *inner, __u32 length)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    __u8 macs[2 * ETH_ALEN];
    __u32 size = tunnel->header_len;
    int error;

    if (tunnel->flags & MPTM_TUNNEL_UNRESOLVED)
        return DROP(MPTM_DROP_NO_NEIGHBOUR);
    if (length > tunnel->mtu + ETH_HLEN)
        return DROP(MPTM_DROP_TOO_BIG);
    if (size < 1 || size > MPTM_MAX_HEADER)
        return DROP(MPTM_DROP_NO_TUNNEL);
    if (data + ETH_HLEN > end)
        return DROP(MPTM_DROP_MALFORMED);
    if (tunnel->flags & MPTM_TUNNEL_INNER_MAC)
        set_destination(data, tunnel->inner_mac);
    __builtin_memcpy(macs, data, sizeof(macs));

    int grow = (int)size - tunnel->pop;

    if (bpf_xdp_adjust_head(ctx, -grow))
        return DROP(MPTM_DROP_NO_ROOM);
    if (bpf_xdp_store_bytes(ctx, 0, (void *)tunnel->header, size))
        return DROP(MPTM_DROP_NO_ROOM);
    data = (void *)(long)ctx->data;
    end = (void *)(long)ctx->data_end;
    error = patch_header(data, end, tunnel, inner, length + grow);
    if (error)
        return error;
    if (data + sizeof(macs) > end)
        return DROP(MPTM_DROP_NO_ROOM);
    if (tunnel->flags & MPTM_TUNNEL_KEEP_DESTINATION)
        __builtin_memcpy(data, macs, ETH_ALEN);
    if (tunnel->flags & MPTM_TUNNEL_KEEP_SOURCE)
        __builtin_memcpy(data + ETH_ALEN, macs + ETH_ALEN, ETH_ALEN);
    return 0;
}

/*
 * Sends the outer frame on its way: to the underlay, or up the host's stack, which takes it for its own
 * routing. XDP_PASS alone would not do for that in native mode: of what a veth received, the kernel has noted
 * before XDP whom it was for, and would go on holding it for a broadcast or another host's. Through a cpumap
 * it becomes a new packet. Generic XDP notes it again, but leaves packets that it hands to a cpumap with
 * their headers misplaced.
 */
static __always_inline int send_outer(struct xdp_md *ctx, const struct mptm_tunnel *tunnel,
                                      const struct mptm_interface *interface)
{
    if (!(tunnel->flags & MPTM_TUNNEL_STACK))
        return redirect_to(tunnel->device);

    void *data = (void *)(long)ctx->data;

    if (data + ETH_ALEN > (void *)(long)ctx->data_end)
        return DROP(MPTM_DROP_NO_ROOM);
    __builtin_memcpy(data, interface->mac, ETH_ALEN);
    if (!(interface->flags & MPTM_INTERFACE_CPUS))
        return XDP_PASS;
    return bpf_redirect_map(&cpus, bpf_get_smp_processor_id(), XDP_PASS);
}

#endif
